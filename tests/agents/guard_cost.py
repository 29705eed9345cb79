"""What the guards cost: turns of one agent with all of them, and with inert ones in their place, in one process without a journal.

A turn is a model call that takes no time and one tool call with three arguments and a result of about 200 characters. The two are
measured by turns, many times, because anything else at work on the machine moves both; the ratio is that of the medians.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from agents import LocalDesk, Role, ScriptedModel, call, tool
from agents.loop import work
from protocols.budget import Limits
from protocols.chat import ModelRequest


@tool
async def look_up(name: str, place: dict[str, str], most: int) -> str:
    """Look something up."""
    return f"{most}: what is known of {name} in {place['city']}, " + "and so on, " * 15


def script(request: ModelRequest) -> Any:
    """As many calls as the name says, no two the same, then an answer."""
    turn = len(request.messages) // 2
    if turn > TURNS:
        return "That is all that is known."
    return call("look_up", name=f"Person No. {turn}", place={"city": "Leeds", "country": "UK"}, most=turn)


TURNS = 100
AGENT = Role("agent", instructions="Look things up.", tools=[look_up], limits=Limits(turns=200, model_calls=200, tool_calls=200))


class Inert:
    """Stands in for any guard and finds nothing."""

    def __init__(self, *given: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return _nothing


def _nothing(*given: Any, **named: Any) -> None: ...


@contextmanager
def unguarded() -> Iterator[None]:
    """Attempts begun in here have no limits and no guards."""
    with (
        mock.patch("agents.attempt.Meter", Inert),
        mock.patch("agents.attempt.Mistakes", Inert),
        mock.patch("agents.attempt.Repetition", Inert),
        mock.patch("agents.turn.written_call", _nothing),
    ):
        yield


def seconds() -> float:
    """How long one agent takes for all its turns."""
    model = ScriptedModel(script)
    began = time.perf_counter()
    assert asyncio.run(work(AGENT, "go", LocalDesk(), model)) == "That is all that is known."
    assert model.calls == TURNS + 1
    return time.perf_counter() - began


def main() -> None:
    """Print what a turn takes with and without guards."""
    parser = argparse.ArgumentParser("python -m tests.agents.guard_cost", description=__doc__)
    parser.add_argument("--times", type=int, default=40, help="how often each is measured (40)")
    times = parser.parse_args().times
    with_them, without = [], []
    for _ in range(times):
        with_them.append(seconds())
        with unguarded():
            without.append(seconds())
    guarded, plain = (statistics.median(one) / TURNS * 1e6 for one in (with_them, without))
    print(f"a turn takes {guarded:.0f} µs with guards and {plain:.0f} µs without: {guarded / plain - 1:+.1%} ({times} times {TURNS} turns)")


if __name__ == "__main__":
    main()
