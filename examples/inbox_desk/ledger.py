"""The ledger: all rows together. Duplicates, and what opening a file found, become exceptions here."""

import re

from inbox_desk.papers import BILLS, Flag, Paper, Row


def ledger(files: list[str], papers: list[Paper], rows: list[Row]) -> list[Row]:
    """One row for every file of the plan, whatever became of its tasks."""
    opened, read = {paper.file: paper for paper in papers}, {row.file: row for row in rows}
    found = []
    for file in files:
        paper = opened.get(file) or Paper(file=file, problem="it could not be opened")
        row = read.get(file)
        if paper.problem or row is None:
            row = Row(file=file, flags=[Flag(sort="unreadable", why=paper.problem or "its check did not end")])
        told = [Flag(sort="instruction", why=f"it speaks to a machine, which no model was shown: {one!r}") for one in paper.withheld]
        found.append(row.model_copy(update={"flags": [*row.flags, *told]}))
    return duplicates(found, opened)


def duplicates(rows: list[Row], papers: dict[str, Paper]) -> list[Row]:
    """The rows, with each copy of a bill marked. Of two that are the same, the copy is the one that says so, else the later by name."""
    bills = [row for row in rows if row.kind in BILLS]
    bills.sort(key=lambda row: (says_copy(papers.get(row.file)), row.file))
    copies: dict[str, str] = {}
    for at, row in enumerate(bills):
        first = next((one for one in bills[:at] if one.file not in copies and same(one, row)), None)
        if first is not None:
            copies[row.file] = first.file
    found = []
    for row in rows:
        if row.file in copies:
            flag = Flag(sort="duplicate", why=f"it is the same {row.kind} as {copies[row.file]}")
            row = row.model_copy(update={"copy_of": copies[row.file], "flags": [*row.flags, flag]})
        found.append(row)
    return found


def same(one: Row, other: Row) -> bool:
    """Whether two bills are the same: kind and party, and the number, or where one has none the date and the total."""
    a, b = plain(one.party), plain(other.party)
    if one.kind != other.kind or not a or not b or not (f"{a} ".startswith(f"{b} ") or f"{b} ".startswith(f"{a} ")):
        return False
    if one.number and other.number:
        return plain(one.number) == plain(other.number)
    return bool(one.date and one.total) and (one.date, one.total) == (other.date, other.total)


def says_copy(paper: Paper | None) -> bool:
    """Whether a paper calls itself a copy."""
    return paper is not None and re.search(r"\b(copy|duplicate|sent again|resent)\b", paper.text, re.I) is not None


def plain(text: str) -> str:
    """A name or number without case, signs and legal forms."""
    words = re.findall(r"\w+", text.casefold())
    return " ".join(word for word in words if word not in ("ltd", "limited", "gmbh", "inc", "llc", "plc", "co", "the", "and"))
