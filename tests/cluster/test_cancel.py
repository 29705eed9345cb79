"""Cancelling reaches everything that a run has at work, however deep: agents, sockets, programs, leases, people's time."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil

from agents import Context, HttpModel, Role, ScriptedModel, call, role, tool
from agents.process import run as run_program
from orchestrator import Board, Team, open_journal
from orchestrator.replay import replay
from protocols import codec
from protocols import messages as m
from protocols.budget import ZERO, Limits
from protocols.failures import Verdict
from protocols.messages import Status
from protocols.plan import Plan, Task
from tests.cluster.cast import mark, marks, stubborn
from tests.conftest import Endpoint
from tests.conftest import said as said_by_model

LARGE = 60_000
"""Tokens that one asker reserves; two do not fit into the budget, so that the second waits for a lease."""


@tool(timeout=600)
async def wait(path: str) -> str:
    """Run a program that waits, and one below it."""
    script = 'sleep 1000 & echo "$0 $$" >> "$0.pids"; echo "$0 $!" >> "$0.pids"; wait'
    return (await run_program("sh", "-c", script, path)).stdout


@tool(effect="write", timeout=600)
def block(path: str) -> str:
    """Write to the other side, in a thread that nobody can stop."""
    mark(f"{path}.blocked", "block")
    while not Path(f"{path}.released").exists():
        time.sleep(0.05)
    return "written"


@tool(effect="write")
async def pay(path: str) -> str:
    """Pay, and never hear whether it was taken."""
    mark(f"{path}.paid", "pay")
    raise ConnectionError("the line is dead")


@tool(timeout=600)
async def deaf(path: str) -> str:
    """Catch the cancelling, and answer as if nothing had been said."""
    mark(f"{path}.deaf", "deaf")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        return "go on"
    return "never"


@role(delegates=["middle"])
async def lead(path: str, context: Context) -> str:
    """The uppermost of three levels."""
    return str(await context.delegate([Task(id="lead/middle", role="middle", input=path)]))


@role(delegates=["asker", "later", "waits", "blocks", "pays", "is_deaf"])
async def middle(path: str, context: Context) -> str:
    """The one between, with everybody who waits for something below it."""
    below = ["asker", "later", *TOOLS]
    return str(await context.delegate([Task(id=f"{context.task}/{n}", role=name, input=path) for n, name in enumerate(below)]))


@role(delegates=["asker"])
async def later(path: str, context: Context) -> str:
    """Asks for what there is no room for, when the others have what they need: asks are answered in order."""
    while not all(Path(f"{path}.{what}").exists() for what in ("pids", "blocked", "deaf", "paid")):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return str(await context.delegate([Task(id=f"{context.task}/asks", role="asker", input=f"{path} again")]))


TOOLS = {"waits": wait, "blocks": block, "pays": pay, "is_deaf": deaf}


def team(url: str, seconds: float | None = None) -> Team:
    asker = Role("asker", input=str, output=str, model=HttpModel(url, "m"), max_output_tokens=LARGE)

    def caller(name: str) -> Role:
        model = ScriptedModel(lambda request: call(TOOLS[name].name, path=request.messages[-1].content), name=name)
        return Role(name, input=str, output=str, tools=[TOOLS[name]], model=model, max_output_tokens=100)

    return Team(
        "deep", [lead, middle, later, asker, *map(caller, TOOLS)], planner=one, budget=Limits(tokens=LARGE * 3 // 2, seconds=seconds)
    )


def one(path: str) -> Plan:
    return Plan(tasks=(Task(id="lead", role="lead", input=path),))


def said(store: str, run: str) -> list[tuple[int, m.Message]]:
    with closing(open_journal(store)) as journal:
        return [(entry.at, codec.unpack(entry.body)) for entry in journal.read(run)]


def connected(endpoint: Endpoint) -> int:
    """How many connections to the endpoint are open, as it sees them itself."""
    port = int(endpoint.address.rpartition(":")[2])
    return sum(one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED for one in psutil.Process().net_connections("tcp"))


@contextmanager
def hanging(endpoint: Endpoint) -> Iterator[None]:
    """No request is answered inside."""
    over = threading.Event()

    async def hang() -> Any:
        while not over.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return said_by_model("too late")

    endpoint.answer = lambda request: hang()
    try:
        yield
    finally:
        over.set()


def programs(path: str) -> list[int]:
    file = Path(f"{path}.pids")
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def runs(pid: int) -> bool:
    """Whether this process is at work; one that has ended may still be listed until its parent takes note."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def in_place(store: str, run: str, path: str, endpoint: Endpoint) -> bool:
    """Whether everybody waits for what they wait for, or the run has ended already."""
    told = [message for _, message in said(store, run)]
    asked = {one.task for one in told if isinstance(one, m.LeaseAsked)} - {one.task for one in told if isinstance(one, m.LeaseGranted)}
    waits = len(programs(path)) == 2 and marks(Path(f"{path}.blocked")) and marks(Path(f"{path}.deaf"))
    reviewed = any(isinstance(one, m.ReviewAsked) for one in told)
    return bool(waits and reviewed and asked and connected(endpoint)) or isinstance(told[-1], m.RunEnded)


