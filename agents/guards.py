"""Guards: small bounds that keep an agent's work finite, each a verdict when it is passed. Repetition has a module of its own."""

import difflib
from collections.abc import Collection
from typing import NamedTuple

from protocols.budget import COUNTED, NOTHING, Amount, Limits, Usage, amount, room, spoken
from protocols.failures import Failed, Failure, Verdict

MOST_MISTAKES = 3
"""Turns in a row with a call of an unknown tool, or with arguments that do not fit, that are told; one more ends the task."""
MOST_REPAIRS = 2
"""Answers that did not fit and were sent back; one more ends the task."""


def failed(verdict: Verdict, message: str, *evidence: str, retryable: bool = False) -> Failed:
    """The error that ends a task with this verdict."""
    return Failed(Failure(verdict=verdict, message=message, evidence=evidence, retryable=retryable))


class Meter:
    """Holds one task's own limits; what earlier attempts have ``spent`` counts as well."""

    __slots__ = ("_bounds", "_limits", "_role", "_used", "_which")

    def __init__(self, role: str, limits: Limits, spent: Usage = NOTHING, which: str = "its limits") -> None:
        self._role, self._limits, self._which = role, limits, which
        self._used = list(amount(spent))
        self._bounds = [(place, getattr(limits, name)) for place, name in enumerate(COUNTED) if getattr(limits, name) is not None]

    def take(self, need: Usage) -> None:
        """Reserve ``need``; raises ``Failed`` (turns or budget) when it would pass a limit on top of what is used and reserved."""
        wanted = amount(need)
        for place, limit in self._bounds:
            if wanted[place] and self._used[place] + wanted[place] > limit:
                verdict = Verdict.TURNS if COUNTED[place] == "turns" else Verdict.BUDGET
                message = (
                    f"role {self._role!r} may use {spoken(place, limit)} in a task and has used {spoken(place, self._used[place])}; "
                    f"the next call could need {spoken(place, wanted[place])}; raise {self._which} or ask less of it"
                )
                raise failed(verdict, message)
        self._add(wanted)

    @property
    def room(self) -> Amount:
        """What can still be taken."""
        return room(self._limits, self._used)

    def settle(self, need: Usage, used: Usage) -> None:
        """Replace what ``take`` reserved by what was used."""
        if need is not used:
            self._add(tuple(one - taken for taken, one in zip(amount(need), amount(used), strict=True)))

    def _add(self, counts: tuple[int, ...]) -> None:
        for place, one in enumerate(counts):
            self._used[place] += one


class Objection(NamedTuple):
    """Why a call is not made, for the model to read."""

    verdict: Verdict
    message: str


class Mistakes:
    """Counts the calls of one task that can't be made: tools that are not there, arguments that do not fit, calls that are only text."""

    __slots__ = ("_fits", "_wrong", "_wrongs")

    def __init__(self) -> None:
        self._wrongs = 0
        self._wrong = False
        self._fits = False

    def begin(self) -> None:
        """A turn begins. One without a mistake starts the count anew."""
        if self._fits and not self._wrong:
            self._wrongs = 0
        self._wrong = self._fits = False

    def fits(self) -> None:
        """A call of this turn can be made."""
        self._fits = True

    def unknown(self, name: str, known: Collection[str]) -> Objection:
        """Feedback that names what exists; raises ``Failed`` (hallucinated tool) when it was given too often."""
        return self._told(Verdict.HALLUCINATED_TOOL, _no_tool(name, known))

    def written(self, name: str, known: Collection[str]) -> Objection:
        """Feedback on a call that stands in the text of a reply; raises ``Failed`` (hallucinated tool) when it was given too often."""
        what = f"there is a tool {name!r}: call it, or answer in words" if name in known else _no_tool(name, known)
        told = f"your reply was text that only looks like a tool call, and nothing was called; {what}"
        return self._told(Verdict.HALLUCINATED_TOOL, told)

    def refused(self, reason: str) -> Objection:
        """Feedback on arguments; raises ``Failed`` (bad arguments) when it was given too often."""
        return self._told(Verdict.BAD_ARGUMENTS, reason)

    def _told(self, verdict: Verdict, message: str) -> Objection:
        self._wrongs += not self._wrong  # calls of one turn were made before any of them was told
        self._wrong = True
        if self._wrongs > MOST_MISTAKES:
            raise failed(verdict, f"after {MOST_MISTAKES} corrections: {message}", message)
        return Objection(verdict, message)


def _no_tool(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    there = ", ".join(sorted(known)) or "none; answer without"
    return f"there is no tool {name[:80]!r}{meant}; there are: {there}"
