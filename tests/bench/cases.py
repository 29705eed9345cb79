"""The cases. Each opens what it needs, repeats its work, and yields rows of the table as it has them."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

from orchestrator import Board
from tests.bench.cast import fan, stepper, trivial
from tests.bench.measure import Memory, Row, Times, carried, hosts_of, load, repeated


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
    command = [sys.executable, "-m", "orchestrator.cli", "run", "tests.bench.cast:one_task", "--goal", "1", "--json", "--runtime"]
    inline = statistics.median([_process([*command, "inline"]) for _ in range(scale.starts)])
    yield Row("first", "callboard run, inline", f"{inline:.2f} s from start to exit", "at most 1 s")
    if not scale.ray:
        return
    ours, rays = [], []
    for _ in range(scale.starts):
        rays.append(_process([sys.executable, "-m", "tests.bench.bare"]))
        ours.append(_process([*command, "ray"]))
    share = statistics.median(ours) - statistics.median(rays)
    against = f"{statistics.median(rays):.2f} s of Ray alone: {share:+.2f} s"
    yield Row("first", "callboard run, Ray", f"{statistics.median(ours):.2f} s from start to exit", against)


CASES: dict[str, Callable[[Scale], AsyncIterator[Row]]] = {"fanout": fanout, "turns": turns, "agents": agents, "first": first}
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


def _process(command: list[str]) -> float:
    """Seconds that a whole process takes; its answer must be there."""
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as home:
        began = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, "CALLBOARD_HOME": home}, capture_output=True, text=True, timeout=300)
        seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == 1, done.stdout
    return seconds
