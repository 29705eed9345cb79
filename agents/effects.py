"""Effects: what is known of a write whose end nobody recorded, and what a tool may answer when it is asked."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from protocols.chat import ToolCall
from protocols.failures import Verdict
from protocols.messages import Decision, Message, ReviewAsked, ReviewDecided, ToolCalled, ToolIntended


@dataclass(frozen=True, slots=True)
class Done:
    """It happened. ``result`` is what the call returned, or would have; ``None`` where that is not known."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class NotDone:
    """It did not happen, and nothing that is still on its way can make it happen: the call may be made."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It can't be said now; ``why`` is shown to the person who decides."""

    why: str = ""


Reconciled = Done | NotDone | Unknown
"""What became of a write."""

Reconcile = Callable[..., Reconciled | Awaitable[Reconciled]]
"""Says what became of the write that was made under a key. Its first parameter is that key; others are the tool's own, by name."""


class Standing(NamedTuple):
    """How a write stands by what was recorded at its place.

    ``announced``: it was ever begun; ``other``: as another call than this; ``doubt``: the announcement whose end is not known, and
    ``why``; ``decided``: what a person said since; ``tries``: how often it ended clearly and was to be made again.
    """

    announced: bool
    other: bool
    doubt: ToolIntended | None
    why: str
    decided: ReviewDecided | None
    tries: int


def standing(told: Iterable[Message], call: ToolCall) -> Standing:
    """How the write ``call`` stands, by what was ``told`` at its place, in order."""
    announced = other = asked = False
    doubt: ToolIntended | None = None
    decided: ReviewDecided | None = None
    why, tries = "", 0
    for one in told:
        if isinstance(one, ToolIntended):
            announced, other = True, other or not same(one.call, call)
            doubt, decided, why = one, None, ""
        elif isinstance(one, ToolCalled) and same(one.call, call):
            if one.failure is not None and one.failure.verdict is Verdict.EFFECT_IN_DOUBT:
                why = one.content
            elif one.ran or one.settled:
                doubt, tries = None, tries + (one.again and one.ran)
        elif isinstance(one, ReviewAsked):
            asked = same(one.call, call)
        elif isinstance(one, ReviewDecided) and asked:
            decided = one
    return Standing(announced, other, doubt, why, decided, tries)


def unsettled(told: Sequence[Message]) -> ToolIntended | None:
    """The write that was begun at a place, when nobody knows how it ended and nobody has decided."""
    last = next((one for one in reversed(told) if isinstance(one, ToolIntended)), None)
    if last is None:
        return None
    stand = standing(told, last.call)
    settled = stand.decided is not None and stand.decided.decision in (Decision.DONE, Decision.NOT_DONE)
    return None if settled else stand.doubt


def same(one: ToolCall, other: ToolCall) -> bool:
    """Whether two calls ask for the same; their ids are the provider's and say nothing."""
    return one.name == other.name and one.arguments == other.arguments
