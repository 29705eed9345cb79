"""Checking: what is wrong with a reading, by rules, as tools of the checker; and the rule that says which check comes next.

A paper is read, checked, and where something is wrong read once more by a reader that is told so. What is wrong then is an
exception: a value that does not stand in the source is left out, one that stands there and can't be right is shown and flagged.
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations
from typing import Any

from agents import call, tool
from agents.checks import grounded
from agents.strategies import Observation
from inbox_desk.papers import BILLS, Case, Flag, Kind, Paper, Row
from inbox_desk.values import amount, amounts, currencies, day, money
from protocols.chat import ToolCall
from protocols.plan import ref

Fields = dict[str, str]
AMOUNTS = ("net", "tax", "total")
NEEDED: dict[Kind, tuple[str, ...]] = {
    "invoice": ("party", "number", "date", "total"),
    "receipt": ("party", "date", "total"),
    "order": ("party", "number", "date", "total"),
    "delivery note": ("party", "number", "date"),
    "letter": ("party", "date"),
    "contract": ("party", "date"),
    "memo": ("party", "date"),
    "other": (),
}
"""What a paper of each kind must say."""
CENT = Decimal("0.01")
_WITHOUT = r"\b(?:ex|excl|excluding|before|without|net of|plus|for)\b\.?\s*(?:vat|tax|gst)\b"
_LABELS = {
    "net": re.compile(rf"\bnet\b|\bnetto\b|\bsub-?total|\bgoods (?:total|value)|{_WITHOUT}", re.I),
    "tax": re.compile(r"\b(?:vat|tax|gst|mwst|ust|tva|moms|btw)\b", re.I),
}
"""The words beside which an amount of these sorts stands."""
_NUMBER = re.compile(r"(?:[A-Za-z]{1,4}\.?\s)?[\w/.#-]*\d[\w/.#-]*")
_RECIPIENT = r"\b(?:to|customer|client|consignee|buyer|bill(?:ed)? to|deliver(?:ed)? to)\b[\s:.]*"


@tool
def values_in_source(text: str, fields: Fields) -> list[str]:
    """The values that do not stand in the document."""
    found = [why.removesuffix("; copy what it says") for why in grounded(text, fields)]
    words, lost = " ".join(text.split()).casefold(), {why.partition(":")[0] for why in found}
    for name, value in fields.items():
        whole = rf"(?<![\w.,]){re.escape(' '.join(value.split()).casefold())}(?!\w|[.,]\d)"
        if value.strip() and name not in lost and not re.search(whole, words):
            found.append(f"{name}: {value!r} is only a part of what stands in the source")
    return found


@tool
def values_in_place(text: str, fields: Fields) -> list[str]:
    """The values that stand where none of their sort does: a recipient as the party, an address as the number, a sum as the tax."""
    found = []
    party, number = fields.get("party", "").strip(), fields.get("number", "").strip()
    if party:
        at = re.escape(party)
        if re.search(_RECIPIENT + at, text, re.I) and not re.search(at, re.sub(_RECIPIENT + at, "", text, flags=re.I), re.I):
            found.append(f"party: {party!r} is the one it is sent to, not the one who issued it")
    if number and not _NUMBER.fullmatch(number):
        found.append(f"number: {number!r} is not the number of a document")
    for name in ("net", "tax"):
        if (value := amount(fields.get(name, ""))) is not None and value not in _beside(name, text):
            found.append(f"{name}: {fields[name]!r} does not stand beside a word for it")
    return found


@tool
def values_needed(kind: Kind, fields: Fields) -> list[str]:
    """The values that a document of this kind must say and that were not read."""
    empty = [f"{name}: nothing was read" for name in NEEDED[kind] if not fields.get(name, "").strip()]
    no_amount = [name for name in AMOUNTS if fields.get(name, "").strip() and amount(fields[name]) is None]
    return empty + [f"{name}: {fields[name]!r} is no amount" for name in no_amount]


@tool
def sums_add_up(text: str, fields: Fields) -> list[str]:
    """Whether net and tax make the total; amounts that are not there are not judged, but no part is more than the whole."""
    net, tax, total = (amount(fields.get(name, "")) for name in AMOUNTS)
    if total is None:
        return []
    if net is not None and tax is not None:
        wrong = abs(net + tax - total) > CENT
        return [f"total: net {net} and tax {tax} make {net + tax}, not {total}{_right(amounts(text))}"] if wrong else []
    return [f"{name}: {part} is more than the total {total}" for name, part in (("net", net), ("tax", tax)) if part and part > total]


def _right(known: list[Decimal]) -> str:
    """Amounts of the document that do make a sum, if only one set does: a hint for the second reading."""
    sets = {(one, two) for one, two in combinations(sorted(known, reverse=True), 2) if two > 0 and one != two and one + two in known}
    if len(sets) != 1:
        return ""
    one, two = sets.pop()
    return f"; of its amounts {one} and {two} make {one + two}"


def _beside(name: str, text: str) -> list[Decimal]:
    """The amounts on lines that have a word for ``name``."""
    lines = text.splitlines() if name == "net" else [re.sub(_WITHOUT + r".*", "", line, flags=re.I) for line in text.splitlines()]
    return [value for line in lines if _LABELS[name].search(line) for value in amounts(line)]


@tool
def date_is_possible(fields: Fields) -> list[str]:
    """Whether the date is one of the calendar."""
    said = fields.get("date", "")
    try:
        return [f"date: {said!r} is no date"] if said.strip() and day(said) is None else []
    except ValueError:
        return [f"date: {said!r} never was: there is no such day"]


@tool
def booked(file: str, kind: Kind, kind_by: str, text: str, readings: list[Fields], wrong: list[dict[str, list[str]]]) -> Row:
    """The row of a document: the reading with the least wrong, its values as numbers and dates, and the exceptions."""
    row = Row(file=file, kind=kind, kind_by=kind_by, readings=len(readings))
    if not readings:
        return row
    best = min(range(len(readings)), key=lambda at: sum(map(len, wrong[at].values())))
    fields, flags = readings[best], [Flag(sort=sort, why=why) for sort, whys in wrong[best].items() for why in whys]  # type: ignore[arg-type]
    lost = {flag.why.partition(":")[0] for flag in flags if flag.sort in ("source", "place")}
    kept = {name: " ".join(value.split()) for name, value in fields.items() if name not in lost}
    impossible = any(flag.sort == "date" for flag in flags)
    when = None if impossible else day(kept.get("date", ""))
    update = {name: money(amount(kept.get(name, ""))) for name in AMOUNTS}
    update |= {"party": kept.get("party", ""), "number": kept.get("number", ""), "date": when.isoformat() if when else ""}
    if kind in BILLS:
        named = currencies(text)
        update["currency"] = named.pop() if len(named) == 1 else ""
        if not update["currency"]:
            flags.append(Flag(sort="currency", why=f"it names {' and '.join(sorted(named)) or 'no currency'}"))
    return row.model_copy(update={**update, "flags": flags})


CHECKS = ("source", "place", "missing", "sums", "date")
ROUND = 1 + len(CHECKS)
TOOLS = (values_in_source, values_in_place, values_needed, sums_add_up, date_is_possible, booked)


def next_checks(case: Case, seen: Sequence[Observation]) -> list[ToolCall]:
    """The steps of a checker that remain: read, check, perhaps once more, book."""
    paper, routed = case.paper, next((one for one in case.routed if one.file == case.paper.file), None)
    if len(seen) and seen[-1].step.name == "booked":  # type: ignore[union-attr]
        return []
    results = [json.loads(one.result) for one in seen]
    kind: Kind = routed.kind if routed else "other"
    base = {"file": paper.file, "kind": kind, "kind_by": routed.by if routed else "rules", "text": paper.text}
    if kind == "other":
        return [call("booked", **base, readings=[], wrong=[])]
    if not seen:
        return [_read(case, kind)]
    rounds = [results[at : at + ROUND] for at in range(0, len(results), ROUND)]
    readings = [_fields(paper, one[0]) for one in rounds]
    if len(rounds) > 1:
        readings[1] = _mended(readings[0], rounds[0][1:], readings[1])
    if len(rounds[-1]) < ROUND:
        return _checks(paper, kind, readings[-1])[len(rounds[-1]) - 1 :]
    found = [why for whys in rounds[-1][1:] for why in whys]
    if found and len(rounds) == 1:
        proven = {why.partition(":")[0] for check in ("source", "place") for why in rounds[0][1 + CHECKS.index(check)]}
        struck = [readings[0][name] for name in sorted(proven & {"party", "number", "date"}) if readings[0][name].strip()]
        said = {name: value for name, value in readings[0].items() if value not in struck}
        return [_read(case, kind, said=json.dumps(said, ensure_ascii=False), wrong=found, struck=struck)]
    wrong = [dict(zip(CHECKS, one[1:], strict=True)) for one in rounds]
    return [call("booked", **base, readings=readings, wrong=wrong)]


def _read(case: Case, kind: Kind, **again: Any) -> ToolCall:
    reader = "bill-reader" if kind in BILLS else "sheet-reader"
    return call("delegate", tasks=[{"role": reader, "input": {"paper": ref(case.place), **again}}])


def _checks(paper: Paper, kind: Kind, fields: Fields) -> list[ToolCall]:
    return [
        call("values_in_source", text=paper.text, fields=fields),
        call("values_in_place", text=paper.text, fields=fields),
        call("values_needed", kind=kind, fields=fields),
        call("sums_add_up", text=paper.text, fields=fields),
        call("date_is_possible", fields=fields),
    ]


def _fields(paper: Paper, read: list[dict[str, Any]]) -> Fields:
    """What a reader gave, without the net or tax of a paper that names none; nothing when it failed."""
    fields = dict(read[0].get("output") or {})
    return fields | {name: "" for name in _LABELS if name in fields and not _beside(name, paper.text)}


def _mended(first: Fields, wrong: list[list[str]], second: Fields) -> Fields:
    """The first reading with what was wrong in it from the second; of a wrong sum all amounts are."""
    names = {why.partition(":")[0] for whys in wrong for why in whys}
    if wrong[CHECKS.index("sums")]:
        names.update(AMOUNTS)
    return {name: second.get(name, "") if name in names or name not in first else first[name] for name in {**first, **second}}
