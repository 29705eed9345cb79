"""Questions: answered from the table by rules, but only where a rule understands every word; else the papers that may answer them.

A rule that overlooked half of a question would answer another one, and sound sure of it.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from inbox_desk.ledger import plain
from inbox_desk.papers import BILLS, Answered, Kind, Paper, Row

_KINDS: dict[str, Kind] = {
    "purchase order": "order",
    "delivery note": "delivery note",
    "packing slip": "delivery note",
    "invoice": "invoice",
    "bill": "invoice",
    "receipt": "receipt",
    "order": "order",
    "letter": "letter",
    "contract": "contract",
    "agreement": "contract",
    "memo": "memo",
}
_ANY = {"document", "documents", "paper", "papers", "file", "files"}
_FIELDS = {
    "party": {"who", "supplier", "party", "company", "wrote", "issuer"},
    "total": {"total", "amount", "sum", "cost", "costs", "due", "value"},
    "net": {"net"},
    "tax": {"vat", "tax"},
    "date": {"date", "dated", "issued", "when"},
    "currency": {"currency"},
}
_CURRENCIES = {"eur": "EUR", "euro": "EUR", "euros": "EUR", "gbp": "GBP", "pound": "GBP", "pounds": "GBP", "usd": "USD", "dollars": "USD"}
_MOST = {"largest", "biggest", "highest", "dearest"}
_LEAST = {"smallest", "lowest", "cheapest"}
_LATEST, _EARLIEST = {"latest", "newest", "last"}, {"earliest", "oldest", "first"}
_FLAGGED = {"exception", "exceptions", "wrong", "problem", "problems", "duplicate", "duplicates"}
_SUMS = {"altogether", "together", "spend", "spent"}
_WORDS = (
    "a all an and any are at by did do does each every for from give has have how in is it its list many me much "
    "no number of on our please s show sum that the there these they this to us was we were what which with you"
)
_PLAIN = frozenset(_WORDS.split())
_STOP = _PLAIN | {"when", "who", "where", "will", "be", "can", "must", "should", "or", "not", "as", "their", "them"}


class Sieve(NamedTuple):
    """What a question is about: the rows that are meant, and its words that no filter took."""

    rows: list[Row]
    words: set[str]
    number: str


def by_rules(question: str, rows: list[Row]) -> Answered | None:
    """The answer from the table; ``None`` when a word of the question means nothing to the rules."""
    meant = sieve(question, rows)
    words = meant.words - _PLAIN
    copies = [row for row in meant.rows if row.copy_of]
    kept = [row for row in meant.rows if not row.copy_of and row.kind != "unreadable"]
    field = next((name for name, said in _FIELDS.items() if meant.words & said), None)
    fields = set.union(*_FIELDS.values())
    if words & _FLAGGED and words <= _FLAGGED | {"those"}:
        sorts = {"duplicate"} if words & {"duplicate", "duplicates"} else None
        flagged = [row for row in meant.rows if any(not sorts or flag.sort in sorts for flag in row.flags)]
        return _answer(
            question,
            "\n".join(f"{row.file}: {', '.join(dict.fromkeys(flag.sort for flag in row.flags))}" for row in flagged) or "none",
            flagged,
        )
    for said, best, key in (
        (_MOST, max, _by_total),
        (_LEAST, min, _by_total),
        (_LATEST, max, _by_date),
        (_EARLIEST, min, _by_date),
    ):
        if words & said and words <= said | fields:
            return _extreme(question, kept, best, key)
    if meant.number and field and words <= fields:
        if len(kept) != 1:
            return None
        value = getattr(kept[0], field)
        shown = f"{value} {kept[0].currency}".strip() if field in ("total", "net", "tax") and value else value
        return _answer(question, shown or "it was not read", kept) if shown else None
    if "many" in meant.words and not words:
        note = f" ({len(copies)} more are copies)" if copies else ""
        return _answer(question, f"{len(kept)}{note}", kept)
    if field in ("total", "net", "tax") and words <= fields | _SUMS and not meant.number:
        return _sum(question, [row for row in kept if row.kind in BILLS], field, copies)
    if meant.words & {"which", "list", "show"} and not words:
        return _answer(question, "\n".join(_named(row) for row in kept) or "none", kept)
    return None


def sieve(question: str, rows: list[Row]) -> Sieve:
    """The rows that a question's kinds, parties, numbers and currencies leave."""
    text = f" {question.casefold()} "
    number = ""
    for one in sorted({row.number for row in rows if re.search(r"\d", row.number)}, key=len, reverse=True):
        pattern = rf"(?<![\w/-]){re.escape(one.casefold())}(?![\w/-])"
        if re.search(pattern, text):
            text, number = re.sub(pattern, " ", text), one
            break
    said, parties = plain(text).split(), set[str]()
    taken = set[str]()
    for party in {plain(row.party) for row in rows if row.party}:
        first, *others = party.split()
        if first in said and len(first) > 2:
            parties.add(party)
            taken |= {first} | (set(others) & set(said))
    kinds = set[Kind]()
    for name, kind in _KINDS.items():
        if re.search(rf"\b{name}s?\b", text):
            text, _ = re.subn(rf"\b{name}s?\b", " ", text)
            kinds.add(kind)
    words = set(re.findall(r"\w+", text)) - taken - _ANY
    money = {_CURRENCIES[word] for word in words if word in _CURRENCIES}
    words = {word for word in words if word not in _CURRENCIES}
    left = [
        row
        for row in rows
        if (not kinds or row.kind in kinds)
        and (not parties or plain(row.party) in parties)
        and (not number or row.number == number)
        and (not money or row.currency in money)
    ]
    return Sieve(left, words, number)


