"""Risks by rules, over the whole tree of dependencies."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from audit.answers import Audit, Described, Edge, Everything, Licence, Row, Sheet
from audit.purposes import telling
from audit.words import listed, size

VAGUE = frozenset({"based", "bindings", "client", "common", "data", "extensions", "functions", "interface", "system", "type", "types"})
"""Words that packages share without doing the same job."""


def needs(sheets: Iterable[Sheet]) -> dict[str, list[Edge]]:
    """The requirements that are in force: those always needed, and those of extras that some package in force asks for."""
    sheets, asked = list(sheets), defaultdict[str, set[str]](set)
    while True:
        before = sum(map(len, asked.values()))
        force = {s.name: [edge for edge in s.requires if not edge.under or asked[s.name] & set(edge.under)] for s in sheets}
        for edge in (edge for some in force.values() for edge in some):
            asked[edge.name] |= set(edge.extras)
        if sum(map(len, asked.values())) == before:
            return force


def above(name: str, parents: dict[str, set[str]]) -> set[str]:
    """Everything that needs ``name``, directly or through others."""
    found: set[str] = set()
    queue = [name]
    while queue:
        new = parents[queue.pop()] - found
        found |= new
        queue += new
    return found - {name}


def broken(edge: Edge, have: dict[str, str]) -> str:
    """Why a requirement in force is not met; empty when it is, or when nobody can tell."""
    if edge.name not in have:
        return f"needs {edge.name}{edge.spec}, which is not installed"
    try:
        met = SpecifierSet(edge.spec).contains(Version(have[edge.name]), prereleases=True)
    except InvalidVersion:
        return ""
    return "" if met else f"needs {edge.name}{edge.spec}, but {have[edge.name]} is installed"


def judge(
    sheet: Sheet, licence: Licence, edges: list[Edge], over: dict[str, Licence], have: dict[str, str], day: str
) -> list[tuple[int, str]]:
    """The risks of one package, each with its points. ``over`` are the licences of the packages that need it."""
    found = [(5, why) for edge in edges if (why := broken(edge, have))]
    free = sorted(name for name, other in over.items() if other.kind == "permissive")
    among = f", in the tree of permissive {listed(free)}" if free else ""
    if licence.by == "person":
        found.append((4, "nobody knows its licence yet"))
    elif licence.kind in ("strong copyleft", "proprietary"):
        found.append((5 if free else 3, f"{licence.kind} ({licence.licence}){among}"))
    elif licence.kind == "weak copyleft":
        found.append((2 if free else 1, f"{licence.kind} ({licence.licence}){among}"))
    if licence.doubt:
        found.append((2, f"its licence is contradicted: {licence.doubt}"))
    age = int(day[:4]) - sheet.year if sheet.year else 0
    if age >= 3:
        found.append((min(age - 1, 4), f"no sign of a release after {sheet.year} ({sheet.sign})"))
    if sheet.native:
        found.append(
            (2 if sheet.native_size > 30e6 else 1, f"native code: {sheet.native} file{'s' * (sheet.native > 1)}, {size(sheet.native_size)}")
        )
    if loose := sorted({edge.name for edge in edges if not edge.spec}):
        found.append((1, f"takes any version of {listed(loose)}"))
    found += [(2, wrong) for wrong in sheet.wrong]
    if sheet.editable:
        found.append((1, "editable install: what runs is not what was released"))
    if re.search(r"\d(a|b|rc|\.dev)\d", sheet.version):
        found.append((1, f"{sheet.version} is a pre-release"))
    return sorted(found, key=lambda risk: (-risk[0], risk[1]))


def alike(rows: list[Row], parents: dict[str, set[str]]) -> list[list[str]]:
    """Pairs that may do the same job: surely one purpose, a rare word of their summaries in common, and neither needs the other."""
    words = {row.sheet.name: {word.lower() for word in telling(row.sheet.summary) if len(word) > 3} - VAGUE for row in rows}
    common = Counter(word for some in words.values() for word in some)
    sure = [row for row in rows if row.described.by != "fallback" and row.described.sure]
    pairs = []
    for one, two in combinations(sure, 2):
        a, b = one.sheet.name, two.sheet.name
        if one.described.purpose != two.described.purpose or a[:4] == b[:4]:
            continue
        shared = sorted(word for word in words[a] & words[b] if common[word] <= 4)
        if shared and a not in above(b, parents) and b not in above(a, parents):
            pairs.append([a, b, one.described.purpose, ", ".join(shared)])
    return pairs


def weigh(all: Everything) -> Audit:
    """One row for every name of the plan, whatever became of its tasks, ranked by risk."""
    sheets = {sheet.name: sheet for sheet in all.sheets}
    licences = {licence.name: licence for licence in all.licences}
    described = {one.name: one for batch in all.described for one in batch}
    force, parents = needs(sheets.values()), defaultdict[str, set[str]](set)
    for name, edges in force.items():
        for edge in edges:
            parents[edge.name].add(name)
    rows = []
    for name in all.names:
        sheet = sheets.get(name) or Sheet(name=name, wrong=["its fact sheet could not be made"])
        licence = licences.get(name) or Licence(name=name)
        over = {other: licences[other] for other in above(name, parents) if other in licences}
        risks = judge(sheet, licence, force.get(name, []), over, all.installed, all.day)
        rows.append(
            Row(
                sheet=sheet,
                licence=licence,
                described=described.get(name)
                or Described(name=name, line=sheet.summary, line_by="summary" if sheet.summary else "fallback"),
                needed_by=sorted(parents[name] - {name}),
                points=sum(points for points, _ in risks),
                risks=[why for _, why in risks],
            )
        )
    twins = alike(rows, parents)
    for row in rows:
        if others := sorted({b if a == row.sheet.name else a for a, b, *_ in twins if row.sheet.name in (a, b)}):
            row.risks.append(f"may do the same job as {listed(others)}")
            row.points += 1
    return Audit(day=all.day, place=all.place, rows=rows, twins=twins)
