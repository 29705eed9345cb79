"""Kinds: what a paper is, by its own heading where it has one; how the kinds are described to the model where it has none."""

import re

from inbox_desk.papers import Kind

KINDS: dict[Kind, str] = {
    "invoice": "an invoice that asks a customer to pay an amount",
    "receipt": "a receipt of a shop, till or car park for something that was paid",
    "order": "a purchase order that asks a supplier to deliver goods",
    "delivery note": "a delivery note or packing slip that lists goods that were sent",
    "letter": "a letter to a company, a complaint or a reminder",
    "contract": "a contract or agreement between two parties",
    "memo": "an internal memo of a company to its staff",
    "other": "a newsletter, a list, a log or other things that are no business paper",
}
TYPICAL = (
    "INVOICE 2231. Customer: A. Smith. Net 100.00, VAT 20.00, total 120.00. Please pay within 30 days.",
    "CORNER SHOP. 1 x milk 1.20. TOTAL 1.20. CASH. Thank you, come again!",
    "PURCHASE ORDER 12. To the supplier: please supply 20 chairs at 30.00 each by Friday.",
    "DELIVERY NOTE. Sent to you today by carrier: 2 boxes of paper. Please sign for the goods.",
    "Dear Sir or Madam, I am writing to you about my order. Yours faithfully",
    "AGREEMENT between the Landlord and the Tenant. 1. The term of this agreement is two years.",
    "MEMO to all staff: the office is closed on Monday.",
    "Weekly tips, offers and news for you! Unsubscribe here.",
)
"""One of each kind: they take part in centring the scores, so that a folder of invoices alone is still told apart."""
ROUTER_WORDS = 40

_HEADINGS: tuple[tuple[Kind, str], ...] = (
    ("delivery note", r"delivery note|packing (slip|list)|goods despatched note|dispatch note"),
    ("order", r"purchase order"),
    ("invoice", r"(tax |vat |sales )?invoice"),
    ("receipt", r"(sales |till |vat )?receipt"),
    ("contract", r"((service|lease|licence|framework|rental) )?(agreement|contract)"),
    ("memo", r"memo(randum)?"),
)
_NUMBERED = r"\s*(no\b\.?|number|nr\b\.?|#|:)*\s*([a-z]{1,3}\s)?[\w/.-]*\d"
_GREETING, _CLOSING = re.compile(r"^\s*dear\b", re.I | re.M), re.compile(r"^\s*(yours|kind regards|best regards|sincerely)\b", re.I | re.M)
_TOTAL = re.compile(r"\b(total|amount due|to pay)\b", re.I)


def headed(text: str) -> Kind | None:
    """The kind that a heading gives away, alone in its column or with a number after it; a letter has a greeting and no total."""
    found: set[Kind] = set()
    for line in [line.strip() for line in text.splitlines() if line.strip()][:6]:
        for column in re.split(r"\s{3,}", line):
            for kind, words in _HEADINGS:
                if re.fullmatch(rf"({words})(\s*\(\w+\))?", column, re.I) or re.match(rf"({words}){_NUMBERED}", column, re.I):
                    found.add(kind)
    if not found and _GREETING.search(text) and _CLOSING.search(text) and not _TOTAL.search(text):
        return "letter"
    return found.pop() if len(found) == 1 else None


def gist(text: str) -> str:
    """The first words of a paper, as the router sees them."""
    return " ".join(text.split()[:ROUTER_WORDS])
