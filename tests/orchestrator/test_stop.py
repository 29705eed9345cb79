"""Runs that are stopped in good order: what was not used is given back, so that a run that can afford its work is done when it goes on."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from agents import Role, ScriptedModel, call, tool
from agents import say as text
from orchestrator import Board, RunResult, Team, open_journal
from orchestrator.coordinator import Coordinator
from orchestrator.fork import fork
from orchestrator.host import Host
from orchestrator.journal.allowances import Limit, Window, of_user
from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.ledger import RUN
from orchestrator.link import now
from orchestrator.models import Models
from orchestrator.observe.costs import By, Costs
from orchestrator.observe.history import glance, summarize
from orchestrator.replay import replay
from orchestrator.scheduler import EVERY
from protocols import codec
from protocols import messages as m
from protocols.budget import ZERO, Limits, amount
from protocols.chat import ModelRequest, Price
from protocols.failures import StorageError
from protocols.plan import Plan, Task
from tests.orchestrator.simulation import within_limits

PAGES = 6
PRICE = Price(input_micros=0, output_micros=1_000_000)
ONE, WORST = 25, 32
"""What a call costs, and may, in micros."""

under_way = threading.Semaphore(0)
"""Released by each call that does not end by itself."""


class Stuck:
    """How many calls end by themselves; the others wait for ever."""

    ends = 10**6
    hears_nothing = True


async def answer(asked: ModelRequest) -> Any:
    Stuck.ends -= 1
    if Stuck.ends < 0:
        under_way.release()
        await asyncio.Event().wait()
    return text("fine", input_tokens=9, output_tokens=ONE)


def reading(model: ScriptedModel | None = None, **settings: Any) -> Team:
    model = model or ScriptedModel(answer, price=PRICE)
    reader = Role("reader", instructions="Read.", input=str, output=str, model=model, max_output_tokens=WORST, concurrency=2)
    plan = Plan(tasks=tuple(Task(id=f"p{n}", role="reader", input=str(n)) for n in range(PAGES)))
    return Team("reading", [reader], planner=plan, **settings)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An empty journal."""
    return str(tmp_path / "journal.db")


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At first three calls end by themselves."""
    monkeypatch.setattr(Stuck, "ends", 3)
    monkeypatch.setattr(Stuck, "hears_nothing", True)
    monkeypatch.setattr(f"{__name__}.under_way", threading.Semaphore(0))


async def until_stuck(calls: int) -> None:
    for _ in range(calls):
        assert await asyncio.to_thread(under_way.acquire, True, 20)


async def begun(store: str, team: Team, **how: Any) -> str:
    """A run that is stopped while two of its calls are under way."""
    async with Board(runtime="inline", store=store) as board:
        handle = await board.start(team, **how)
        await until_stuck(2)
        return handle.run_id


async def resumed(store: str, run: str) -> RunResult:
    Stuck.ends = 10**6
    async with Board(runtime="inline", store=store) as board:
        return await (await board.resume(run)).result()


def lost(journal: Any, run: str) -> int:
    """The micros that the report of costs has as written off; its rows add up to the ledger."""
    costs = Costs(By.RUN)
    costs.add(journal, run)
    total = amount(costs.total().usage + costs.shared.total())
    assert total == replay(journal, run).ledger.accounts[RUN].settled
    return sum(row.usage.micros for row in costs.rows() if row.lost)


def test_a_run_that_is_stopped_pays_for_calls_under_way_and_is_done_within_its_budget(store: str) -> None:
    budget = PAGES * ONE + 2 * WORST + (WORST - ONE)
    run = asyncio.run(begun(store, reading(budget=Limits(micros=budget))))
    with closing(open_journal(store)) as journal:
        state = replay(journal, run)
        within_limits(state)
        account = state.ledger.accounts[RUN]
        assert (account.reserved, account.settled[1]) == (ZERO, 3 * ONE + 2 * WORST)
        assert lost(journal, run) == 0
        before = summarize(journal, run)
        assert (before.lost, before.usage.micros) == (0, account.settled[1])
    result = asyncio.run(resumed(store, run))
    assert (result.status, result.cost_micros) == (m.Status.DONE, PAGES * ONE + 2 * WORST)
    with closing(open_journal(store)) as journal:
        assert lost(journal, run) == 0
        assert replay(journal, run).ledger.accounts[RUN].settled == amount(result.usage)


def test_a_run_stopped_ever_so_often_is_not_given_up(store: str) -> None:
    async def again(run: str) -> None:
        async with Board(runtime="inline", store=store) as board:
            await board.resume(run)
            await until_stuck(2)

    async def often() -> RunResult:
        run = await begun(store, reading())
        for _ in range(6):
            await again(run)
        return await resumed(store, run)

    assert asyncio.run(often()).status is m.Status.DONE


def test_what_was_drawn_from_a_users_limit_is_there_for_others_while_a_run_is_stopped(store: str) -> None:
    with closing(open_journal(store)) as journal:
        journal.set_limits([Limit(of_user("ada"), Window.DAY, Limits(micros=1_000))])
    run = asyncio.run(begun(store, reading(), user="ada"))
    with closing(open_journal(store)) as journal:
        [standing] = journal.standings(now())
    assert (standing.used[1], standing.reserved[1]) == (3 * ONE + 2 * WORST, 0)
    assert asyncio.run(resumed(store, run)).status is m.Status.DONE
    with closing(open_journal(store)) as journal:
        [standing] = journal.standings(now())
        assert (standing.used[1], standing.reserved[1]) == (PAGES * ONE + 2 * WORST, 0)


class Failing(SqliteJournal):
    """A journal that can't be written any more."""

    full = False

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """See ``Journal.append``."""
        if self.full:
            raise StorageError("no space is left")
        super().append(entries, epochs)


