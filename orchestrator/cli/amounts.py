"""What people type, as values: money, counts, seconds, moments, goals. Every refusal is one sentence and the next step."""

import json
import math
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocols import ids
from protocols.budget import MICROS_PER_UNIT, Limits
from protocols.failures import BadInput

MOST = 10**15
"""The largest limit on tokens or calls that can be given."""

_MONEY = re.compile(r"\$?([0-9]{1,12})(?:\.([0-9]*))?|\$?\.([0-9]+)")
_DECIMALS = 6
COUNTS = {
    "--budget-tokens": "tokens",
    "--budget-calls": "model_calls",
    "--budget-tool-calls": "tool_calls",
    "--budget-turns": "turns",
    "--budget-subtasks": "subtasks",
}
"""The flags of a run that limit counts, and what of ``Limits`` they are."""
_AGO = re.compile(r"([0-9]{1,6}) ?(d|h|min)")
_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000}


def micros(text: str, flag: str = "--budget-usd") -> int:
    """A decimal amount of money in millionths, exactly: ``0.25`` is 250,000. Raises ``BadInput``."""
    match = _MONEY.fullmatch(text.strip())
    if not match:
        raise BadInput(f"{flag} {text!r} is no amount of money; write it like 0.25")
    decimals = (match[2] or match[3] or "").rstrip("0")
    if len(decimals) > _DECIMALS:
        raise BadInput(f"{flag} {text} is finer than a millionth; write at most {_DECIMALS} decimals")
    return int(match[1] or 0) * MICROS_PER_UNIT + int(decimals.ljust(_DECIMALS, "0"))


def budget(usd: str | None, timeout: float | None, counts: Mapping[str, int | None]) -> Limits | None:
    """The limits of a run, or ``None`` when none is given. ``timeout`` is in seconds, ``counts`` by their flags. Raises ``BadInput``."""
    if usd is None and timeout is None and all(value is None for value in counts.values()):
        return None
    for flag, value in counts.items():
        if value is not None and value < 0:
            raise BadInput(f"{flag} {value} is below zero; give a number from 0 up, or leave it out for no limit")
        if value is not None and value > MOST:
            raise BadInput(f"{flag} {value} is more than {MOST:,}; give less, or leave it out for no limit")
    if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
        raise BadInput(f"--timeout {timeout} is no time to work in; give seconds above 0, or leave it out for no limit")
    money = None if usd is None else micros(usd)
    return Limits(micros=money, seconds=timeout, **{COUNTS[flag]: value for flag, value in counts.items()})


def user(name: str, where: str = "--user") -> str:
    """The name of a user. Raises ``BadInput``."""
    if not ids.is_user_name(name):
        raise BadInput(f"{where} {name!r} can't name a user; give a name like ada, of up to 200 characters that can be printed")
    return name


def since(text: str, flag: str = "--since") -> int:
    """A moment in milliseconds (UTC): so long ago (``7d``, ``12h``, ``30min``), or the beginning of a day. Raises ``BadInput``."""
    if ago := _AGO.fullmatch(text.strip()):
        return max(time.time_ns() // 1_000_000 - int(ago[1]) * _MILLISECONDS[ago[2]], 0)
    try:
        day = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(f"{flag} {text!r} is no time; write it like 7d, 12h or 2026-01-31") from None
    return max(int((day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp() * 1000), 0)


def goal(text: str | None, source: str | None) -> Any:
    """The goal from ``--goal`` or from the file (``-`` is standard input) of ``--input``; ``None`` without either.

    JSON objects, arrays and numbers are read as such, and whatever JSON a ``.json`` file holds; all else is text.
    Raises ``BadInput``, also for a ``--goal`` that begins as an object or array and is none.
    """
    if text is not None and source is not None:
        raise BadInput("--goal and --input both give the goal; use one of them")
    if text is not None:
        value = _json_or_text(text)
        if isinstance(value, str) and text.lstrip()[:1] in ("[", "{"):
            raise BadInput(f"--goal begins like JSON and is broken: {_broken(text)}; correct it, or give such text with --input FILE")
        return value
    if source is None:
        return None
    content = _read(source)
    if not source.endswith(".json"):
        return _json_or_text(content.rstrip("\r\n"))
    try:
        return json.loads(content, parse_constant=_no_number)
    except ValueError as error:
        raise BadInput(f"{source} is not valid JSON ({error}); correct it, or rename it to be read as text") from None
    except RecursionError:
        raise BadInput(f"{source} is nested too deeply to be read; make it flatter") from None


def _read(source: str) -> str:
    name = "standard input" if source == "-" else source
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).expanduser().read_bytes()
    except FileNotFoundError:
        raise BadInput(f"there is no file {source}; check the path of --input") from None
    except OSError as error:
        raise BadInput(f"{name} can't be read ({error.strerror}); check the path of --input") from None
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not UTF-8 text (byte {error.start}); convert it, or give a path to it as the goal") from None


def _json_or_text(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text
    plain = isinstance(value, dict | list | int | float) and not isinstance(value, bool)
    return value if plain else text


def _broken(text: str) -> str:
    try:
        json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        return str(error)
    except RecursionError:
        pass
    return "it is nested too deeply to be read"


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
