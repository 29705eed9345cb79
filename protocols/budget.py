"""What work may cost and what it did cost: integer counts, never floats."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from protocols.record import Record

MICROS_PER_UNIT = 1_000_000


class Usage(Record):
    """What was used, or is asked for. ``micros`` is money in millionths of a currency unit."""

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    micros: int = Field(default=0, ge=0)
    model_calls: int = Field(default=0, ge=0)
    tool_calls: int = Field(default=0, ge=0)
    turns: int = Field(default=0, ge=0)

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            micros=self.micros + other.micros,
            model_calls=self.model_calls + other.model_calls,
            tool_calls=self.tool_calls + other.tool_calls,
            turns=self.turns + other.turns,
        )


NOTHING = Usage()


@dataclass(slots=True)
class Tally:
    """A sum of usages that is added to often: plain integers until somebody asks for the ``Usage``."""

    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0, 0])

    def add(self, used: Usage) -> None:
        """Add one usage."""
        counts = self.counts
        counts[0] += used.input_tokens
        counts[1] += used.output_tokens
        counts[2] += used.micros
        counts[3] += used.model_calls
        counts[4] += used.tool_calls
        counts[5] += used.turns

    def total(self) -> Usage:
        """The sum so far."""
        if not any(self.counts):
            return NOTHING
        given, made, micros, calls, tools, turns = self.counts
        return Usage(input_tokens=given, output_tokens=made, micros=micros, model_calls=calls, tool_calls=tools, turns=turns)


class Limits(Record):
    """The most that may be used; ``None`` is no limit. ``micros`` as in ``Usage``; ``seconds`` is wall time; ``subtasks`` are the tasks
    that are delegated below, at any depth."""

    tokens: int | None = Field(default=None, ge=0)
    micros: int | None = Field(default=None, ge=0)
    model_calls: int | None = Field(default=None, ge=0)
    tool_calls: int | None = Field(default=None, ge=0)
    turns: int | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    subtasks: int | None = Field(default=None, ge=0)


UNLIMITED = Limits()


def narrowed(limits: Limits, by: Limits | None) -> Limits:
    """In each dimension the smaller of both."""
    if by is None:
        return limits
    given = by.model_dump(exclude_none=True)
    return limits.model_copy(update={name: value for name, value in given.items() if (had := getattr(limits, name)) is None or value < had})


COUNTED = ("tokens", "micros", "model_calls", "tool_calls", "turns")
"""The dimensions that add up; a vector of them is how the ledger and the leases count."""

SPOKEN = ("tokens", "money", "model calls", "tool calls", "turns")
"""The same, as people are told of them."""

Amount = tuple[int, int, int, int, int]
"""One integer for each of ``COUNTED``, in that order."""

ZERO: Amount = (0, 0, 0, 0, 0)
PLENTY = 1 << 60
"""What there is of a dimension without a limit."""


def lasted(began: int, ended: int, until: int) -> int:
    """How long something took that began and ended then (milliseconds), but for what of it was counted ``until`` another moment."""
    return max(ended - max(began, until), 0)


def money(micros: int) -> str:
    """Millionths of a currency unit, exactly, with at least two decimals: ``1_234`` is ``$0.001234``."""
    whole, rest = divmod(micros, MICROS_PER_UNIT)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"${whole:,}.{decimals}"


def spoken(place: int, number: int) -> str:
    """So many of the dimension at this place in ``COUNTED``, as people say it: ``$0.0005``, ``1 model call``."""
    if COUNTED[place] == "micros":
        return money(number)
    return f"{number:,} {SPOKEN[place].removesuffix('s') if number == 1 else SPOKEN[place]}"


def amount(usage: Usage) -> Amount:
    """The usage as a vector in the order of ``COUNTED``."""
    return (
        usage.input_tokens + usage.output_tokens,
        usage.micros,
        usage.model_calls,
        usage.tool_calls,
        usage.turns,
    )


def room(limits: Limits, used: Sequence[int]) -> Amount:
    """What is left of limits, dimension by dimension."""
    tokens, micros, models, tools, turns = (
        PLENTY if (limit := getattr(limits, name)) is None else max(limit - used[place], 0) for place, name in enumerate(COUNTED)
    )
    return (tokens, micros, models, tools, turns)
