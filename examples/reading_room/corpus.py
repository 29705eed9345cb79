"""The corpus: the documents of a folder, their readable lines, and the passages that the index holds."""

import html
import os
import re
import sysconfig
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from protocols.failures import BadInput

PROSE = frozenset({".md", ".markdown", ".rst", ".txt", ".html", ".htm"})
NAMED = frozenset({"METADATA", "README", "CHANGES", "CHANGELOG", "NEWS"})
PASSAGE = 900
"""Characters after which a passage ends with its paragraph, and at which it ends in any case at the next line."""
DOCSTRING_WORDS = 4
"""A shorter docstring says little more than the name above it."""
MOST_BYTES = 2_000_000
"""A larger document is data more often than text, and is left out."""
MOST_DOCUMENTS = 50_000

_NO_TEXT = re.compile(r"licen[cs]e|copying|notice|top_level|entry_points|namespace_packages|requirements|vendor\.txt|record", re.I)
_NO_FOLDER = frozenset({"tests", "test", "_vendor", "vendor", "node_modules", "__pycache__", "site-packages", "build", "dist", "typeshed"})
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_UNDERLINE = re.compile(r"^([=\-~^\"'*+`#.:_])\1{2,}\s*$")
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^<>]*>", re.S | re.I)
_DEFINED = re.compile(r"^([ \t]*)(?:async[ \t]+def|def|class)[ \t]+(\w+)")
_STRING = re.compile(r"^[ \t]*#[^\n]*|(^[ \t]*)?[rRbBuUfF]{0,2}(\"\"\"|''')(.*?)\2", re.M | re.S)


class Document(NamedTuple):
    """A file of the corpus: its name under the folder, with ``/``, its size in bytes and when it was changed (nanoseconds)."""

    name: str
    size: int
    changed: int


class Passage(NamedTuple):
    """Neighbouring lines of a document: their heading, the number of the first (from 1), and the text."""

    heading: str
    line: int
    text: str


def installed() -> str:
    """The folder where this environment's packages are, and with them the documentation that they carry."""
    return sysconfig.get_paths()["purelib"]


def documents(folder: str) -> list[Document]:
    """The documents of ``folder``, by name. Hidden folders, tests, links and licences are left out.

    Raises ``BadInput`` for what is no folder, holds no document, or more than ``MOST_DOCUMENTS``.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f"there is no folder {folder}; give one with text, Markdown, reStructuredText, HTML or Python files")
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one.lower() not in _NO_FOLDER)
        for file in files:
            path = Path(place, file)
            if not _is_text(file) or path.is_symlink():
                continue
            try:
                facts = path.stat()
            except OSError:
                continue
            if 0 < facts.st_size <= MOST_BYTES:
                found.append(Document(path.relative_to(root).as_posix(), facts.st_size, facts.st_mtime_ns))
    if not found:
        raise BadInput(f"there is no text, Markdown, reStructuredText, HTML or Python file under {folder}; give another folder")
    if len(found) > MOST_DOCUMENTS:
        raise BadInput(f"there are {len(found)} documents under {folder} and at most {MOST_DOCUMENTS} are read; give a smaller folder")
    return sorted(found)


def fingerprint(found: list[Document]) -> str:
    """What changes when a document comes, goes or is written (16 hexadecimal digits)."""
    return sha256("\n".join(f"{one.name}\0{one.size}\0{one.changed}" for one in found).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def lines_of(folder: str, name: str) -> list[str]:
    """A document as readable lines, each where it stands in the file; HTML without its tags. Raises ``OSError``."""
    text = Path(folder, name).read_bytes().decode("utf-8", "replace")
    if "\0" in text:
        return []  # it only has the name of a text
    if name.lower().endswith((".html", ".htm")):
        text = html.unescape(_TAG.sub(lambda tag: "\n" * tag[0].count("\n"), text)).replace("\xa0", " ")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def passages(name: str, lines: list[str]) -> Iterator[Passage]:
    """The passages of a document: of Python its docstrings, of a package's metadata the description, of others everything."""
    if name.endswith(".py"):
        yield from _docstrings(lines)
    elif name.endswith("METADATA"):
        start = next((at for at, line in enumerate(lines) if not line.strip()), len(lines))
        summary = next((at for at, line in enumerate(lines[:start]) if line.startswith("Summary: ")), None)
        if summary is not None:
            yield Passage("", summary + 1, lines[summary])
        yield from _paragraphs(lines, start, len(lines), "")
    else:
        yield from _paragraphs(lines, 0, len(lines), "")


def _is_text(file: str) -> bool:
    if file in NAMED:
        return True
    suffix = os.path.splitext(file)[1].lower()
    return suffix == ".py" or (suffix in PROSE and not _NO_TEXT.search(file))


def _paragraphs(lines: list[str], start: int, end: int, heading: str, *, titles: bool = True) -> Iterator[Passage]:
    """Lines ``start`` to ``end`` in passages that end with a paragraph or, with ``titles``, before a heading."""
    held: list[str] = []
    first, size, fenced = start, 0, False
    for at in range(start, end):
        line = lines[at]
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        title = _title(line, lines[at + 1] if at + 1 < end else "") if titles and not fenced else ""
        if title or size >= 2 * PASSAGE or (size >= PASSAGE and not line.strip()):
            if held:
                yield Passage(heading, first + 1, "\n".join(held))
            held, size = [], 0
            heading = title or heading
        if held or line.strip():
            if not held:
                first = at
            held.append(line)
            size += len(line) + 1
    if held:
        yield Passage(heading, first + 1, "\n".join(held))


def _title(line: str, below: str) -> str:
    """The heading that ``line`` is, by its own marks or by a line drawn under it; else nothing."""
    if marked := _HEADING.match(line):
        return marked[1]
    drawn = _UNDERLINE.match(below) and line.strip() and not _UNDERLINE.match(line) and len(below.strip()) >= len(line.strip())
    return line.strip() if drawn else ""


def _docstrings(lines: list[str]) -> Iterator[Passage]:
    """Strings that begin a line, each under the names that it is nested in."""
    text = "\n".join(lines)
    at = line = 0
    names: list[tuple[int, str]] = []
    for found in _STRING.finditer(text):
        for passed in text[at : found.start()].split("\n"):
            if defined := _DEFINED.match(passed):
                indent = len(defined[1])
                names = [one for one in names if one[0] < indent] + [(indent, defined[2])]
        line += text.count("\n", at, found.start())
        at = found.start()
        if found[1] is not None and len(found[3].split()) >= DOCSTRING_WORDS:
            within = ".".join(name for indent, name in names if indent < len(found[1]))
            yield from _paragraphs(lines, line, line + found[0].count("\n") + 1, within, titles=False)