@tool
async def deaf() -> str:
    """Does not hear that it is to stop."""
    under_way.release()
    while Stuck.hears_nothing:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
    return "done"


class Silent(Host):
    """A host that does not answer when it is to stop."""

    async def stop(self) -> Any:
        """See ``HostSide``."""
        await asyncio.Event().wait()


def stopped(journal: SqliteJournal, team: Team, calls: int, *, full: bool = False) -> None:
    async def stop() -> None:
        host = Host("host/test", EVERY, Models(), {"code": team.cast})
        silent = Silent("host/silent", EVERY, Models(), {"code": team.cast})
        host.capacity = silent.capacity = 2
        coordinator = Coordinator(journal, [host, silent])
        await coordinator.start()
        plan = team.plan(None)
        code = m.BlobRef(digest="code", size=0)
        asked = m.RunRequested(team=team.spec(), plan=m.Value(inline=plan.model_dump() if plan else None), budget=team.budget, code=code)
        await coordinator.submit("run-1", codec.pack(asked))
        await until_stuck(calls)
        journal.full = full  # type: ignore[attr-defined]
        await coordinator.stop()
        Stuck.hears_nothing = False
        await coordinator.close()
        for one in (host, silent):
            await one.close()

    asyncio.run(stop())


def test_a_failing_storage_does_not_keep_a_coordinator_from_ending_and_nothing_is_given_back(store: str) -> None:
    journal = Failing(store)
    stopped(journal, reading(budget=Limits(micros=1_000)), 2, full=True)
    assert any(replay(journal, "run-1").ledger.accounts[RUN].reserved)
    assert "AttemptsLost" not in {entry.tag for entry in journal.read("run-1")}
    journal.close()


def test_what_does_not_stop_keeps_what_it_holds(store: str) -> None:
    roles = [
        Role("deaf", instructions="Work.", tools=[deaf], model=ScriptedModel([call("deaf"), "done"], price=PRICE)),
        Role("reader", instructions="Read.", model=ScriptedModel(answer, price=PRICE), max_output_tokens=WORST),
    ]
    tasks = [Task(id=f"{role}{n}", role=role, input="x") for n in range(2) for role in ("deaf", "reader")]
    Stuck.ends = 0
    journal = SqliteJournal(store)
    stopped(journal, Team("both", roles, planner=Plan(tasks=tuple(tasks)), budget=Limits(micros=100_000_000)), 4)
    said = [codec.unpack(entry.body) for entry in journal.read("run-1")]
    given = {item.task: item.host for one in said if isinstance(one, m.Dispatched) for item in one.items}
    hears = {task for task, host in given.items() if task.startswith("reader") and host == "host/test"}
    assert {name for one in said if isinstance(one, m.AttemptsLost) and one.returned for name, _ in one.tasks} == hears
    accounts = replay(journal, "run-1").ledger.accounts
    assert {name for name in given if any(accounts[name].held)} == given.keys() - hears
    journal.close()


def test_a_fork_of_a_priced_run_pays_for_nothing_that_nobody_did(store: str) -> None:
    Stuck.ends = 10**6
    first = reading(budget=Limits(micros=PAGES * ONE + 2 * (WORST - ONE))).run_sync(runtime="inline", store=store)
    assert first.status is m.Status.DONE
    with closing(open_journal(store)) as journal:
        then = list(journal.read(first.run_id))
        at = next(entry.seq for entry in then if entry.tag == "ModelCalled")  # two are at work, with leases
        forked_at = now()
        new = fork(journal, first.run_id, at)
        assert not any(replay(journal, new).ledger.accounts[RUN].reserved)
    again = asyncio.run(resumed(store, new))
    assert (again.status, again.usage) == (first.status, first.usage)
    with closing(open_journal(store)) as journal:
        assert lost(journal, new) == 0
        [row] = [row for row in journal.runs() if row.run == new]
        for summary in (summarize(journal, new), glance(journal, row)):
            assert forked_at <= summary.began <= (summary.ended or 0)
            assert summary.lost == 0