def nothing_is_left(store: str, run: str, path: str, cause: type[m.Message]) -> float:
    """Check what a run that was stopped leaves behind; returns how long it took, in seconds."""
    told = said(store, run)
    [asked] = [at for at, message in told if isinstance(message, (m.CancelRequested, m.DeadlinePassed))]
    [ended] = [at for at, message in told if isinstance(message, m.RunEnded)]
    assert [cause] == [type(message) for at, message in told if at == asked and isinstance(message, cause)]
    assert isinstance(told[-1][1], m.RunEnded)
    assert len(programs(path)) == 2
    doubts = [one for _, one in told if isinstance(one, m.ToolCalled) and one.failure and one.failure.verdict is Verdict.EFFECT_IN_DOUBT]
    assert {one.call.name for one in doubts} == {"block", "pay"}
    assert not any(isinstance(message, m.AttemptsLost) for _, message in told)
    with closing(open_journal(store)) as journal:
        state = replay(journal, run)
    assert (state.at_work, state.leaving, state.in_review, len(state.asks)) == (0, 0, 0, 0)
    assert {(account.reserved, account.held) for account in state.ledger.accounts.values()} == {(ZERO, ZERO)}
    stopped = {one.task for _, one in told if isinstance(one, m.TaskEnded) and one.failure}
    assert stopped == {name for name in state.tasks if name.startswith("lead")}
    return (ended - asked) / 1000


async def by_command(run: str, store: str) -> None:
    """Cancel as a person would, in another process."""
    words = ["-m", "orchestrator.cli", "cancel", run, "--store", store]
    done = await run_program(sys.executable, *words, timeout=60)
    assert done.exit_code == 0, done.stderr
    assert "was cancelled (cancelled)" in done.stderr


def test_cancelling_by_any_way_leaves_nothing_at_work(runtime: str, store: str, tmp_path: Path, endpoint: Endpoint) -> None:
    async def stopped(board: Board, way: str) -> None:
        path = str(tmp_path / way)
        handle = await board.start(team(endpoint.url, seconds=6.0 if way == "deadline" else None), path, run_id=way)
        try:
            await until(lambda: in_place(store, way, path, endpoint))
            if way == "paused":
                await handle.pause()
            if way == "command":
                await by_command(way, store)
            elif way != "deadline":
                await asyncio.gather(handle.cancel(), handle.cancel())
            result = await handle.result()
            seconds = nothing_is_left(store, way, path, m.DeadlinePassed if way == "deadline" else m.CancelRequested)
            await until(lambda: not connected(endpoint) and not any(map(runs, programs(path))), 5.0)
        finally:
            mark(f"{path}.released", "released")
        assert result.status is (Status.BUDGET if way == "deadline" else Status.CANCELLED)
        assert seconds < 5
        print(f"{runtime}, {way}: everything had stopped {seconds:.2f} s after it was asked to")

    async def all_ways() -> None:
        async with Board(runtime=runtime, store=store) as board:
            for way in ("handle", "command", "paused", "deadline"):
                await stopped(board, way)

    with hanging(endpoint):
        asyncio.run(all_ways())


@role(delegates=["waits", "asker"])
async def fails(path: str, context: Context) -> str:
    """Fails while its subtasks are at work."""
    asked = asyncio.ensure_future(context.delegate([Task(id=f"parent/{name}", role=name, input=path) for name in ("asker", "waits")]))
    await until(lambda: len(programs(path)) == 2)
    asked.cancel()
    raise ValueError("it has no more use for it")


