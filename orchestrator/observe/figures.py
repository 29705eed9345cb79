"""Figures as people read them: money, durations, counts and contents, each on one line and safe to print on a terminal."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from protocols.budget import Usage
from protocols.budget import money as money

# escape sequences, then C0 and C1 controls except tab and newline: what models and tools say must not steer the terminal
_CONTROLS = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def duration(milliseconds: int) -> str:
    """Milliseconds in the unit that fits: ``340 ms``, ``12.3 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if milliseconds < 1000:
        return f"{max(milliseconds, 0)} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    seconds = milliseconds // 1000
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def count(number: int, noun: str) -> str:
    """``number`` with its noun: ``1 task``, ``1,000 tasks``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def spent(usage: Usage) -> str:
    """What was used, without the zeros: ``2 model calls, 1 tool call · 345 in, 12 out · $0.0012``; empty when nothing was."""
    calls = [count(usage.model_calls, "model call")] * bool(usage.model_calls)
    calls += [count(usage.tool_calls, "tool call")] * bool(usage.tool_calls)
    parts = [", ".join(calls)] * bool(calls)
    if usage.tokens:
        parts.append(f"{usage.input_tokens:,} in, {usage.output_tokens:,} out")
    if usage.micros:
        parts.append(money(usage.micros))
    return " · ".join(parts)


def moment(milliseconds: int) -> str:
    """Milliseconds since the epoch as an ISO 8601 time in UTC, to the millisecond."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """``text`` without escape sequences, and without control characters other than tab and newline."""
    return _CONTROLS.sub("", text)


def brief(value: Any, width: int = 80) -> str:
    """``value`` (text, or any JSON value) on one clean line of at most ``width`` characters."""
    # a bound before the work: the value may be megabytes and the line is short
    text = value[: width * 8] if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)[: width * 8]
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"
