"""Killed coordinators: from ``kill -9`` to the next dispatch, and how long Ray alone takes to bring an actor back."""

import asyncio
import os
import signal
import time
from contextlib import closing
from typing import Any, NamedTuple

import psutil
import ray

from orchestrator import Board, open_journal
from protocols import messages as m
from tests.bench.cast import fan, napper

NAP = 0.1
AT_ONCE = 200


class Bare:
    """An actor that says which process it is."""

    def process(self) -> int:
        return os.getpid()


class Restart(NamedTuple):
    """Seconds from the kill: until the run was read back and joined, and until the first attempt after it was dispatched."""

    resumed: float
    dispatched: float


def ray_alone() -> float:
    """Seconds from ``kill -9`` of a bare actor's process to its next answer."""
    untyped: Any = ray
    actor = untyped.remote(num_cpus=0, max_restarts=-1)(Bare).remote()
    process = ray.get(actor.process.remote())
    os.kill(process, signal.SIGKILL)
    killed = time.monotonic()
    while True:
        try:
            assert ray.get(actor.process.remote(), timeout=30) != process
            break
        except ray.exceptions.RayActorError:
            time.sleep(0.01)
    seconds = time.monotonic() - killed
    ray.kill(actor)
    return seconds


async def restarted(board: Board, store: str, tasks: int) -> Restart:
    """Kill the coordinator when a third of a run of so many tasks is done."""
    handle = await board.start(fan(napper(NAP, AT_ONCE), tasks))
    ended = 0
    async for envelope in handle.events():
        ended += isinstance(envelope.body, m.TaskEnded)
        if ended > tasks // 3:
            break
    [process] = [one for one in psutil.Process().children(recursive=True) if "CoordinatorActor" in " ".join(one.cmdline()[:1])]
    process.kill()
    killed = time.time()
    result = await handle.result()
    assert result.status is m.Status.DONE
    with closing(open_journal(store)) as journal:
        entries = await asyncio.to_thread(lambda: [(entry.tag, entry.at / 1000) for entry in journal.read(handle.run_id)])
    resumed = next(at for tag, at in entries if tag == "RunResumed")
    return Restart(resumed - killed, next(at for tag, at in entries if tag == "Dispatched" and at >= resumed) - killed)
