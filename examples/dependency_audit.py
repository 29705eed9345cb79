"""Audits the packages installed in this very environment, and writes a Markdown report worth keeping.

    callboard run examples/dependency_audit.py:team > audit.md
    callboard run examples/dependency_audit.py:team --goal "google-* requests"     # only these packages, by name pattern

Everything is read from disk: metadata, licence files, descriptions, dependency edges, native libraries. Rules answer first; the
model sorts packages into purposes by a scored choice, and is asked for a licence only where no rule can tell; what neither can
tell goes on a list for a person. Every answer in the report says who gave it.
"""

import re
import site
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date
from fnmatch import fnmatch
from importlib.metadata import Distribution
from itertools import combinations
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel

from agents import Context, role
from orchestrator import Team, only
from protocols.budget import Limits
from protocols.plan import Plan, Task, ref

# --- what the roles hand to each other ---------------------------------------------------------------------------------


class Found(BaseModel):
    """An installed package: its canonical name, the folder of its metadata, its version, and the day of the audit."""

    name: str
    folder: str
    version: str
    day: str


class Edge(BaseModel):
    """A requirement that applies on this machine; ``under`` are the extras that ask for it, none when it is always needed."""

    name: str
    spec: str = ""
    extras: list[str] = []
    under: list[str] = []


class LicenceFile(BaseModel):
    """A licence file: the licences that its phrases give away, its first words, and whether it covers the package itself."""

    path: str
    ids: list[str]
    words: str
    own: bool


class Sheet(BaseModel):
    """The facts of one package as they stand on disk; sizes are in bytes, ``year`` is that of the newest sign of life."""

    name: str
    version: str = ""
    summary: str = ""
    words: str = ""
    expression: str = ""
    field: str = ""
    classifiers: list[str] = []
    licence_files: list[LicenceFile] = []
    requires: list[Edge] = []
    files: int = 0
    size: int = 0
    native: int = 0
    native_size: int = 0
    commands: list[str] = []
    year: int | None = None
    sign: str = ""
    editable: bool = False
    wrong: list[str] = []


class Licence(BaseModel):
    """A package's licence, its kind, and who said so on what evidence; a person's may carry the model's guess."""

    name: str
    licence: str = "?"
    kind: str = "unknown"
    by: str = "person"
    why: str = "no role answered"
    doubt: str = ""


class Described(BaseModel):
    """What a package is for, how far that answer led (nats a token), and one line about it."""

    name: str
    purpose: str = "unsorted"
    margin: float = 0.0
    by: str = "fallback"
    line: str = ""
    line_by: str = "fallback"


class Batch(BaseModel):
    sheets: list[Sheet]


class Everything(BaseModel):
    """All answers about the packages in ``names``; ``installed`` has the version of every package of the environment."""

    day: str
    place: str
    names: list[str]
    installed: dict[str, str]
    sheets: list[Sheet]
    licences: list[Licence]
    described: list[list[Described]]


class Row(BaseModel):
    """Everything about one package: exactly one row each."""

    sheet: Sheet
    licence: Licence
    described: Described
    needed_by: list[str]
    points: int
    risks: list[str]


class Audit(BaseModel):
    day: str
    place: str
    rows: list[Row]
    twins: list[list[str]]


# --- inventory: the facts of one package, read from disk ------------------------------------------------------------------

LICENCE_NAME = re.compile(r"licen[cs]e|copying|unlicense", re.I)
NATIVE_NAME = re.compile(r"\.(so|pyd|dll|dylib)(\.\d+)*$")
PROGRAM_HEADS = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
METADATA_YEARS = {"2.2": 2020, "2.3": 2022, "2.4": 2024, "2.5": 2025}
"""The year in which each version of the metadata standard came up (PEPs 643, 685, 639, 794)."""


