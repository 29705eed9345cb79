"""How benchmarks measure: repetitions, medians, memory of processes, and rows of a Markdown table."""

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import Board, RunResult, Team
from protocols.messages import Status
from tests.bench.cast import fan, where


class Row(NamedTuple):
    """One line of the table: what was measured, the figure, and what it is held against."""

    case: str
    setting: str
    figure: str
    against: str = ""

    def __str__(self) -> str:
        return "| " + " | ".join(self) + " |"


HEAD = "| case | setting | figure | held against |\n| --- | --- | --- | --- |"


class Times(NamedTuple):
    """Seconds of some repetitions."""

    all: list[float]

    @property
    def median(self) -> float:
        """The median in seconds."""
        return statistics.median(self.all)

    @property
    def spread(self) -> str:
        """The shortest and the longest."""
        return f"{min(self.all):.3g} to {max(self.all):.3g} s"


async def repeated(work: Callable[[], Awaitable[Any]], count: int) -> Times:
    """``work``, ``count`` times, in seconds."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        found.append(time.perf_counter() - began)
    return Times(found)


async def carried(board: Board, team: Team, goal: Any = None) -> RunResult:
    """One run, from ``board.start`` to the whole result (outcome of every task included) in hand; it must have gone well."""
    result = await (await board.start(team, goal)).result()
    assert result.status is Status.DONE, result.failure
    return result


async def hosts_of(board: Board) -> list[int]:
    """The processes that carry agents; asking them also loads what they need to work at all."""
    return sorted({task.output for task in (await carried(board, fan(where, 64))).tasks})


class Memory:
    """How much memory some processes come to need, by Linux's own peak (0 where ``/proc`` does not have it)."""

    def __init__(self, processes: Iterable[int]) -> None:
        self._processes = list(processes)
        for one in self._processes:
            place = Path(f"/proc/{one}/clear_refs")
            if place.exists():
                place.write_text("5")  # the peak begins anew
        self._before = self._sum("VmRSS")

    def grown(self) -> int:
        """Bytes at the peak above what there was at the beginning."""
        return self._sum("VmHWM") - self._before

    def _sum(self, name: str) -> int:
        total = 0
        for one in self._processes:
            place = Path(f"/proc/{one}/status")
            lines = place.read_text().splitlines() if place.exists() else []
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
        return total


def load() -> str:
    """What else the machine is doing."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
