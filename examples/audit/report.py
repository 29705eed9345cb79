"""The report, in Markdown."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from audit.answers import Audit, Row
from audit.purposes import PURPOSE_MARGIN, PURPOSES
from audit.risks import needs
from audit.words import clip, listed, size

WORST = 20
NUMBERS = ("Size", "Points", "Packages", "Rules", "Model", "Own words", "Fallback", "Person")
BY = ("rules", "model", "summary", "fallback", "person")


def report(audit: Audit) -> str:
    """The whole report, the same for the same audit."""
    rows = audit.rows
    risky = sorted((row for row in rows if row.points), key=lambda row: (-row.points, -len(row.needed_by), row.sheet.name))
    unsure = sum(not row.described.sure for row in rows)
    people = for_a_person(rows)
    purposes = grouped((row.described.purpose, row.sheet.name) for row in rows)
    parts = [
        f"# Dependency audit of {audit.place}\n\n{len(rows)} packages, looked into on {audit.day}.",
        "## Overview",
        table("What | How much", overview(rows)),
        "## Who gave the answers",
        table("Answer | Rules | Model | Own words | Fallback | Person", provenance(rows)),
        f"The model was unsure of {unsure} purposes (a lead under {PURPOSE_MARGIN} nats a token): they carry a question mark below.",
        f"## Risks: the worst {WORST}",
        table(
            "Package | Points | Why | Needed by",
            [(row.sheet.name, row.points, "; ".join(row.risks), listed(row.needed_by) or "-") for row in risky[:WORST]],
        ),
        f"{len(risky)} packages have points, {len(rows) - len(risky)} have none.",
        "## For a person",
        table("Package | Answer | Why", people) if people else "Nothing: every licence was placed, and every package says what it is.",
        "## May do the same job",
        table("One | Other | Purpose | Words in common", audit.twins) if audit.twins else "No two packages look alike.",
        "## Licences",
        table("Licence | Packages | Which", counted(grouped((row.licence.licence, row.sheet.name) for row in rows))),
        "## Purposes",
        table("Purpose | Packages | Which", counted({name: purposes[name] for name in [*PURPOSES, "unsorted"] if name in purposes})),
        "## Every package",
        table("Package | Version | Licence | Kind | Licence by | Purpose | Size | What it is", map(line, rows)),
    ]
    return "\n\n".join(parts) + "\n"


def overview(rows: list[Row]) -> list[tuple[str, object]]:
    """The figures of the whole environment."""
    sheets = [row.sheet for row in rows]
    native = [sheet for sheet in sheets if sheet.native]
    kinds = Counter(row.licence.kind if row.licence.by != "person" else "for a person" for row in rows)
    return [
        ("packages", len(rows)),
        ("needed by no other package", sum(not row.needed_by for row in rows)),
        ("requirements in force", sum(map(len, needs(sheets).values()))),
        ("on disk", f"{size(sum(sheet.size for sheet in sheets))} in {sum(sheet.files for sheet in sheets)} files"),
        ("with native code", f"{len(native)} ({size(sum(sheet.native_size for sheet in native))})"),
        ("licences", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())),
        ("with a risk of 3 points or more", sum(row.points >= 3 for row in rows)),
    ]


def provenance(rows: list[Row]) -> list[list[object]]:
    """For every kind of answer, how many each source gave."""
    answers = {
        "licence": Counter(row.licence.by for row in rows),
        "purpose": Counter(row.described.by for row in rows),
        "what it is": Counter(row.described.line_by for row in rows),
        "risk": Counter({"rules": len(rows)}),
    }
    return [[what, *(counts[by] for by in BY)] for what, counts in answers.items()]


def for_a_person(rows: list[Row]) -> list[tuple[str, str, str]]:
    """What neither rules nor the model could tell, and where rules found a contradiction."""
    found = [(row.sheet.name, "licence", row.licence.why) for row in rows if row.licence.by == "person"]
    found += [(row.sheet.name, "licence", f"rules say {row.licence.licence}; {row.licence.doubt}") for row in rows if row.licence.doubt]
    return found + [(row.sheet.name, "purpose", "it says nothing about itself") for row in rows if row.described.by == "fallback"]


def line(row: Row) -> list[object]:
    """One package's line."""
    sheet, licence, described = row.sheet, row.licence, row.described
    purpose = f"{described.purpose}{'' if described.sure else '?'} ({described.by})"
    by = f"{licence.by}: {licence.why}"
    return [sheet.name, sheet.version or "?", licence.licence, licence.kind, by, purpose, size(sheet.size), described.line or "-"]


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names by what they share."""
    found = defaultdict[str, list[str]](list)
    for key, name in pairs:
        found[key].append(name)
    return found


def counted(groups: dict[str, list[str]]) -> list[tuple[str, int, str]]:
    """Groups as rows, the biggest first."""
    rows = [(key, len(names), listed(names, 12)) for key, names in groups.items()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; ``head`` has the columns, divided by bars. Packages' own words can't break it, nor link or load anything."""
    columns = [column.strip() for column in head.split("|")]
    lines = [columns, ["---:" if column in NUMBERS else "---" for column in columns]]
    for row in rows:
        lines.append([re.sub(r"([|\\`\[\]])", r"\\\1", clip(str(cell), 200)).replace("<", "&lt;") for cell in row])
    return "\n".join("| " + " | ".join(one) + " |" for one in lines)