def test_a_parent_that_fails_takes_its_subtasks_and_their_programs_with_it(store: str, tmp_path: Path, endpoint: Endpoint) -> None:
    path = str(tmp_path / "parent")
    asker = Role("asker", input=str, output=str, model=HttpModel(endpoint.url, "m"))
    waits = Role("waits", input=str, output=str, tools=[wait], model=ScriptedModel([call("wait", path=path)]))
    plan = Plan(tasks=(Task(id="parent", role="fails", input=path),))
    team = Team("parents", [fails, asker, waits], planner=plan, budget=Limits(model_calls=9))
    with hanging(endpoint):
        result = team.run_sync(runtime="inline", store=store)
    assert result.status is Status.FAILED
    assert result.usage.model_calls == 2, "the call that was broken off when its parent had ended is counted"
    assert not any(map(runs, programs(path)[:1]))
    told = [message for _, message in said(store, result.run_id)]
    assert sorted(one.task for one in told if isinstance(one, m.TaskEnded)) == ["parent", "parent/asker", "parent/waits"]
    assert isinstance(told[-1], m.RunEnded)
    with closing(open_journal(store)) as journal:
        assert {one.reserved for one in replay(journal, result.run_id).ledger.accounts.values()} == {ZERO}


def test_a_run_that_is_cancelled_at_once_ends_at_once(store: str) -> None:
    """Large inputs are put away before anything leaves, so that the order to stop comes with the work, before agents have begun."""

    async def cancelled() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(Team("slow", [sleeper], planner=many))
            await handle.cancel()
            return await handle.result()

    many = Plan(tasks=tuple(Task(id=f"t{n}", role="sleeper", input="x" * (100_000 if n < 30 else 1)) for n in range(50)))
    result = asyncio.run(cancelled())
    told = said(store, result.run_id)
    assert result.status is Status.CANCELLED
    assert sum(isinstance(message, m.TaskEnded) for _, message in told) == 50
    assert not any(isinstance(message, m.AttemptsLost) for _, message in told)


def test_an_agent_that_does_not_stop_is_given_up_and_makes_no_further_call(store: str, tmp_path: Path) -> None:
    async def cancelled() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(Team("stubborn", [holds], budget=Limits(model_calls=9)))
            await until(lambda: Path(f"{path}.begun").exists())
            await handle.cancel()
            result = await handle.result()
            mark(f"{path}.released", "released")
            await asyncio.sleep(0.2)
            return result

    path = str(tmp_path / "stubborn")
    model = ScriptedModel([call("stubborn", path=path), "never asked for"])
    holds = Role("holds", input=None, output=str, tools=[stubborn], model=model)
    result = asyncio.run(cancelled())
    told = said(store, result.run_id)
    [asked] = [at for at, message in told if isinstance(message, m.CancelRequested)]
    print(f"given up after {(told[-1][0] - asked) / 1000:.2f} s")
    assert result.status is Status.CANCELLED
    assert told[-1][0] - asked < 5_000
    assert [one.tasks for _, one in told if isinstance(one, m.AttemptsLost)] == [(("holds", 1),)]
    assert model.calls == 1
    with closing(open_journal(store)) as journal:
        assert {one.reserved for one in replay(journal, result.run_id).ledger.accounts.values()} == {ZERO}


@role
async def sleeper(text: str) -> str:
    """Sleep."""
    await asyncio.sleep(600)
    return text


def test_a_killed_host_takes_its_programs_with_it(cluster: None, store: str, tmp_path: Path) -> None:
    async def killed() -> Any:
        async with Board(runtime="ray", store=store) as board:
            handle = await board.start(Team("waiting", [waits]), path)
            await until(lambda: len(programs(path)) == 2)
            parent = psutil.Process(programs(path)[0]).parent()
            assert parent is not None
            parent.kill()
            await until(lambda: not any(map(runs, programs(path)[:2])), 5.0)
            await until(lambda: len(programs(path)) == 4)  # its task has begun anew at another host
            await handle.cancel()
            await handle.result()
            await until(lambda: not any(map(runs, programs(path))), 5.0)

    path = str(tmp_path / "killed")
    waits = Role("waits", input=str, output=str, tools=[wait], model=ScriptedModel([call("wait", path=path)]))
    asyncio.run(killed())