def installed(day: str = "") -> dict[str, Found]:
    """Every package in this environment's own folders, by canonical name; the first folder on the path wins."""
    folders = [*site.getsitepackages(), site.getusersitepackages()] if site.ENABLE_USER_SITE else site.getsitepackages()
    found: dict[str, Found] = {}
    for place in dict.fromkeys(Path(folder).resolve() for folder in folders):
        for folder in sorted([*place.glob("*.dist-info"), *place.glob("*.egg-info")]):
            if folder.name.startswith("~"):
                continue  # what pip leaves of a broken uninstall is no package
            header = metadata(Distribution.at(folder))
            raw = header.get("Name", [""])[0] or folder.name.rsplit(".", 1)[0].split("-")[0]
            name = re.sub(r"[^a-z0-9.-]+", "-", canonicalize_name(raw)).strip("-.") or "unnamed"
            version = header.get("Version", [""])[0]
            found.setdefault(name, Found(name=name, folder=str(folder), version=version, day=day))
    return dict(sorted(found.items()))


def metadata(dist: Distribution) -> dict[str, list[str]]:
    """The metadata's headers and its body (under ``""``); empty when the file is missing or unreadable."""
    try:
        message: Any = dist.metadata
    except Exception:  # missing, a folder, or bytes that are no text: each Python raises something else
        return {}
    headers: dict[str, list[str]] = defaultdict(list)
    for key, value in message.items() if message is not None else ():
        headers[key].append("" if value == "UNKNOWN" else str(value).strip())
    if message is not None:
        headers[""] = headers.get("Description") or [str(message.get_payload() or "")]
    return headers


@role(name="inventory")
def inventory(found: Found) -> Sheet:
    """The fact sheet of one package. What can't be read is said in ``wrong``; nothing raises."""
    dist = Distribution.at(Path(found.folder))
    headers, wrong = metadata(dist), []
    one = {key.lower(): values[0] for key, values in headers.items() if values}
    if "name" not in one:
        wrong.append("its metadata is missing or names no package")
    requires = []
    for line in headers.get("Requires-Dist", []):
        try:
            requires += edges(Requirement(line), headers.get("Provides-Extra", []))
        except InvalidRequirement:
            wrong.append(f"a requirement can't be read: {clip(line, 60)}")
    try:
        files = [Path(str(file.locate())) for file in dist.files or []]
        commands = sorted({point.name for point in dist.entry_points if point.group == "console_scripts"})
    except Exception:  # a broken RECORD or entry_points.txt raises whatever its reader met
        wrong.append("its list of files or commands can't be read")
        files, commands = [], []
    sizes = {path: path.stat().st_size for path in dict.fromkeys(files) if path.is_file()}
    if files and len(sizes) < len(set(files)) * 0.9:
        wrong.append(f"{len(set(files)) - len(sizes)} of its {len(set(files))} files are missing")
    native = [size for path, size in sizes.items() if is_native(path)]
    year, sign = newest_sign(headers, dist.read_text("WHEEL") or "", max((path.stat().st_mtime for path in sizes), default=0.0))
    return Sheet(
        name=found.name,
        version=one.get("version", ""),
        summary=clip(one.get("summary", ""), 160),
        words=" ".join(plain(one.get("", "")[:6000]).split()[:40]),
        expression=clip(one.get("license-expression", ""), 120),
        field=clip(one.get("license", ""), 600),
        classifiers=[c.split("::")[-1].strip() for c in headers.get("Classifier", []) if c.startswith("License ::")],
        licence_files=licence_files(Path(found.folder), files),
        requires=requires,
        files=len(sizes),
        size=sum(sizes.values()),
        native=len(native),
        native_size=sum(native),
        commands=commands[:5],
        year=year,
        sign=sign,
        editable='"editable": true' in (dist.read_text("direct_url.json") or ""),
        wrong=wrong,
    )


