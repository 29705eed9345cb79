"""What a run does, on both runtimes: the same tests, inline and on Ray."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agents import HttpModel, Role
from orchestrator import Board, Team, best_of, only, reduce, synthesise, vote
from orchestrator.journal import open_journal
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.failures import BadInput, Verdict
from protocols.messages import Status
from protocols.plan import Plan, Task, ref
from tests.cluster.cast import Done, counter, doubler, marks, talker, worker
from tests.conftest import Endpoint, said


def jobs(count: int, **settings: Any) -> Plan:
    return Plan(tasks=tuple(Task(id=f"t{n}", role="worker", input={"name": f"t{n}", **settings}) for n in range(count)))


def doubles(count: int, **settings: Any) -> Team:
    plan = Plan(tasks=tuple(Task(id=f"d{n}", role="doubler", input=n) for n in range(count)))
    return Team("doubles", [doubler], planner=plan, **settings)


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that only the outside can see."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def test_results_are_typed_and_in_plan_order(runtime: str, store: str) -> None:
    result = Team("jobs", [worker], planner=jobs(30)).run_sync(runtime=runtime, store=store)
    assert result.status is Status.DONE
    assert result.output == [Done(name=f"t{n}") for n in range(30)]
    assert [task.status for task in result.tasks] == ["done"] * 30


def test_a_team_of_one_role_takes_its_goal_as_it_is(runtime: str, store: str) -> None:
    assert Team("one", [doubler]).run_sync(21, runtime=runtime, store=store).output == 42


def test_outputs_flow_along_the_plan(runtime: str, store: str) -> None:
    def plan(names: list[str]) -> Plan:
        tasks = [Task(id=name, role="worker", input={"name": name}) for name in names]
        return Plan(tasks=(*tasks, Task(id="count", role="counter", input=[ref(name) for name in names])))

    result = Team("counted", [worker, counter], planner=plan, merge=only()).run_sync(["a", "b", "c"], runtime=runtime, store=store)
    assert result.output == 3


def test_large_outputs_travel_by_digest(runtime: str, store: str) -> None:
    plan = Plan(tasks=(*jobs(3, size=300_000).tasks, Task(id="count", role="counter", input=[ref(f"t{n}") for n in range(3)])))
    result = Team("large", [worker, counter], planner=plan, merge=only()).run_sync(runtime=runtime, store=store)
    assert result.output == 3
    assert max(len(entry.body) for entry in open_journal(store).read(result.run_id)) < 10_000


def test_merges_reduce_vote_and_choose(runtime: str, store: str) -> None:
    async def all_of_them() -> list[Any]:
        async with Board(runtime=runtime, store=store) as board:
            merges = [reduce(sum, fan_in=3), best_of(lambda value: -abs(value - 10), fan_in=4), vote(), vote(quorum=0.4)]
            handles = [await board.start(doubles(20, merge=merge)) for merge in merges]
            same = Team("same", [doubler], planner=Plan(tasks=tuple(Task(id=f"d{n}", role="doubler", input=n % 2) for n in range(5))))
            handles.append(await board.start(Team(same.name, same.roles, planner=same.planner, merge=vote(quorum=0.5))))
            return [await handle.result() for handle in handles]

    total, best, undecided, short, agreed = asyncio.run(all_of_them())
    assert total.output == sum(2 * n for n in range(20))
    assert best.output == 10
    assert undecided.status is short.status is Status.FAILED
    assert undecided.failure is not None
    assert undecided.failure.verdict is Verdict.UNDECIDED
    assert agreed.output == 0


def test_a_synthesiser_merges_lists_in_a_tree(runtime: str, store: str) -> None:
    def joined(parts: list[int | str]) -> str:
        assert len(parts) <= 4
        return "+".join(str(part) for part in parts)

    writer = Role("writer", input=list[int | str], output=str, run=joined)
    result = doubles(10, merge=synthesise(writer, fan_in=4)).run_sync(runtime=runtime, store=store)
    assert result.output == "0+2+4+6+8+10+12+14+16+18"


def test_a_failed_task_makes_the_run_partial_and_says_why(runtime: str, store: str) -> None:
    plan = Plan(tasks=(*jobs(2).tasks, Task(id="bad", role="worker", input={"name": "bad", "fail": True})))
    result = Team("partly", [worker], planner=plan).run_sync(runtime=runtime, store=store)
    assert result.status is Status.PARTIAL
    assert result.output == [Done(name="t0"), Done(name="t1")]
    assert result.failure is not None
    assert "bad was told to fail" in result.failure.message


def test_events_are_the_journal_and_pieces_of_output(runtime: str, store: str) -> None:
    async def listen() -> list[Any]:
        handle = await Team("talk", [talker]).start("some words here", runtime=runtime, store=store)
        heard = [envelope async for envelope in handle.events()]
        await handle.close()
        return heard

    heard = asyncio.run(listen())
    stored = [envelope for envelope in heard if envelope.seq]
    assert [envelope.seq for envelope in stored] == list(range(1, len(stored) + 1))
    assert isinstance(stored[0].body, m.RunRequested)
    assert isinstance(stored[-1].body, m.RunEnded)
    assert "".join(envelope.body.text for envelope in heard if not envelope.seq) == "somewordshere"
    journal = open_journal(store)
    assert [entry.seq for entry in journal.read(heard[0].run)] == [envelope.seq for envelope in stored]


def test_cancel_reaches_every_agent_and_nothing_starts_after_it(runtime: str, store: str, tmp_path: Path) -> None:
    async def cancelled() -> tuple[Any, float]:
        path = str(tmp_path / "marks")
        async with Board(runtime=runtime, store=store) as board:
            team = Team("slow", [worker], planner=jobs(200, seconds=30.0, path=path))
            handle = await board.start(team)
            await until(lambda: len(marks(tmp_path / "marks")) >= 100)
            began = time.monotonic()
            await handle.cancel("changed my mind")
            result = await handle.result()
            return result, time.monotonic() - began

    result, seconds = asyncio.run(cancelled())
    assert result.status is Status.CANCELLED
    assert result.failure is not None
    assert result.failure.message == "changed my mind"
    assert seconds < 5


def test_a_run_that_takes_longer_than_its_seconds_is_ended(runtime: str, store: str) -> None:
    team = Team("slow", [worker], planner=jobs(5, seconds=30.0), budget=Limits(seconds=1.0))
    began = time.monotonic()
    result = team.run_sync(runtime=runtime, store=store)
    assert result.status is Status.BUDGET
    assert result.failure is not None
    assert result.failure.verdict is Verdict.DEADLINE
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("calls", [1, 7, 64, 100])
def test_64_agents_never_make_more_model_calls_than_the_run_may(runtime: str, store: str, endpoint: Endpoint, calls: int) -> None:
    asker = Role("asker", instructions="Answer.", input=str, output=str, model=HttpModel(endpoint.url, "m"))
    plan = Plan(tasks=tuple(Task(id=f"a{n}", role="asker", input=f"question {n}") for n in range(64)))
    team = Team("askers", [asker], planner=plan, budget=Limits(model_calls=calls))
    result = team.run_sync(runtime=runtime, store=store)
    assert len(endpoint.requests) == min(calls, 64)
    assert result.usage.model_calls == len(endpoint.requests)
    if calls < 64:
        assert result.status is Status.BUDGET
        assert result.failure is not None
        assert "model calls of the run" in result.failure.message
    else:
        assert result.status is Status.DONE


def test_a_killed_host_loses_nothing_and_doubles_nothing(cluster: None, store: str, tmp_path: Path) -> None:
    path = tmp_path / "marks"

    async def killed() -> Any:
        async with Board(runtime="ray", store=store) as board:
            handle = await board.start(Team("jobs", [worker], planner=jobs(40, seconds=1.0, path=str(path))))
            await until(lambda: len(marks(path)) >= 40)
            began.update(line.split() for line in path.read_text().splitlines())
            os.kill(int(began["t0"]), signal.SIGKILL)
            return await handle.result()

    began: dict[str, str] = {}
    result = asyncio.run(killed())
    assert result.status is Status.DONE
    assert [done.name for done in result.output] == [f"t{n}" for n in range(40)]
    lost = {name for name, process in began.items() if process == began["t0"]}
    assert Counter(marks(path)) == {name: 2 if name in lost else 1 for name in began}
    assert [task.attempts for task in result.tasks] == [2 if f"t{n}" in lost else 1 for n in range(40)]


def test_a_killed_coordinator_comes_back_and_takes_what_its_hosts_did_meanwhile(cluster: None, store: str, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    quick, slow = jobs(20, path=str(path)), jobs(10, path=str(path), seconds=3.0)
    plan = Plan(tasks=(*quick.tasks, *(task.model_copy(update={"id": f"slow/{task.id}"}) for task in slow.tasks)))

    async def killed() -> Any:
        async with Board(runtime="ray", store=store) as board:
            handle = await board.start(Team("jobs", [worker], planner=plan))
            ended = 0
            async for envelope in handle.events():
                ended += isinstance(envelope.body, m.TaskEnded)
                if ended == 20:
                    break
            for process in psutil.Process().children(recursive=True):
                if process.name().startswith("ray::Coord") or "Coordinator" in " ".join(process.cmdline()[:1]):
                    process.kill()
            return await handle.result()

    result = asyncio.run(killed())
    assert result.status is Status.DONE
    assert len(result.output) == 30
    assert Counter(Counter(marks(path)).values()) == {1: 10, 2: 10}
    assert [task.attempts for task in result.tasks] == [1] * 30


def test_a_run_whose_process_ended_is_resumed_and_nothing_done_is_redone(runtime: str, store: str, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    plan = Plan(
        tasks=(*jobs(5, path=str(path)).tasks, Task(id="slow", role="worker", input={"name": "slow", "seconds": 2.0, "path": str(path)}))
    )
    team = Team("jobs", [worker], planner=plan)

    async def begin() -> str:
        async with Board(runtime=runtime, store=store) as board:
            handle = await board.start(team)
            ended = 0
            async for envelope in handle.events():
                ended += isinstance(envelope.body, m.TaskEnded)
                if ended == 5:
                    return handle.run_id
        raise AssertionError

    async def carry_on(run: str) -> Any:
        async with Board(runtime=runtime, store=store) as board:
            return await (await board.resume(run)).result()

    result = asyncio.run(carry_on(asyncio.run(begin())))
    assert result.status is Status.DONE
    assert Counter(marks(path)) == {"t0": 1, "t1": 1, "t2": 1, "t3": 1, "t4": 1, "slow": 2}


def test_paid_replies_are_read_back_after_a_resume(runtime: str, store: str, endpoint: Endpoint) -> None:
    def answer(request: dict[str, Any]) -> Any:
        turns = sum(message["role"] == "assistant" for message in request["messages"])
        if turns == 2:
            return hold()
        return said("", [("note", {"text": f"note {turns}"})]) if turns < 2 else said("done")

    async def hold() -> Any:
        await asyncio.sleep(0 if held.is_set() else 600)
        return said("all done")

    held = asyncio.Event()
    endpoint.answer = answer
    noter = Role("noter", instructions="Note.", input=str, output=str, tools=[note], model=HttpModel(endpoint.url, "m"))

    async def begin() -> str:
        async with Board(runtime=runtime, store=store) as board:
            # three calls, and the one that is under way when the board is closed
            handle = await board.start(Team("notes", [noter]), "go", budget=Limits(model_calls=4))
            async for envelope in handle.events():
                if isinstance(envelope.body, m.ToolCalled) and envelope.body.step >= 3:
                    return handle.run_id
        raise AssertionError

    async def carry_on(run: str) -> Any:
        async with Board(runtime=runtime, store=store) as board:
            return await (await board.resume(run)).result()

    run = asyncio.run(begin())
    held.set()
    result = asyncio.run(carry_on(run))
    assert result.output == "all done"
    turns = Counter(sum(message["role"] == "assistant" for message in request["messages"]) for request in endpoint.requests)
    assert turns[0] == turns[1] == 1


def note(text: str) -> str:
    """Keep a note."""
    return f"kept {text}"


def test_bad_input_is_refused_before_anything_is_stored(runtime: str, store: str) -> None:
    with pytest.raises(BadInput, match="valid integer"):
        Team("one", [doubler]).run_sync("x", runtime=runtime, store=store)
    assert open_journal(store).runs() == []


def test_the_ledger_never_passes_a_limit_at_any_entry_of_the_journal(runtime: str, store: str, endpoint: Endpoint) -> None:
    from orchestrator import reducer
    from protocols.envelope import Envelope
    from tests.orchestrator.simulation import fetch, within_limits

    asker = Role("asker", instructions="Answer.", input=str, output=str, model=HttpModel(endpoint.url, "m"))
    plan = Plan(tasks=tuple(Task(id=f"a{n}", role="asker", input=f"question {n}") for n in range(30)))
    result = Team("askers", [asker], planner=plan, budget=Limits(model_calls=20, tokens=40_000)).run_sync(runtime=runtime, store=store)
    state = None
    for entry in open_journal(store).read(result.run_id):
        body = codec.unpack(entry.body)
        if state is None:
            assert isinstance(body, m.RunRequested)
            state = reducer.begin(entry.run, entry.at, body)
        state, _ = reducer.step(state, Envelope(entry.run, entry.seq, entry.at, body), fetch)
        within_limits(state)
    assert state is not None
    assert state.spent() == result.usage
    assert state.ledger.accounts[""].reserved == (0, 0, 0, 0, 0)


def test_a_model_for_a_team_that_uses_none_is_refused(store: str) -> None:
    with pytest.raises(BadInput, match="no role of team 'one' uses a model"):
        Team("one", [doubler]).run_sync(1, runtime="inline", store=store, model="embedded")
