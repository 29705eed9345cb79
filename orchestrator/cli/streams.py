"""The two streams of a command: standard output is the result's, everything else goes to standard error."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def errors() -> "Console":
    """The console for people: standard error, at its real width, whatever standard output is."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)


def note(text: str) -> None:
    """One line to standard error, without control characters: it may quote a model, a tool or a provider."""
    from orchestrator.observe.figures import clean

    print(clean(text), file=sys.stderr, flush=True)


@contextmanager
def kept() -> Iterator[TextIO]:
    """Standard output, kept for the result alone: until the end, whatever else is written to it comes out on standard error.

    Ray's processes write to the descriptor itself, so it is the descriptor that is moved, and they inherit the moved one.
    """
    sys.stdout.flush()
    if not _is_descriptor_1(sys.stdout):  # somebody captures it already
        mine, sys.stdout = sys.stdout, sys.stderr
        try:
            yield mine
        finally:
            sys.stdout = mine
        return
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(saved), "w", encoding=sys.stdout.encoding, errors="backslashreplace") as mine:
            yield mine
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def write_json(value: Any, out: TextIO) -> None:
    """One JSON value on one line."""
    out.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    out.flush()


def write_output(value: Any, out: TextIO) -> None:
    """A run's output for people: text as it is, anything else as indented JSON. A terminal gets no control characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    if out.isatty():
        from orchestrator.observe.figures import clean

        text = clean(text)
    out.write(text if text.endswith("\n") else text + "\n")
    out.flush()


def _is_descriptor_1(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):
        return False
