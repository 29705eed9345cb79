"""The size of a model call: what it can use at most, and how short its reply may be where there is no room for a longer one."""

from typing import NamedTuple

from protocols.budget import Amount, Usage
from protocols.chat import Price

FEWEST_TOKENS = 64
"""A reply is not made shorter than this for want of room, unless its role asks for no more anyway."""
LEAST_SHARE = 4
"""Nor shorter than one part in so many of what its role asks for."""


def fewest(most: int, reserves: bool = False) -> int:
    """The fewest output tokens that a call which may have ``most`` of them is still made with; one that ``reserves`` room for a conclusion
    after it, with twice as many."""
    least = max(FEWEST_TOKENS, most // LEAST_SHARE)
    return min(most, 2 * least if reserves else least)


class CallSize(NamedTuple):
    """A call of so many input tokens, whose reply may have ``most`` output tokens and, where there is no room, only the ``least``."""

    tokens_in: int
    most: int
    least: int
    price: Price | None
    turns: int

    def need(self, tokens_out: int) -> Usage:
        """The worst case of the call when it may write so many tokens."""
        micros = 0 if self.price is None else self.price.cost(self.tokens_in, tokens_out)
        return Usage(input_tokens=self.tokens_in, output_tokens=tokens_out, micros=micros, model_calls=1, turns=self.turns)

    def within(self, room: Amount) -> int | None:
        """The most output tokens with which the call goes into ``room``; ``None`` when it does not even with the least."""
        tokens, micros, calls, _, turns = room
        if calls < 1 or turns < self.turns:
            return None
        out = min(self.most, tokens - self.tokens_in)
        if self.price is not None:
            # Costs are rounded up to a micro-unit, so what rounds up to the last one still fits.
            left = micros * 1_000_000 - self.tokens_in * self.price.input_micros
            out = min(out, left // self.price.output_micros) if self.price.output_micros else out if left >= 0 else -1
        return out if out >= self.least else None
