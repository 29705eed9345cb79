"""JSON text of others, read strictly: no key twice, no number that JSON has no words for, and nothing that can't be sent."""

import json
from math import isfinite
from typing import Any

from pydantic_core import from_json, to_jsonable_python

DEEPEST = 100
"""So many lists and objects may stand in each other."""
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_ASCII = json.JSONEncoder(default=to_jsonable_python)


def read(text: str) -> Any:
    """The value of ``text``. Raises ``ValueError`` that says what is wrong with it."""
    value = from_json(text, allow_inf_nan=False)
    _TWICE.decode(text)
    wrong = flaw(value)
    if wrong is not None:
        raise ValueError(wrong)
    return value


def written(value: Any) -> str:
    """``value`` as text, whatever it is: what JSON has no words for in other words."""
    try:
        return _ASCII.encode(value)
    except (ValueError, TypeError, RecursionError):
        return f"({type(value).__name__} that can't be written as JSON)"


def flaw(value: Any, depth: int = 0) -> str | None:
    """Why ``value`` can't be sent as JSON; ``None`` when it can."""
    if isinstance(value, str):
        return None if value.isascii() or _whole(value) == value else "a text has half a surrogate pair"
    if isinstance(value, int):
        return None if _LEAST <= value <= _MOST else "an integer has more than 64 bits"
    if isinstance(value, float):
        return None if isfinite(value) else f"{value} is no number of JSON"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not (key.isascii() or flaw(key) is None):
                return "a key is no text"
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        if depth == DEEPEST:
            return f"it is nested more than {DEEPEST} deep"
        for one in value:
            wrong = flaw(one, depth + 1)
            if wrong is not None:
                return wrong
        return None
    return None if value is None else f"{type(value).__name__} is no kind of JSON"


def sendable(text: str) -> str:
    """``text`` without halves of surrogate pairs, which can neither be sent nor stored."""
    return text if text.isascii() else _whole(text)


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, _ in pairs:
            if found.pop(key, found) is found:
                raise ValueError(f"the key {key[:80]!r} stands there twice")
    return found


_TWICE = json.JSONDecoder(object_pairs_hook=_once)
