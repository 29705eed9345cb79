"""Opening: which files a folder holds, and the text of one. Whatever is in a file, nothing here raises but for the folder."""

import re
from pathlib import Path

from inbox_desk.papers import Paper
from protocols.failures import BadInput

MOST_FILES = 500
MOST_CHARS = 6_000
"""A longer text would not fit a small model's context beside the examples."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

_TO_A_MACHINE = re.compile(
    r"\b(ignore|disregard|forget|override)\b[^.\n]{0,40}\b(instructions?|prompts?|rules)\b"
    r"|\b(note|message|instructions?|attention)\s+(to|for)\s+(\w+\s+){0,2}(ai|llms?|models?|assistants?|systems?|bots?|agents?)\b"
    r"|\byou are (now )?(an?|the) \w*\s?(ai|assistant|model|bot)\b"
    r"|\b(mark|record|book|treat)\s+(this|it|the)\s+(\w+\s+){0,2}as\s+(paid|settled|approved)\b",
    re.I,
)
"""Words that speak to a machine that reads, not to the person a document is for."""


def listed(folder: str) -> list[str]:
    """The files under ``folder`` by their names in it; raises ``BadInput`` where that is no folder, is empty or holds too many."""
    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f'there is no folder {folder}; give one with documents: --goal \'{{"folder": "path/to/documents"}}\'')
    try:
        found = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    except OSError as error:
        raise BadInput(f"the folder {folder} can't be read ({error.strerror}); allow it, or give another") from None
    names = [str(path) for path in found if not any(part.startswith(".") for part in path.parts)]
    if not names:
        raise BadInput(f"there is no file in {folder}; give a folder with documents")
    if len(names) > MOST_FILES:
        raise BadInput(f"{folder} holds {len(names)} files and {MOST_FILES} are the most; give a smaller folder")
    return names


def opened(folder: str, file: str) -> Paper:
    """The text of a file; what can't be read says why."""
    try:
        with Path(folder, file).open("rb") as stream:
            raw = stream.read(4 * MOST_CHARS + 1)
    except OSError as error:
        return Paper(file=file, problem=f"it can't be opened ({error.strerror})")
    text = decoded(raw)
    if text is None:
        return Paper(file=file, problem="it is not text")
    if not text.strip():
        return Paper(file=file, problem="it is empty")
    if len(text) > MOST_CHARS:
        return Paper(file=file, problem=f"it is longer than {MOST_CHARS:,} characters")
    kept, withheld = parted(text)
    return Paper(file=file, text=kept, withheld=withheld)


def decoded(raw: bytes) -> str | None:
    """Bytes as text: UTF-8, else what Windows writes; ``None`` for what is no text."""
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            if encoding == "utf-8-sig" and error.end >= len(raw) > 4 * MOST_CHARS:
                text = raw[: error.start].decode(encoding)  # cut within a character
            else:
                continue
        return None if _CONTROL.search(text) else text.replace("\r\n", "\n")
    return None


def parted(text: str) -> tuple[str, list[str]]:
    """A text without the paragraphs that speak to a machine, and those paragraphs."""
    paragraphs = re.split(r"\n\s*\n", text)
    withheld = [" ".join(one.split()) for one in paragraphs if _TO_A_MACHINE.search(" ".join(one.split()))]
    kept = [one for one in paragraphs if " ".join(one.split()) not in withheld]
    return "\n\n".join(kept), withheld
