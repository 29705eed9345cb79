"""Guards: small bounds that keep an agent's work finite, each a verdict when it is passed."""

import difflib
from collections.abc import Collection
from typing import NamedTuple

from pydantic_core import to_json

from protocols.budget import COUNTED, Limits, Usage, amount
from protocols.chat import ToolCall
from protocols.failures import Failed, Failure, Verdict

MOST_REPEATS = 3
"""The same call in a row: the third is not made and told, one more ends the task."""
MOST_MISTAKES = 3
"""Calls of unknown tools, or with arguments that do not fit, that are told; one more ends the task."""
MOST_REPAIRS = 2
"""Answers that did not fit and were sent back; one more ends the task."""


def failed(verdict: Verdict, message: str, *evidence: str, retryable: bool = False) -> Failed:
    """The error that ends a task with this verdict."""
    return Failed(Failure(verdict=verdict, message=message, evidence=evidence, retryable=retryable))


class Meter:
    """Holds one task's own limits; what earlier attempts used and is recalled counts as well."""

    __slots__ = ("_bounds", "_role", "_used")

    def __init__(self, role: str, limits: Limits) -> None:
        self._role = role
        self._used = [0] * len(COUNTED)
        self._bounds = [(place, getattr(limits, name)) for place, name in enumerate(COUNTED) if getattr(limits, name) is not None]

    def take(self, need: Usage) -> None:
        """Reserve ``need``; raises ``Failed`` (turns or budget) when it would pass a limit on top of what is used and reserved."""
        wanted = amount(need)
        for place, limit in self._bounds:
            if wanted[place] and self._used[place] + wanted[place] > limit:
                name = COUNTED[place]
                verdict = Verdict.TURNS if name == "turns" else Verdict.BUDGET
                message = (
                    f"role {self._role!r} has used {self._used[place]} of the {limit} {name} that its limits allow in a task, "
                    f"and the next call could need {wanted[place]}; raise limits={name}, or ask less of it"
                )
                raise failed(verdict, message)
        self._add(wanted)

    def settle(self, need: Usage, used: Usage) -> None:
        """Replace what ``take`` reserved by what was used."""
        if need is not used:
            self._add(tuple(one - taken for taken, one in zip(amount(need), amount(used), strict=True)))

    def recall(self, used: Usage) -> None:
        """Count what an earlier attempt used, which is spent whatever the limit says."""
        self._add(amount(used))

    def _add(self, counts: tuple[int, ...]) -> None:
        for place, one in enumerate(counts):
            self._used[place] += one


class Objection(NamedTuple):
    """Why a call is not made, for the model to read."""

    verdict: Verdict
    message: str


class Calls:
    """Watches the tool calls of one task: repetition, unknown tools, arguments that do not fit."""

    __slots__ = ("_last", "_mistakes", "_repeats", "_results")

    def __init__(self) -> None:
        self._last: tuple[str, bytes] | None = None
        self._repeats = 0
        self._mistakes = 0
        self._results: list[str] = []

    def repeated(self, call: ToolCall, *, repeatable: bool) -> Objection | None:
        """An objection to the third equal call in a row; raises ``Failed`` (loop) for the one after it."""
        this = (call.name, to_json(call.arguments))
        self._repeats = self._repeats + 1 if this == self._last and not repeatable else 1
        if self._repeats == 1:
            self._results = []
        self._last = this
        if self._repeats < MOST_REPEATS:
            return None
        shown = f"{call.name}({this[1].decode()[:300]})"
        gave = f"; it gave: {self._results[-1]}" if self._results else ""
        if self._repeats == MOST_REPEATS:
            done = MOST_REPEATS - 1
            told = f"this call was made {done} times already with equal arguments{gave}. Do something else, or answer"
            return Objection(Verdict.LOOP, told)
        raise failed(Verdict.LOOP, f"it repeated {shown} after it was told not to", shown, *self._results)

    def gave(self, call: ToolCall, content: str) -> None:
        """Remember a result as evidence."""
        if self._last is not None and self._last[0] == call.name:
            self._results = [*self._results[-1:], content[:200]]

    def unknown(self, call: ToolCall, known: Collection[str]) -> Objection:
        """Feedback that names what exists; raises ``Failed`` (hallucinated tool) when it was given too often."""
        close = difflib.get_close_matches(call.name, list(known), n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        there = ", ".join(sorted(known)) or "none; answer without"
        return self._mistake(Verdict.HALLUCINATED_TOOL, f"there is no tool {call.name[:80]!r}{meant}; there are: {there}")

    def refused(self, reason: str) -> Objection:
        """Feedback on arguments; raises ``Failed`` (bad arguments) when it was given too often."""
        return self._mistake(Verdict.BAD_ARGUMENTS, reason)

    def _mistake(self, verdict: Verdict, message: str) -> Objection:
        self._mistakes += 1
        if self._mistakes > MOST_MISTAKES:
            raise failed(verdict, f"after {MOST_MISTAKES} corrections: {message}", message)
        return Objection(verdict, message)
