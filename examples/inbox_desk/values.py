"""Values: amounts, dates and currencies as documents write them. By rules, so that the same words always mean the same."""

import re
from datetime import date
from decimal import Decimal

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_AMOUNT = re.compile(r"\d{1,3}(?:['\u00a0 ]\d{3})+(?:[.,]\d{1,2})?(?!\d)|\d[\d.,]*\d|\d")
_NUMERIC = re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b|\b(\d{1,2})[-/.](\d{1,2})[-/.](\d{4}|\d{2})\b")
_NAMED = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\.?\s+({'|'.join(MONTHS)})[a-z]*\.?,?\s+(\d{{4}})\b", re.I)
_NAMED_FIRST = re.compile(rf"\b({'|'.join(MONTHS)})[a-z]*\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})\b", re.I)
_SIGNS = {"£": "GBP", "€": "EUR", "$": "USD"}
_CODES = ("GBP", "EUR", "USD", "CHF", "SEK", "NOK", "DKK", "PLN", "JPY", "CAD", "AUD")


def amount(text: str) -> Decimal | None:
    """The amount in ``text``, to the cent: a last separator before one or two digits marks decimals, others group thousands."""
    found = _AMOUNT.search(text)
    if found is None:
        return None
    digits = re.sub(r"['\u00a0 ]", "", found[0])
    whole, mark, cents = re.fullmatch(r"([\d.,]*?)(?:([.,])(\d{1,2}))?", digits).groups()  # type: ignore[union-attr]
    value = Decimal(f"{re.sub(r'[.,]', '', whole) or '0'}.{cents if mark else '00'}").quantize(Decimal("0.01"))
    return -value if re.match(r"^\D*[-−]\s*\D?\d", text) else value


def money(value: Decimal | None) -> str:
    """An amount as the table holds it; empty when there is none."""
    return "" if value is None else f"{value:.2f}"


def day(text: str) -> date | None:
    """The date in ``text``; day before month where both could be. ``None`` without one; raises ``ValueError`` for a day that never was."""
    if found := _NUMERIC.search(text):
        year, month, dom = (int(found[at]) for at in ((1, 2, 3) if found[1] else (6, 5, 4)))
        if not found[1] and month > 12 >= dom:
            month, dom = dom, month
        return date(year + 2000 if year < 100 else year, month, dom)
    if found := _NAMED.search(text):
        return date(int(found[3]), MONTHS.index(found[2].lower()) + 1, int(found[1]))
    if found := _NAMED_FIRST.search(text):
        return date(int(found[3]), MONTHS.index(found[1].lower()) + 1, int(found[2]))
    return None


def currencies(text: str) -> set[str]:
    """The currencies that a text names, by sign or code."""
    codes = {code for code in _CODES if re.search(rf"\b{code}\b", text)}
    return codes | {code for sign, code in _SIGNS.items() if sign in text}


def amounts(text: str) -> list[Decimal]:
    """The amounts with cents in ``text``, in their order, each once."""
    found = (amount(one[0]) for one in re.finditer(r"(?<![\d.,/-])\d[\d.,]*[.,]\d\d(?![\d.,]*[\d/-])", text))
    return list(dict.fromkeys(one for one in found if one is not None))
