"""Reading: what the readers and the finder are told and shown. The examples are of no folder that this is measured on."""

import re

from agents.checks import grounded
from inbox_desk.papers import Bill, Found, Paper, Query, Reading, Sheet

READ_BILL = (
    "Copy values from the document, word for word. party: the company that issued it. number: the number of the document. "
    "date: the date it was issued. net: the amount before tax. tax: the VAT. total: the amount to pay. "
    "Write an empty text for what the document does not say."
)
READ_SHEET = (
    "Copy values from the document, word for word. party: the company or person that wrote it. number: the number or reference of "
    "the document. date: the date of the document. Write an empty text for what the document does not say."
)
FIND = "Answer the question with a few words copied from the document."


def shown(ask: Reading) -> str:
    """A paper as a reader sees it; when it is asked again, with what is wrong, and without a trace of the values proven wrong.

    A small model copies what it sees: told that a name is the wrong one, it gives the name again.
    """
    if not ask.wrong:
        return ask.paper.text
    text = f"{ask.paper.text}\n\nYour first reading was {ask.said}, and this is wrong with it: {'; '.join(ask.wrong)}. Read it again."
    for value in ask.struck:
        text = re.sub(re.escape(value), "", text, flags=re.I)
    return text


def asked(query: Query) -> str:
    """A question under the paper that may answer it."""
    return f"{query.paper.text}\n\nQuestion: {query.question}"


def quoted(query: Query, found: Found) -> list[str]:
    """What is wrong with an answer: it must stand in the paper, and say something that the question does not."""
    if not found.answer.strip():
        return ["answer: it is empty; copy the words that answer the question"]
    if found.answer.casefold().strip() in query.question.casefold():
        return ["answer: it only repeats the question; copy the words that answer it"]
    return grounded(query.paper.text, found)


def _paper(text: str) -> Reading:
    return Reading(paper=Paper(file="example", text=text))


BILLS_READ = (
    (
        _paper(
            "Larkfield Printers Ltd\nINVOICE\nInvoice no. LP/3310     Date 14 May 2025\nTo: Dunmore School\n\n"
            "500 programmes      200.00\nposters              80.00\nNet                 280.00\nVAT 20%              56.00\n"
            "Total GBP           336.00\n"
        ),
        Bill(party="Larkfield Printers Ltd", number="LP/3310", date="14 May 2025", net="280.00", tax="56.00", total="336.00"),
    ),
    (
        _paper("BUN HOUSE BAKERY\n02/06/2025 08:15\n3 x roll    4.20\n1 x tea     1.90\nTOTAL £6.10\nCARD\nReceipt 8841\n"),
        Bill(party="BUN HOUSE BAKERY", number="8841", date="02/06/2025", net="", tax="", total="6.10"),
    ),
    (
        _paper(
            "Dunmore School\nPURCHASE ORDER\nOrder no. 77-A\nDate: 2025-06-20\nTo: Larkfield Printers Ltd\n"
            "Please supply 40 folders at EUR 2.50 = EUR 100.00\n"
        ),
        Bill(party="Dunmore School", number="77-A", date="2025-06-20", net="", tax="", total="100.00"),
    ),
)
SHEETS_READ = (
    (
        _paper("Larkfield Printers Ltd\nDelivery note 9007\nDate: 12 May 2025\nTo: Dunmore School\n2 boxes of programmes\n"),
        Sheet(party="Larkfield Printers Ltd", number="9007", date="12 May 2025"),
    ),
    (
        _paper(
            "Mr A. Finch\n8 Mill Lane\n\n03/06/2025\n\nDear Sirs,\nthe posters you sent me are torn.\n\nYours faithfully\nArthur Finch\n"
        ),
        Sheet(party="Arthur Finch", number="", date="03/06/2025"),
    ),
)
FOUND = (
    (
        Query(
            question="What was damaged?", paper=Paper(file="example", text="Dear Sirs,\nthe posters you sent me are torn at the corners.\n")
        ),
        Found(answer="the posters"),
    ),
    (
        Query(
            question="How long is the notice?",
            paper=Paper(file="example", text="4. The rent is EUR 90.00 a month.\n5. It may be ended with a notice of two weeks.\n"),
        ),
        Found(answer="two weeks"),
    ),
)
