"""Checks of an answer against its source: what a small model fills in is believed only where the source says it."""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel

from agents.typed import prompt_of

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def grounded(source: Any, output: Any) -> list[str]:
    """What of ``output`` does not stand in ``source`` (a role's typed input): one sentence each; for ``Role(check=grounded)``.

    Text must stand there word for word, whatever its case and spacing, and numbers as digits, with or without thousands separators.
    Enum members, truth values and nulls are judgements and are not looked for.
    """
    text = source if isinstance(source, str) else prompt_of(source)
    words = _plain(text)
    numbers = {number for written in _NUMBER.findall(text) for number in _readings(written)}
    found = []
    for place, value in _leaves(output):
        if isinstance(value, str) and _plain(value) not in words:
            found.append(f"{place or 'the answer'}: {value!r} does not stand in the source; copy what it says")
        elif isinstance(value, (int, float)) and float(abs(value)) not in numbers:
            found.append(f"{place or 'the answer'}: {value} is not a number of the source; copy what it says")
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _readings(written: str) -> Iterator[float]:
    """The numbers that digits may mean: separators group thousands, or the last one marks decimals."""
    yield float(re.sub(r"[.,]", "", written))
    whole, mark, part = written.replace(",", ".").rpartition(".")
    if mark:
        yield float(f"{whole.replace('.', '')}.{part}")


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if value is None or isinstance(value, (bool, Enum)):
        return
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{place}.{name}" if place else str(name))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{place}[{number}]")
    else:
        yield place, value
