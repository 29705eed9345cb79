"""Coordinators that die and are followed by another, while hosts work on: nothing at work is lost, and nothing is done twice."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents import Context, Role, ScriptedModel, call, role, tool
from orchestrator import Team, code
from orchestrator.coordinator import Coordinator
from orchestrator.host import Host
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.link import LinkDown
from orchestrator.models import Models
from orchestrator.replay import replay
from orchestrator.scheduler import EVERY
from orchestrator.sides import Attached, Place
from orchestrator.turnstile import REST_SECONDS
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits, amount
from protocols.chat import Throttling
from protocols.failures import StaleEpoch
from protocols.plan import Plan, Task
from tests.orchestrator.simulation import within_limits

RUN = "run-1"
done: Counter[str] = Counter()


@tool(effect="write")
async def write(name: str, context: Context) -> str:
    """Write a name."""
    done[f"write {context.key}"] += 1
    await asyncio.sleep(0.01)
    return f"wrote {name}"


def reply(request: Any) -> Any:
    done[f"model {request.place}"] += 1
    turns = sum(message.role == "tool" for message in request.messages)
    return call("write", name=f"n{turns}") if turns < 3 else "finished"


@role
async def helper(number: int) -> int:
    done[f"helper {number}"] += 1
    await asyncio.sleep(0.02)
    return number


@role(delegates=["helper"])
async def boss(number: int, context: Context) -> int:
    done[f"boss {number}"] += 1
    asked = [Task(id=f"{context.task}/{n}", role="helper", input=10 * number + n) for n in range(2)]
    return sum(outcome.output for outcome in await context.delegate(asked))


class Scarce(ScriptedModel):
    """A model of which few calls may be under way at once; one ends when there is room in ``gate``."""

    throttling = Throttling(concurrency=2)
    gate = asyncio.Semaphore(1_000_000)
    under_way = 0

    async def complete(self, request: Any, on_text: Any = None) -> Any:
        Scarce.under_way += 1
        try:
            assert Scarce.under_way <= 2, "each coordinator knows what the one before it let begin"
            async with Scarce.gate:
                return await super().complete(request, on_text)
        finally:
            Scarce.under_way -= 1


BUDGET = Limits(tokens=1_000_000, tool_calls=60)


def team(model: type[ScriptedModel] = ScriptedModel, budget: Limits = BUDGET) -> Team:
    writer = Role("writer", instructions="Write.", input=str, output=str, tools=[write], model=model(reply, latency=0.01))
    tasks = [Task(id=f"w{n}", role="writer", input=str(n)) for n in range(6)]
    tasks += [Task(id=f"b{n}", role="boss", input=n) for n in range(1, 5)]
    tasks += [Task(id="last", role="boss", input=9, after=tuple(task.id for task in tasks))]
    return Team("both", [writer, boss, helper], planner=Plan(tasks=tuple(tasks)), budget=budget)


class Between:
    """A host as coordinators reach it, and coordinators as the host does, over a line that loses what is answered."""

    def __init__(self, host: Host, dice: random.Random) -> None:
        self.name, self.pool, self.capacity = host.name, host.pool, host.capacity
        self._host, self._dice = host, dice
        self._to: Coordinator | None = None

    async def attach(self, coordinator: str, side: Any, born: int, wanted: tuple[Place, ...] = ()) -> Attached:
        self._to = side
        return await self._host.attach(coordinator, self, born, wanted)

    async def ping(self) -> str:
        return await self._host.ping()

    async def deliver(self, *arguments: Any) -> int:
        if isinstance(arguments[0], bytes):  # down
            taken = await self._host.deliver(*arguments)
        else:
            assert self._to is not None
            taken = await self._to.deliver(*arguments)
        if self._dice.random() < 0.3:
            raise LinkDown("the answer was lost")
        return taken

    async def put_blob(self, data: bytes) -> m.BlobRef:
        assert self._to is not None
        return await self._to.put_blob(data)

    async def get_blob(self, digest: str) -> bytes:
        assert self._to is not None
        return await self._to.get_blob(digest)


async def with_deaths(path: Path, seed: int, budget: Limits = BUDGET) -> tuple[m.Status, int]:
    """The run's end, and how many coordinators died before it."""
    dice, made = random.Random(seed), team(Scarce if seed % 2 else ScriptedModel, budget)
    teams: dict[str, code.Roles] = {}  # shared as they are: what is unpickled would count for itself
    hosts = [Between(Host(f"host/{n}", EVERY, Models(), teams), dice) for n in range(2)]
    deaths = 0
    while True:
        journal = SqliteJournal(path)
        coordinator = Coordinator(journal, hosts, owner="us")
        await coordinator.start()
        if not deaths:
            ref = await coordinator.put_blob(code.pack(made.cast))
            teams[ref.digest] = made.cast
            plan = made.plan(None)
            asked = m.RunRequested(team=made.spec(), plan=m.Value(inline=plan.model_dump() if plan else None), budget=made.budget, code=ref)
            await coordinator.submit(RUN, codec.pack(asked))
        await coordinator.resume(RUN)  # it may have ended with the coordinator before
        ended = await coordinator.wait(RUN, dice.uniform(0.0, 0.08) if deaths < 8 else 20)
        await coordinator.close()
        if ended or deaths == 8:
            assert ended
            state = replay(journal, RUN)
            within_limits(state)
            assert not any(account.held != (0,) * 5 or account.reserved != (0,) * 5 for account in state.ledger.accounts.values())
            assert state.ledger.accounts[""].settled == amount(state.spent())
            for between in hosts:
                await between._host.close()
            journal.close()
            return state.status, deaths
        deaths += 1


