"""The report, in Markdown."""

from collections import Counter
from collections.abc import Iterable

from audit.answers import Audit
from audit.purposes import PURPOSE_MARGIN, PURPOSES
from audit.risks import needs
from audit.words import clip, listed, size


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; ``head`` has the columns, divided by bars. Bars and line ends inside cells are made harmless."""
    columns = [column.strip() for column in head.split("|")]
    lines = [columns, ["---:" if column in ("Size", "Points", "Packages") else "---" for column in columns]]
    lines += [[clip(str(cell), 200).replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(audit: Audit) -> str:
    """The report, in Markdown."""
    rows, total = audit.rows, len(audit.rows)
    sheets = [row.sheet for row in rows]
    kinds = Counter(row.licence.kind if row.licence.by != "person" else "for a person" for row in rows)
    risky = sorted((row for row in rows if row.points), key=lambda row: (-row.points, -len(row.needed_by), row.sheet.name))
    native = [sheet for sheet in sheets if sheet.native]
    people = [(row.sheet.name, "licence", row.licence.why) for row in rows if row.licence.by == "person"]
    people += [
        (row.sheet.name, "licence", f"rules say {row.licence.licence}, but {row.licence.doubt}") for row in rows if row.licence.doubt
    ]
    people += [(row.sheet.name, "purpose", "it says nothing about itself") for row in rows if row.described.by == "fallback"]
    unsure = sum(row.described.by == "model" and row.described.margin < PURPOSE_MARGIN for row in rows)
    answers = [
        ("licence", Counter(row.licence.by for row in rows)),
        ("purpose", Counter(row.described.by for row in rows)),
        ("one line", Counter(row.described.line_by for row in rows)),
        ("risk", Counter({"rules": total})),
    ]
    by = ("rules", "model", "summary", "fallback", "person")
    parts = [
        f"# Dependency audit of {audit.place}\n\n{total} packages, looked into on {audit.day}.",
        "## Overview",
        table(
            "What | Number",
            [
                ("packages", total),
                ("needed by no other package", sum(not row.needed_by for row in rows)),
                ("on disk", f"{size(sum(sheet.size for sheet in sheets))} in {sum(sheet.files for sheet in sheets)} files"),
                ("with native code", f"{len(native)} ({size(sum(sheet.native_size for sheet in native))})"),
                ("requirements in force", sum(map(len, needs(sheets).values()))),
                ("licences", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())),
                ("with a risk of 3 points or more", sum(row.points >= 3 for row in rows)),
            ],
        ),
        "## Who gave the answers",
        table(
            "Answer | Rules | Model | The package's own words | Fallback | A person must",
            [(what, *(n[who] for who in by)) for what, n in answers],
        ),
        f"The model was unsure of {unsure} purposes (a lead under {PURPOSE_MARGIN} nats a token): they carry a question mark below.",
        "## Risks, worst first",
        table(
            "Package | Points | Why | Needed by",
            [(row.sheet.name, row.points, "; ".join(row.risks), listed(row.needed_by) or "nothing") for row in risky[:20]],
        ),
        f"{len(risky)} packages have points, {total - len(risky)} have none.",
        "## For a person",
        table("Package | Answer | Why", people) if people else "Nothing: every licence was placed and every package says what it is.",
        "## May do the same job",
        table("One | Other | Purpose | Words in common", audit.twins) if audit.twins else "No two packages look alike.",
        "## Packages by purpose",
        table(
            "Purpose | Packages | Which",
            [
                (purpose, len(some), listed(some, 30))
                for purpose in [*PURPOSES, "unsorted"]
                if (some := [r.sheet.name for r in rows if r.described.purpose == purpose])
            ],
        ),
        "## Every package",
        table(
            "Package | Version | Licence | Kind | Licence by | Purpose | Size | What it is",
            [
                (
                    row.sheet.name,
                    row.sheet.version or "?",
                    row.licence.licence,
                    row.licence.kind,
                    f"{row.licence.by}: {row.licence.why}",
                    row.described.purpose + ("?" if row.described.margin < PURPOSE_MARGIN else ""),
                    size(row.sheet.size),
                    row.described.line or "-",
                )
                for row in rows
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"
