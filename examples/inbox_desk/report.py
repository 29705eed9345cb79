"""The report, in Markdown: the table, the exceptions, the answers, and who did what."""

import re
from collections import Counter
from collections.abc import Iterable

from inbox_desk.papers import BILLS, Desk, Row

AMOUNTS = ("Net", "Tax", "Total")
UNSURE = 0.25
"""From this share of papers with a value that could not be read, a result is degraded whatever the model is said to be good for."""
_UNREAD = ("source", "place", "missing")


def report(desk: Desk) -> str:
    """The whole report, the same for the same desk."""
    rows = desk.rows
    why = degraded(desk)
    flags = [(row.file, flag.sort, flag.why) for row in rows for flag in row.flags]
    parts = [
        f"# Inbox {desk.folder}",
        f"{len(rows)} files, {sum(not row.flags for row in rows)} of them without an exception. Read by {desk.model}. "
        + (f"This result is **degraded**: {why}." if why else "This result is not degraded."),
        "## Documents",
        table("File | Kind | Issued by | Number | Date | Net | Tax | Total | Currency | Exceptions", map(line, rows)),
        "## Exceptions",
        table("File | Sort | Why", flags) if flags else "None.",
        "## Answers",
        table("Question | Answer | By | Sources", [(one.question, one.answer, one.by, ", ".join(one.sources)) for one in desk.answers])
        if desk.answers
        else "No question was asked.",
        "## Who did it",
        table("Answer | Rules | Model | Person", provenance(desk)),
    ]
    return "\n\n".join(parts) + "\n"


def degraded(desk: Desk) -> str:
    """Why the result can't be relied on as a whole; empty when it can, but for its exceptions."""
    read = [row for row in desk.rows if row.readings]
    bad = [row for row in read if any(flag.sort in _UNREAD for flag in row.flags)]
    if not desk.fit:
        return f"{desk.model} is not known to read values well, and {len(bad)} of {len(read)} papers miss some"
    if read and len(bad) >= UNSURE * len(read):
        return f"in {len(bad)} of {len(read)} papers a value could not be read"
    return ""


def provenance(desk: Desk) -> list[list[object]]:
    """For every kind of answer, how many each gave."""
    kinds = Counter(row.kind_by for row in desk.rows)
    fields = [name for row in desk.rows for name in ("party", "number", "date", "net", "tax", "total") if getattr(row, name)]
    answers = Counter(one.by for one in desk.answers)
    checked = sum(row.readings > 0 for row in desk.rows)
    again = sum(row.readings > 1 for row in desk.rows)
    return [
        ["kinds", kinds["rules"], kinds["model"], 0],
        ["values, as they stand in the source", 0, len(fields), 0],
        ["currencies", sum(bool(row.currency) for row in desk.rows), 0, 0],
        [f"checks of papers ({again} read a second time)", checked, 0, 0],
        ["exceptions", sum(len(row.flags) for row in desk.rows), 0, 0],
        ["questions", answers["rules"], answers["model"], answers["person"]],
    ]


def line(row: Row) -> list[object]:
    """One file's line."""
    sorts = ", ".join(dict.fromkeys(flag.sort for flag in row.flags)) or "-"
    kind = row.kind if row.kind == "unreadable" else f"{row.kind} ({row.kind_by})"
    cells = [row.party, row.number, row.date, row.net, row.tax, row.total, row.currency]
    return [row.file, kind, *(cell or ("?" if row.kind in BILLS else "-") for cell in cells), sorts]


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; documents' own words can't break it, nor link or load anything."""
    columns = [column.strip() for column in head.split("|")]
    lines = [columns, ["---:" if column in AMOUNTS else "---" for column in columns]]
    for row in rows:
        cells = [re.sub(r"([|\\`\[\]*_])", r"\\\1", " ".join(str(cell).replace("\n", "; ").split())) for cell in row]
        lines.append([cell.replace("<", "&lt;") for cell in cells])
    return "\n".join("| " + " | ".join(one) + " |" for one in lines)
