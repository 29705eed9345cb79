"""Sentences: what a passage says piece by piece, each a quote that stands in its document word for word."""

import re

from reading_room.index import Hit, closeness
from reading_room.notes import Evidence, Quote

LONGEST = 400
"""Characters of a quote; what is longer is a table or code more often than a sentence."""
FEWEST_WORDS = 2
SHOWN = 3
"""Sentences that a reader is shown: more confuse a small model."""
FLOOR = 0.75
"""The share of the closest sentence's closeness below which another one is not shown."""

_ITEM = re.compile(r"^\s*(?:[-*+•]\s|\d+[.)]\s|:\w+[^:\n]*:)")
_END = re.compile(r"(?<=[.!?:])[\"')\]`*_]*\s+(?=[\"'(\[`*_]*[A-Z0-9])")
_DRAWN = re.compile(r"^\s*([^\w\s])\1{2,}\s*$")
_SKIPPED = re.compile(r"^\s*(?:>>>|\.\.\.|\.\.\s|@|\||```|~~~|#{1,6}\s|<|from \w+ import|import \w+)|[{}]\s*$|\)\s*:$")


def sentences(text: str, first: int = 1) -> list[tuple[int, str]]:
    """The sentences of ``text`` with the line that each begins on, its lines numbered from ``first``; headings and code are none."""
    found: list[tuple[int, str]] = []
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*text.split("\n"), ""], first):
        drawn = _DRAWN.match(line)
        ends = not line.strip() or drawn or _SKIPPED.search(line)
        if drawn and block:
            block.pop()  # it was a heading
        if ends or _ITEM.match(line):
            found += _split(block)
            block = []
        if not ends:
            block.append((number, line))
    return found


def evidence(question: str, hits: list[Hit], round: int = 1) -> Evidence:
    """The sentences of ``hits`` that are closest to ``question``; each round (from 1) those behind the ones of the round before."""
    quotes: dict[str, Quote] = {}
    for hit in hits:
        for at, said in sentences(hit.text, hit.line):
            quotes.setdefault(said, Quote(text=said, file=hit.file, line=at, about=hit.heading))
    scores = closeness(question, [(f"{one.file} {one.about}", one.text) for one in quotes.values()])
    ranked = sorted(zip(scores, quotes.values(), strict=True), key=lambda one: -one[0])
    shown = ranked[(round - 1) * SHOWN : round * SHOWN]
    return Evidence(question=question, quotes=[one for score, one in shown if score > FLOOR * ranked[0][0]])


def _split(block: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The sentences of neighbouring lines."""
    numbers = [number for number, line in block for _ in line.split()]
    joined = " ".join(word for _, line in block for word in line.split())
    found, at = [], 0
    for piece in _END.split(joined) if joined else ():
        at = joined.index(piece, at)
        said = piece.strip("\"' ")
        if len(said) <= LONGEST and sum(any(map(str.isalnum, word)) for word in said.split()) >= FEWEST_WORDS:
            found.append((numbers[joined.count(" ", 0, at)], said))
        at += len(piece)
    return found
