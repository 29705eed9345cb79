"""The cases. Each opens what it needs, repeats its work, and yields rows of the table as it has them."""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

from orchestrator import Board, open_journal
from tests.bench.cast import fan, stepper, trivial
from tests.bench.measure import Memory, Row, Times, carried, hosts_of, load, repeated
from tests.bench.processes import CALLBOARD, Took, medians, own_home, took, warm_cluster


class Scale(NamedTuple):
    """How much of everything."""

    tasks: tuple[int, ...] = (1_000, 10_000, 100_000)
    turns: int = 50
    agents: tuple[int, ...] = (1_000, 10_000)
    reps: int = 5
    starts: int = 3
    ray: bool = True


FULL = Scale()
QUICK = Scale(tasks=(1_000, 10_000), agents=(1_000,), reps=3, starts=2)
TINY = Scale(tasks=(20, 40), turns=3, agents=(20,), reps=1, starts=1, ray=False)

ONE_TASK = ["run", "tests.bench.cast:one_task", "--goal", "1", "--json"]
LATENCY = 0.05
MODEL_CALLS = 5


async def fanout(scale: Scale) -> AsyncIterator[Row]:
    """N trivial async function tasks, merged into a list; journal on disk with full fsync. Cost per task must not grow with N."""
    for runtime in _runtimes(scale):
        floor = []
        with _store() as store:
            async with _board(runtime, store) as board:
                await hosts_of(board)
                await carried(board, fan(trivial, scale.tasks[0]))
                for count in scale.tasks:
                    if runtime == "ray":
                        floor.append(await _floor())
                    team, reps = fan(trivial, count), max(1, scale.reps // (1 if count <= 10_000 else 2))
                    times = await repeated(lambda team=team: carried(board, team), reps)  # type: ignore[misc]
                    rate = count / times.median
                    against = ""
                    if floor:
                        against = f"raw Ray {floor[-1]:,.0f} 1-kB messages/s: {floor[-1] / rate:.1f} times that"
                    figure = f"{rate:,.0f} tasks/s, {1e6 / rate:.0f} µs a task ({times.spread})"
                    yield Row("fan-out", f"{count:,} tasks, {_named(runtime)}", figure, against)


async def turns(scale: Scale) -> AsyncIterator[Row]:
    """One agent, turns of a model call and a tool call, with a model that takes no time; on disk with full fsync, and in memory."""
    team = fan(stepper(scale.turns, 0.0), 1)
    for name in ("fsync", "memory"):
        with _store() as path:
            async with _board("inline", path if name == "fsync" else "memory:") as board:
                await carried(board, team)
                times = await repeated(lambda board=board: carried(board, team), 4 * scale.reps)  # type: ignore[misc]
        figure = f"{times.median / scale.turns * 1e6:.0f} µs a turn ({times.spread} a run)"
        yield Row("turns", f"{scale.turns} turns, inline, {name}", figure)


async def agents(scale: Scale) -> AsyncIterator[Row]:
    """N agents at once, each 5 model calls of 50 ms and 4 tool calls; the ideal is the model's own 0.25 s."""
    ideal = MODEL_CALLS * LATENCY
    for runtime, count in product(_runtimes(scale), scale.agents):
        with _store() as store:
            async with _board(runtime, store) as board:
                processes = await hosts_of(board)
                await carried(board, fan(stepper(MODEL_CALLS, 0.0), 10))
                team = fan(stepper(MODEL_CALLS, LATENCY), count)
                memory = Memory(processes)
                first = await repeated(lambda board=board, team=team: carried(board, team), 1)  # type: ignore[misc]
                # inline, coordinator and hosts share one process, and what earlier cases left in it
                kib = f", {memory.grown() / 1024 / count:.1f} KiB an agent in the hosts" if runtime == "ray" else ""
                more = await repeated(lambda board=board, team=team: carried(board, team), scale.reps // 2)  # type: ignore[misc]
        times = Times([*first.all, *more.all])
        figure = f"{times.median:.2f} s ({times.spread}){kib}"
        yield Row("agents", f"{count:,} agents, {_named(runtime)}", figure, f"{times.median / ideal:.1f} times the ideal {ideal} s")


async def first(scale: Scale) -> AsyncIterator[Row]:
    """The first answer from nothing: ``callboard run`` of a team of one task, the whole process from start to exit.

    On Ray, the same process is measured with Ray alone: its import, ``ray.init`` with the same settings, as many actors, one
    answer, its shutdown. The difference is the framework's share.
    """
    command = [*CALLBOARD, *ONE_TASK, "--runtime"]
    inline = statistics.median([_alone([*command, "inline"]) for _ in range(scale.starts)])
    yield Row("first", "callboard run, inline", f"{inline:.2f} s from start to exit", "at most 1 s")
    if not scale.ray:
        return
    ours, rays = [], []
    for _ in range(scale.starts):
        rays.append(_alone([sys.executable, "-m", "tests.bench.bare"]))
        ours.append(_alone([*command, "ray"]))
    share = statistics.median(ours) - statistics.median(rays)
    against = f"{statistics.median(rays):.2f} s of Ray alone: {share:+.2f} s"
    yield Row("first", "callboard run, Ray", f"{statistics.median(ours):.2f} s from start to exit", against)


async def warm(scale: Scale) -> AsyncIterator[Row]:
    """The first answer from a cluster that is there already: ``callboard run`` in a new process, whole and by its parts.

    The cluster is that of ``callboard up``. In turns with the command, two other processes do the same: Ray alone (join, one call of an
    actor that is there, leave), and a driver that uses ``Board`` and looks at the clock between the stages, which gives the parts.
    """
    with _place(scale) as (address, environment):
        where = ["--address", address] if address else ["--runtime", "inline"]
        command = [*CALLBOARD, *ONE_TASK, *where]
        driver = [sys.executable, "-m", "tests.bench.stages", *([address] if address else [])]
        runs, drivers, rays = [], [], []
        for _ in range(1 + scale.reps):  # the first of each makes what the others find
            rays += [took([sys.executable, "-m", "tests.bench.bare", address], environment)] if address else []
            runs.append(took(command, environment))
            drivers.append(took(driver, environment))
        heard = [_heard(one, environment) for one in runs]
    setting = "on a warm cluster" if address else "inline"
    whole, ray = Times([one.seconds for one in runs[1:]]), [one.seconds for one in rays[1:]]
    floor = statistics.median(ray) if ray else 0.0
    against = f"{floor:.2f} s of Ray alone: {whole.median - floor:+.2f} s, {whole.median / floor:.1f} times that" if ray else ""
    yield Row("warm", f"callboard run {setting}", f"{whole.median:.2f} s from start to exit ({whole.spread})", against)
    submitted, ended = medians(heard[1:]).values()
    figure = f"{ended:.2f} s from start to the task's end, {(ended - submitted) * 1000:.0f} ms of it from its submission"
    yield Row("warm", f"callboard run {setting}, in its journal", figure, "at most 1.5 s" if address else "")
    alone = medians(one.parts() for one in rays[1:]) if rays else {}
    for stage, seconds in medians(one.parts() for one in drivers[1:]).items():
        against = f"{alone[stage] * 1000:.0f} ms of Ray alone" if stage in alone else ""
        yield Row("warm", f"Board {setting}: {stage}", f"{seconds * 1000:.0f} ms", against)


async def restart(scale: Scale) -> AsyncIterator[Row]:
    """The coordinator killed with ``kill -9`` in the middle of a run: how long until it dispatches again, and Ray's own part of that."""
    if not scale.ray:
        return
    from tests.bench.restart import ray_alone, restarted

    for count in scale.tasks[:2]:
        found, bare = [], []
        for _ in range(scale.starts):
            with _store() as store:
                async with _board("ray", store) as board:
                    found.append(await restarted(board, store, count))
                    bare.append(await asyncio.to_thread(ray_alone))
        seconds, resumed = (statistics.median(times) for times in zip(*[(one.dispatched, one.resumed) for one in found], strict=True))
        against = f"{statistics.median(bare):.2f} s for Ray to bring a bare actor back; at most 2 s more"
        figure = f"{seconds:.2f} s to the next dispatch, {resumed:.2f} s to having read back and asked the hosts"
        yield Row("restart", f"kill -9 of the coordinator, {count:,} tasks", figure, against)


CASES: dict[str, Callable[[Scale], AsyncIterator[Row]]] = {
    "fanout": fanout,
    "turns": turns,
    "agents": agents,
    "first": first,
    "warm": warm,
    "restart": restart,
}
"""The cases by name."""


def _runtimes(scale: Scale) -> tuple[str, ...]:
    return ("ray", "inline") if scale.ray else ("inline",)


def _named(runtime: str) -> str:
    return "2 hosts on Ray" if runtime == "ray" else "inline"


@contextmanager
def _store() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder:
        yield str(Path(folder) / "journal.db")


@asynccontextmanager
async def _board(runtime: str, store: str) -> AsyncIterator[Board]:
    """An open board; what it takes to start Ray is no part of any figure."""
    async with Board(runtime=runtime, store=store, hosts=2) as board:
        print(f"{_named(runtime)}: {load()}", file=sys.stderr)
        yield board


async def _floor() -> float:
    from tests.bench.floor import messages_per_second

    return statistics.median([await asyncio.to_thread(messages_per_second, 20_000) for _ in range(3)])


def _alone(command: list[str]) -> float:
    """Seconds that a process takes in a home of its own."""
    with own_home() as environment:
        return took(command, environment).seconds


@contextmanager
def _place(scale: Scale) -> Iterator[tuple[str | None, dict[str, str]]]:
    """The address of a warm cluster (``None`` without Ray), and the environment of processes that use it."""
    if scale.ray:
        with warm_cluster() as place:
            yield place
    else:
        with own_home() as environment:
            yield None, environment


def _heard(run: Took, environment: dict[str, str]) -> dict[str, float]:
    """When the run of a process was submitted and when its first task had ended, by its journal, in seconds from the process's start."""
    with closing(open_journal(str(Path(environment["CALLBOARD_HOME"], "journal.db")))) as journal:
        at = {entry.tag: entry.at / 1000 - run.began for entry in journal.read(run.said["run"])}
    return {"submitted": at["RunRequested"], "ended": at["TaskEnded"]}