def edges(requirement: Requirement, extras: list[str]) -> list[Edge]:
    """The requirement as an edge, if it applies on this machine at all."""
    marker, under = requirement.marker, []
    if marker is not None and not marker.evaluate({"extra": ""}):
        under = sorted({canonicalize_name(extra) for extra in extras if marker.evaluate({"extra": extra})})
        if not under:
            return []
    wanted = sorted(canonicalize_name(extra) for extra in requirement.extras)
    return [Edge(name=canonicalize_name(requirement.name), spec=str(requirement.specifier), extras=wanted, under=under)]


def is_native(path: Path) -> bool:
    """Whether a file is compiled code: a library by its name, or a program by its first bytes."""
    if NATIVE_NAME.search(path.name):
        return True
    if path.parent.name not in ("bin", "Scripts") or path.suffix == ".py":
        return False
    with path.open("rb") as file:
        return file.read(4).startswith(PROGRAM_HEADS)


def newest_sign(headers: dict[str, list[str]], wheel: str, touched: float) -> tuple[int | None, str]:
    """The newest year in which this release must have been alive, and what says so.

    Installers write files anew, so a file's date only bounds the age from above; it counts when nothing else speaks.
    """
    signs = []
    minors = [int(m[1]) for c in headers.get("Classifier", []) if (m := re.search(r":: Python :: 3\.(\d+)$", c))]
    if minors:
        signs.append((max(2011 + max(minors), 2016), f"the newest Python it names is 3.{max(minors)}"))
    standard = headers.get("Metadata-Version", [""])[0]
    if standard in METADATA_YEARS:
        signs.append((METADATA_YEARS[standard], f"metadata {standard}"))
    if "Generator: setuptools (" in wheel:  # setuptools signs wheels itself since version 70.1
        signs.append((2024, "a wheel made by setuptools 70 or later"))
    if calendar := re.match(r"(20\d\d)\.", headers.get("Version", [""])[0]):
        signs.append((int(calendar[1]), "its version is a date"))
    if not signs and touched > 631_152_000:  # 1990: archives that carry no dates say 1980
        signs.append((date.fromtimestamp(touched).year, "its newest file"))
    return max(signs) if signs else (None, "")


def licence_files(folder: Path, files: list[Path]) -> list[LicenceFile]:
    """The licence files next to the metadata, the package's own ones first; vendored parts keep theirs in subfolders."""
    if folder.is_dir():
        files = [*files, *(path for path in folder.rglob("*") if path.is_file())]
    found = []
    for path in dict.fromkeys(files):
        if not LICENCE_NAME.search(path.name) or path.suffix in (".py", ".pyc") or folder.name not in path.parts:
            continue
        try:
            with path.open("rb") as file:
                text = file.read(65_536).decode(errors="replace")
        except OSError:
            continue
        inside = path.parts[path.parts.index(folder.name) + 1 :]
        ids = licences_in(text)
        words = "" if ids else " ".join(text.split()[:40])
        found.append(LicenceFile(path="/".join(inside), ids=ids, words=clip(words, 300), own=len(inside) <= 2))
    return sorted(found, key=lambda file: (not file.own, file.path))[:8]


def plain(text: str) -> str:
    """Prose without the markup, badges, links and headings of Markdown, HTML and reStructuredText."""
    text = re.sub(r"```.*?```|<!--.*?-->|<[^>]*>|!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])?|\|[^|\n]*\|", " ", text, flags=re.S)
    text = re.sub(r"\[([^\]\n]*)\](\([^)\s]*\)|\[[^\]\n]*\])?", r"\1", text)
    text = re.sub(r"`([^`<]*)(<[^>]*>)?`__?|`+([^`]*)`+", r"\1\3", text)
    kept = []
    for line in text.splitlines():
        line = re.sub(r"https?://\S+", "", line).strip()
        if len(line.split()) < 4 or line.startswith(("..", ":", "#", ">", "$", "=", "-", "*", "|", "[")):
            continue
        kept.append(line)
    return " ".join(kept)