@pytest.mark.parametrize("seed", range(6))
def test_coordinators_follow_each_other_and_nothing_is_done_twice(tmp_path: Path, seed: int) -> None:
    done.clear()
    status, deaths = asyncio.run(with_deaths(tmp_path / "journal.db", seed))
    assert status is m.Status.DONE
    assert deaths
    assert {name: count for name, count in done.items() if count != 1} == {}
    assert len(done) == 6 * (3 + 4) + 5 * (1 + 2)
    tags = [entry.tag for entry in SqliteJournal(tmp_path / "journal.db").read(RUN)]
    assert 0 < tags.count("RunResumed") <= deaths
    assert tags.count("AttemptsLost") == 0


def test_what_an_earlier_coordinator_let_begin_counts_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> m.Status:
        monkeypatch.setattr(Scarce, "gate", asyncio.Semaphore(0))
        journal, made, teams = SqliteJournal(tmp_path / "journal.db"), team(Scarce), dict[str, code.Roles]()
        hosts = [Host(f"host/{n}", EVERY, Models(), teams) for n in range(2)]
        first = Coordinator(journal, hosts, owner="us")
        await first.start()
        ref = await first.put_blob(code.pack(made.cast))
        teams[ref.digest] = made.cast
        await first.submit(RUN, codec.pack(m.RunRequested(team=made.spec(), plan=m.Value(inline=made.planner.model_dump()), code=ref)))
        async with asyncio.timeout(20):
            while Scarce.under_way < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await first.close()
        second = Coordinator(journal, hosts, owner="us")
        await second.start()
        await asyncio.sleep(1.2 * REST_SECONDS)
        assert Scarce.under_way == 2
        for _ in range(10_000):
            Scarce.gate.release()
        assert await second.wait(RUN, 20)
        await second.close()
        for host in hosts:
            await host.close()
        return replay(journal, RUN).status

    assert asyncio.run(run()) is m.Status.DONE


def test_a_coordinator_that_comes_to_late_is_refused_by_hosts_and_journal(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host("host/test", EVERY, Models(), {})
        first = Coordinator(SqliteJournal(tmp_path / "journal.db"), [host], owner="us")
        await first.start()
        made = team()
        plan = made.plan(None)
        ref = await first.put_blob(code.pack(made.cast))
        await first.submit(RUN, codec.pack(m.RunRequested(team=made.spec(), plan=m.Value(inline=plan.model_dump()), code=ref)))
        await asyncio.sleep(0.02)
        second = Coordinator(SqliteJournal(tmp_path / "journal.db"), [host], owner="us")  # while the first still works
        await second.start()
        with pytest.raises(StaleEpoch):
            await first.cancel(RUN, "by the one that is gone")
        with pytest.raises(StaleEpoch):
            await host.attach("the old one", first, 0)
        assert await second.wait(RUN, 20)
        await first.close()
        await second.close()
        await host.close()

    asyncio.run(run())
    entries = list(SqliteJournal(tmp_path / "journal.db").read(RUN))
    assert "CancelRequested" not in {entry.tag for entry in entries}
    ended = codec.unpack(entries[-1].body)
    assert isinstance(ended, m.RunEnded)
    assert ended.status is m.Status.DONE
