"""Hedged calls of whole runs, over real HTTP: the slow one's connection is closed, and the journal explains both."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from aiohttp import web
from click.testing import CliRunner

from agents import HttpModel, Role
from orchestrator import Board, Team, open_journal
from orchestrator.cli.command import commands
from orchestrator.playback import play
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.chat import Price
from tests.conftest import Endpoint, said

PRICE = Price(input_micros=1_000_000, output_micros=1_000_000)


class Silent(Endpoint):
    """Says nothing to its first request until that is given up, or another run has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up, self.speaks = threading.Event(), False

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        first = len(self.requests) == 1
        while first and not self.speaks:
            if request.transport is None or request.transport.is_closing():
                self.given_up.set()
                break
            await asyncio.sleep(0.01)
        return web.json_response(said("7"))


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    made.start()
    yield made
    made.speaks = True
    made.stop()


def told(store: str, run: str) -> list[m.Message]:
    with closing(open_journal(store)) as journal:
        return [codec.unpack(entry.body) for entry in journal.read(run)]


def test_a_silent_call_is_made_twice_and_its_connection_closed(runtime: str, store: str, silent: Silent) -> None:
    role = Role("asker", output=int, model=HttpModel(silent.url, "m", price=PRICE), max_output_tokens=64, hedge_after=0.1)
    team = Team("askers", [role], budget=Limits(micros=10_000))
    result = team.run_sync("go", runtime=runtime, store=store)
    assert (result.status, result.output) == (m.Status.DONE, 7)
    assert silent.given_up.wait(10)
    assert silent.requests[0] == silent.requests[1]
    lost, won = (one for one in told(store, result.run_id) if isinstance(one, m.ModelCalled))
    assert (lost.hedged, lost.failure is None, won.hedged, won.step) == (True, False, True, lost.step)
    assert (lost.usage.output_tokens, won.usage.micros) == (64, PRICE.cost(10, 5))
    assert result.cost_micros == lost.usage.micros + won.usage.micros
    assert "one of two at once" in CliRunner().invoke(commands, ["trace", result.run_id, "--store", store]).output
    with closing(open_journal(store)) as journal:
        played = asyncio.run(play(journal, result.run_id, team))
    assert (played.divergences, len(silent.requests)) == ((), 2)


def test_without_room_for_a_second_call_the_first_is_waited_for(store: str, silent: Silent) -> None:
    async def ended() -> str:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(team, "go")
            async for entry in handle.events():
                if isinstance(entry.body, m.LeaseDenied):
                    silent.speaks = True
            return (await handle.result()).run_id

    role = Role("asker", output=int, model=HttpModel(silent.url, "m", price=PRICE), max_output_tokens=64, hedge_after=0.05)
    team = Team("askers", [role], budget=Limits(model_calls=1))
    found = told(store, asyncio.run(ended()))
    assert [one.now for one in found if isinstance(one, m.LeaseAsked)] == [False, True]
    (call,) = (one for one in found if isinstance(one, m.ModelCalled))
    assert (call.hedged, call.failure, len(silent.requests)) == (False, None, 1)
    assert isinstance(found[-1], m.RunEnded)
    assert found[-1].status is m.Status.DONE
