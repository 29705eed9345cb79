"""Purposes: what a package may be for, what a model is shown of it, and when a sentence about it is not believed."""

import re

from audit.answers import Sheet

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
WORDS = 30
WRITE = "Say in one plain sentence of at most 20 words what this Python package is for. Name and count nothing that the text does not."
OPENERS = frozenset({"a", "an", "the", "it", "this", "these", "provides", "offers", "helps", "lets", "adds", "gives", "makes", "python"})
"""Words that may begin a sentence with a capital and name nothing."""


def gist(sheet: Sheet) -> str:
    """What the model is shown of a package: at most thirty words of its own, without the summary said twice."""
    summary, words = sheet.summary.strip(" ."), sheet.words
    if words.casefold().startswith(summary.casefold()):
        words = words[len(summary) :].lstrip(" .:")
    return " ".join(f"{summary}. {words}".split()[:WORDS]).lstrip(". ")


def believable(sentence: str, source: str) -> bool:
    """Whether a model's sentence may stand in the report: one short line whose names and numbers are its source's."""
    return 0 < len(sentence.split()) <= 30 and "\n" not in sentence and not unsupported(sentence, source)


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