def likely(question: str, papers: list[Paper], most: int = 2) -> list[int]:
    """The places of the papers that share the rarest words with a question, the likeliest first."""
    bags = [Counter(word[:6] for word in re.findall(r"\w+", paper.text.casefold())) for paper in papers]
    asked = {word[:6] for word in re.findall(r"\w+", question.casefold()) if word not in _STOP}
    scores = []
    for at, bag in enumerate(bags):
        score = sum(math.log(1 + len(papers) / sum(word in other for other in bags)) for word in asked if word in bag)
        if score:
            scores.append((-score, at))
    return [at for _, at in sorted(scores)[:most]]


def _answer(question: str, answer: str, rows: list[Row]) -> Answered:
    return Answered(question=question, answer=answer, by="rules", sources=[row.file for row in rows])


def _named(row: Row) -> str:
    parts = [row.kind, row.number, f"of {row.party}" if row.party else "", f"{row.total} {row.currency}".strip() if row.total else ""]
    return " ".join(part for part in parts if part) + f" ({row.file})"


def _sum(question: str, rows: list[Row], field: str, copies: list[Row]) -> Answered:
    sums = defaultdict[str, Decimal](Decimal)
    counted = [row for row in rows if getattr(row, field)]
    for row in counted:
        sums[row.currency or "of no known currency"] += Decimal(getattr(row, field))
    notes = [f"without {row.file}, whose {field} was not read" for row in rows if not getattr(row, field)]
    notes += [f"{row.file} is in it though its sums do not add up" for row in counted if any(flag.sort == "sums" for flag in row.flags)]
    notes += [f"{row.file} is a copy and not counted" for row in copies]
    said = " and ".join(f"{value} {currency}" for currency, value in sorted(sums.items())) or "0.00"
    return _answer(question, said + (f" ({'; '.join(notes)})" if notes else ""), counted)


def _by_total(row: Row) -> Decimal | None:
    return Decimal(row.total) if row.total else None


def _by_date(row: Row) -> str | None:
    return row.date or None


def _extreme(question: str, rows: list[Row], best: Callable[..., Row], key: Callable[[Row], Decimal | str | None]) -> Answered | None:
    known = [row for row in rows if key(row) is not None]
    if key is _by_total and len({row.currency for row in known}) > 1:
        return _answer(question, "amounts in different currencies can't be compared; ask for one currency", known)
    if not known:
        return None
    found = best(known, key=key)
    when = f", dated {found.date}" if key is _by_date else ""
    return _answer(question, _named(found) + when, [found])