def clip(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


# --- licence reader: rules first, then the model, then a person -----------------------------------------------------------

PHRASES: list[tuple[str, str, str]] = [  # the licence, what its text must say, what it must not
    ("MPL-2.0", r"mozilla public license,? (version|v\.) ?2\.0", ""),
    ("Apache-2.0", r"apache license,? version 2\.0", ""),
    ("MIT", r"permission is hereby granted, free of charge, to any person .*permission notice shall be included", ""),
    ("MIT-0", r"permission is hereby granted, free of charge, to any person ", r"permission notice shall be included"),
    ("BSD-3-Clause", r"redistribution and use in source and binary forms.*(neither the names? |may not be used to endorse)", ""),
    ("BSD-2-Clause", r"redistribution and use in source and binary forms", r"neither the names? |may not be used to endorse"),
    ("ISC", r"permission to use, copy, modify, and(/or)? distribute this software for any purpose", ""),
    ("HPND", r"permission to use, copy, modify, and distribute this software and its documentation", ""),
    ("PSF-2.0", r"python software foundation license version 2", ""),
    ("Zlib", r"altered source versions must be plainly marked", ""),
    ("BSL-1.0", r"boost software license - version 1\.0", ""),
    ("EPL-2.0", r"eclipse public license - v ?2\.0", ""),
    ("CC0-1.0", r"cc0 1\.0 universal", ""),
    ("Unlicense", r"this is free and unencumbered software released into the public domain", ""),
]
GNU_TITLE = re.compile(r"gnu (affero |lesser |library )?general public licen[cs]e.{0,90}?version (\d)(\.\d)?")
NAMES: list[tuple[str, str]] = [  # what a short name of a licence contains, and the licence it means
    (r"\bagpl|affero", "AGPL"),
    (r"\blgpl|lesser general|library general|library or lesser", "LGPL"),
    (r"\bgpl(?!.?compatible)|gnu general", "GPL"),
    (r"\bmpl|mozilla", "MPL-2.0"),
    (r"\bepl|eclipse public", "EPL-2.0"),
    (r"apache|\basl\b", "Apache-2.0"),
    (r"bsd.{0,9}3|3.{0,9}bsd|(new|modified) bsd", "BSD-3-Clause"),
    (r"bsd.{0,9}2|2.{0,9}bsd|simplified bsd", "BSD-2-Clause"),
    (r"\b0bsd", "0BSD"),
    (r"\bbsd", "BSD"),
    (r"\bmit.0\b|mit no attribution", "MIT-0"),
    (r"\bmit\b(?!.0\b)|\bexpat\b", "MIT"),
    (r"\bisc[l]?\b", "ISC"),
    (r"\bpsf|python software foundation", "PSF-2.0"),
    (r"unlicense", "Unlicense"),
    (r"cc0", "CC0-1.0"),
    (r"zlib", "Zlib"),
    (r"boost|\bbsl-1", "BSL-1.0"),
    (r"\bhpnd", "HPND"),
    (r"public domain", "LicenseRef-Public-Domain"),
    (r"proprietary|commercial|all rights reserved|\beula\b|end.user", "LicenseRef-Proprietary"),
]
KINDS = {
    "permissive": "a permissive licence that lets anyone use, copy, modify and sell the software if the notice is kept",
    "weak copyleft": "a weak copyleft licence: changes to these files or this library must be shared under the same licence",
    "strong copyleft": "a strong copyleft licence: the whole program that includes it must be published under the same licence",
    "proprietary": "a proprietary commercial agreement: all rights reserved, no copying, a paid subscription or permission is needed",
}
KIND_IDS = [  # every kind from the mildest on, and how the identifiers of its licences begin
    r"0?BSD|MIT|Apache|ISC|PSF|Python|Zlib|BSL|Unlicense|CC0|HPND|X11|NCSA|CNRI|PostgreSQL|CC-BY-\d|WTFPL|LicenseRef-Public",
    r"LGPL|MPL|EPL|CDDL|CPL|Artistic",
    r"A?GPL|OSL|EUPL|SSPL|CC-BY-SA",
    r"LicenseRef-Proprietary|BUSL|Elastic|LicenseRef-NVIDIA",
]
LICENCE_MARGIN = 0.05
"""Nats a token by which the model's choice must lead to count; below it a person decides."""
TYPICAL_LICENCES = [
    "You may do with this code whatever you like as long as you keep our copyright notice.",
    "If you change these source files, you have to publish your changes to them under these same terms.",
    "Any larger work that contains or links this program has to be released as source code under these terms.",
    "This software is confidential. You may not use, copy or pass it on without a signed contract and a licence fee.",
]


def licences_in(text: str) -> list[str]:
    """The licences that a text gives away by their distinctive phrases."""
    said = " ".join(re.sub(r"[\"'“”‘’*#]|^\s*//", "", text.lower(), flags=re.M).split())
    found = [name for name, must, no in PHRASES if re.search(must, said) and not (no and re.search(no, said))]
    if gnu := GNU_TITLE.search(said[:700]):  # further down, other licences only mention these
        kind = {"affero": "AGPL", "lesser": "LGPL", "library": "LGPL", "": "GPL"}[(gnu[1] or "").strip()]
        found.insert(0, f"{kind}-{gnu[2]}{gnu[3] or '.0'}")
    return found


def kind_of(expression: str) -> int | None:
    """The place in ``KINDS`` of an SPDX expression; of OR the mildest counts, of AND the strictest. None when an id is unknown."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)

    def either() -> int:
        kinds = [both()]
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            kinds.append(both())
        return min(kinds)

    def both() -> int:
        kinds = [single()]
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            kinds.append(single())
        return max(kinds)

    def single() -> int:
        token = tokens.pop(0)
        if token == "(":
            kind = either()
            tokens.remove(")")
            return kind
        kind = next(at for at, ids in enumerate(KIND_IDS) if re.match(rf"({ids})", token, re.I))
        if tokens and tokens[0].upper() == "WITH":  # an exception lets a program link what the licence would cover
            del tokens[:2]
            kind = min(kind, 1)
        return kind

    try:
        kind = either()
        return None if tokens else kind
    except (StopIteration, IndexError, ValueError):
        return None


def named(text: str) -> str:
    """The SPDX expression that a field or classifier means; empty when no rule can tell."""
    if len(text) > 90:
        return " AND ".join(licences_in(text))
    if kind_of(text) is not None and not re.search(r"\bBSD\b(?!-)", text):
        return text
    said, ids = text.lower(), []
    for pattern, licence in NAMES:
        if re.search(pattern, said):
            said = re.sub(pattern, " ", said)
            ids.append(licence)
    return " AND ".join(ids)


def read_licence(sheet: Sheet) -> Licence | None:
    """The licence by rules alone: the expression, the field, the classifiers, the licence files, in this order of trust."""
    own = [file for file in sheet.licence_files if file.own and file.ids]
    sources = [("its SPDX expression", sheet.expression if kind_of(sheet.expression) is not None else "")]
    sources += [("its licence field", named(sheet.field))]
    sources += [("its classifiers", " AND ".join(dict.fromkeys(filter(None, map(named, sheet.classifiers)))))]
    sources += [(f"phrases in {own[0].path}", " AND ".join(dict.fromkeys(i for file in own for i in file.ids)))] if own else []
    says = [(source, text, kind) for source, text in sources if text and (kind := kind_of(text)) is not None]
    if not says:
        return None
    source, text, kind = says[0]
    if text == "BSD" and own and says[-1][1].startswith("BSD-"):
        source, text, kind = says[-1]
    stricter = [f"{other} would be {words}" for other, words, strict in says if strict > kind and " OR " not in text]
    return Licence(name=sheet.name, licence=text, kind=list(KINDS)[kind], by="rules", why=source, doubt="; ".join(stricter))


@role(name="licence-reader", model="embedded", limits=Limits(model_calls=2))
async def licence_reader(sheet: Sheet, context: Context) -> Licence:
    """The licence of one package: by rules, else by the model, else for a person."""
    if (placed := read_licence(sheet)) is not None:
        return placed
    unread = next((file for file in sheet.licence_files if file.own), None)
    text = sheet.field or (unread.words if unread else "") or " ".join(sheet.classifiers) or sheet.expression
    if not text:
        return Licence(name=sheet.name, why="nothing in it says a word about a licence")
    label, margin = await context.choose(" ".join(text.split()[:30]), KINDS, baseline=TYPICAL_LICENCES)
    said = f"{clip(text, 60)!r}, read with a margin of {margin:.2f}"
    if margin < LICENCE_MARGIN:
        return Licence(name=sheet.name, kind=label, why=f"the model is not sure of {said}; its guess is {label}")
    return Licence(name=sheet.name, licence=clip(text, 30), kind=label, by="model", why=said)


# --- describer: what each package is for, by the model's scored choice ----------------------------------------------------

PURPOSES = {
    "networking": "sending requests over the network: an HTTP client or server, URLs, sockets, web protocols, remote calls",
    "data formats": "a data format: parsing, reading and writing, encoding and serializing messages, files and documents",
    "security": "security: encryption, certificates, passwords, authentication and signing",
    "monitoring": "watching programs run: logging, metrics, tracing, telemetry and profiling",
    "terminal": "the command line and the terminal: options, colours, tables, progress bars and highlighted text",
    "packaging": "installing, building and distributing Python packages, versions and virtual environments",
    "code quality": "testing, linting, formatting and checking the code of a program",
    "types and validation": "type hints, annotations and validation of data against classes and schemas",
    "data structures": "data structures and language helpers: collections, lists, dicts, caches, decorators, compatibility",
    "computing": "numerical computing, machine learning, language models and distributed computing",
    "files and system": "the operating system: files, folders, paths, locks and processes",
    "storage": "databases: SQL, queries, connections, storage and caching servers",
}
PURPOSE_MARGIN = 0.02
"""Nats a token; below it the purpose is shown with a question mark."""
BATCH = 8
OPENERS = frozenset("a an the it this these provides offers helps lets is adds gives makes python package library".split())


def gist(sheet: Sheet) -> str:
    """What the model is shown of a package: about thirty words of its own."""
    return " ".join(f"{sheet.summary.rstrip('.')}. {sheet.words}".split()[:30]).lstrip(". ")


def unsupported(sentence: str, source: str) -> list[str]:
    """The names and numbers of a sentence that its source does not contain; a sentence with any is not believed."""
    known = set(re.findall(r"[^\W_]+", source.casefold()))
    found = []
    for at, word in enumerate(re.findall(r"[^\s,;:()\"'`]+", sentence)):
        word = word.strip(".!?*")
        name = any(letter.isupper() or letter.isdigit() or letter in "_./@" for letter in word)
        if name and not (at == 0 and word.casefold() in OPENERS) and not set(re.findall(r"[^\W_]+", word.casefold())) <= known:
            found.append(word)
    return found


@role(name="describer", model="embedded", limits=Limits(model_calls=2 * BATCH))
async def describer(batch: Batch, context: Context) -> list[Described]:
    """What each package of a batch is for, and one line about it."""
    known = [sheet for sheet in batch.sheets if gist(sheet)]
    chosen = await context.choose([gist(sheet) for sheet in known], PURPOSES)
    answers = []
    for sheet, (purpose, margin) in zip(known, chosen, strict=True):
        answers.append(
            Described(name=sheet.name, purpose=purpose, margin=round(margin, 3), by="model", line=sheet.summary, line_by="summary")
        )
    return answers


# --- risk: rules over the whole tree --------------------------------------------------------------------------------------


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
        found.append((2 if sheet.native_size > 30e6 else 1, f"native code: {sheet.native} files, {size(sheet.native_size)}"))
    if loose := sorted({edge.name for edge in edges if not edge.spec}):
        found.append((1, f"takes any version of {listed(loose)}"))
    found += [(2, wrong) for wrong in sheet.wrong]
    if sheet.editable:
        found.append((1, "editable install: what runs is not what was released"))
    if re.search(r"\d(a|b|rc|\.dev)\d", sheet.version):
        found.append((1, f"{sheet.version} is a pre-release"))
    return sorted(found, key=lambda risk: (-risk[0], risk[1]))


def alike(rows: list[Row], parents: dict[str, set[str]]) -> list[list[str]]:
    """Pairs that may do the same job: one purpose, a telling word of their summaries in common, and neither needs the other."""
    words = {row.sheet.name: set(re.findall(r"[a-z]{4,}", row.sheet.summary.lower())) for row in rows}
    common = Counter(word for some in words.values() for word in some)
    pairs = []
    for one, two in combinations(rows, 2):
        a, b = one.sheet.name, two.sheet.name
        if one.described.purpose != two.described.purpose or one.described.by != "model" or a[:4] == b[:4]:
            continue
        shared = sorted(word for word in words[a] & words[b] if common[word] <= 4)
        if shared and a not in above(b, parents) and b not in above(a, parents):
            pairs.append([a, b, one.described.purpose, ", ".join(shared)])
    return pairs


@role(name="risk")
def risk(all: Everything) -> Audit:
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


# --- editor: the report ---------------------------------------------------------------------------------------------------


def size(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            break
        count /= 1000
    else:
        unit = "GB"
    return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"


def listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; ``head`` has the columns, divided by bars. Bars and line ends inside cells are made harmless."""
    columns = [column.strip() for column in head.split("|")]
    lines = [columns, ["---:" if column in ("Size", "Points", "Packages") else "---" for column in columns]]
    lines += [[clip(str(cell), 200).replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@role(name="editor")
def editor(audit: Audit) -> str:
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


# --- the team -------------------------------------------------------------------------------------------------------------


def plan(goal: str | None = None) -> Plan:
    """Two tasks a package, a few batches for the model, and two that bring everything together."""
    today = date.today().isoformat()
    found = installed(today)
    wanted = [name for name in found if not goal or any(fnmatch(name, pattern) for pattern in goal.split())]
    batches = [wanted[at :: -(-len(wanted) // BATCH)] for at in range(-(-len(wanted) // BATCH))]  # kin have neighbouring names
    tasks = [Task(id=f"inventory/{name}", role="inventory", input=found[name].model_dump()) for name in wanted]
    tasks += [
        Task(id=f"describe/{at}", role="describer", input={"sheets": [ref(f"inventory/{name}") for name in batch]}, tolerant=True)
        for at, batch in enumerate(batches)
    ]
    tasks += [Task(id=f"licence/{name}", role="licence-reader", input=ref(f"inventory/{name}")) for name in wanted]
    everything = {
        "day": today,
        "place": f"{sys.prefix}, Python {sys.version.split()[0]}",
        "names": wanted,
        "installed": {name: one.version for name, one in found.items()},
        "sheets": [ref(f"inventory/{name}") for name in wanted],
        "licences": [ref(f"licence/{name}") for name in wanted],
        "described": [ref(f"describe/{at}") for at in range(len(batches))],
    }
    tasks.append(Task(id="risk", role="risk", input=everything, tolerant=True))
    tasks.append(Task(id="editor", role="editor", input=ref("risk")))
    return Plan(tasks=tuple(tasks))


team = Team(
    "dependency-audit",
    roles=[inventory, licence_reader, describer, risk, editor],
    planner=plan,
    merge=only(),
    budget=Limits(model_calls=2000, micros=2_000_000),
)
