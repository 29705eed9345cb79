"""One round of chaos: a run on a real cluster, seeded kills while it works, and what must be so when it has ended."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from orchestrator import Board, open_journal, reducer
from orchestrator.journal.port import Journal
from orchestrator.observe.reviews import reviews, waiting
from orchestrator.replay import reader
from protocols import codec
from protocols import messages as m
from protocols.budget import ZERO, amount
from protocols.envelope import Envelope
from tests.chaos.cast import SIDE, WRITES, team
from tests.chaos.effects import read
from tests.orchestrator.simulation import within_limits

ROOT = Path(__file__).parents[2]
KINDS = {"host": 10, "coordinator": 8, "both": 3, "node": 2, "head": 1}
"""What is killed, and how often of 24 times."""

END_SECONDS = 180.0
"""How long after the last kill a run may take to end."""


@dataclass
class Seen:
    """What a round saw: ``violations`` are sentences, and there should be none."""

    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    effects: int = 0
    repeated: int = 0
    decided: int = 0
    resumed: int = 0
    lost: int = 0
    violations: list[str] = field(default_factory=list)


@contextmanager
def ledger(file: Path) -> Iterator[str]:
    """The effect ledger in a process of its own; gives its address."""
    process = subprocess.Popen([sys.executable, "-m", "tests.chaos.effects", str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


class Nodes:
    """A cluster of a head and a labelled node, each of which can be killed and made anew."""

    def __init__(self) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        self._side = self._cluster.add_node(num_cpus=1, labels=SIDE)

    @property
    def address(self) -> str:
        """The head's."""
        found: str = self._cluster.address
        return found

    def kill_node(self) -> None:
        """Kill the labelled node; another takes its place."""
        self._cluster.remove_node(self._side, allow_graceful=False)
        self._side = self._cluster.add_node(num_cpus=1, labels=SIDE)

    def kill_all(self) -> None:
        """Kill every process of the cluster, its head and control service first."""
        ours = psutil.Process().children(recursive=True)
        for process in sorted(ours, key=lambda one: "gcs_server" not in " ".join(_command(one))):
            if "tests.chaos.effects" not in _command(process):
                with suppress(psutil.Error):
                    process.kill()
        psutil.wait_procs(ours, timeout=2)
        ray.shutdown()

    def end(self) -> None:
        """End the cluster."""
        ray.shutdown()
        self._cluster.shutdown()


def kill_actors(kind: str, dice: random.Random) -> bool:
    """Kill the process of a coordinator, or of one host; whether there was one."""
    found = [process for process in psutil.Process().children(recursive=True) if _is_actor(process, kind)]
    if not found:
        return False
    with suppress(psutil.Error):
        os.kill(dice.choice(found).pid, signal.SIGKILL)
    return True


def _is_actor(process: psutil.Process, kind: str) -> bool:
    said = " ".join(_command(process)[:1])
    return said.startswith("ray::") and kind in said and "IDLE" not in said


def _command(process: psutil.Process) -> list[str]:
    try:
        command: list[str] = process.cmdline()
        return command
    except psutil.Error:
        return []


async def play(seed: int, tasks: int, kills: int, folder: Path, *, latency: float = 0.25, wide: bool = True) -> Seen:
    """One round. With ``wide`` nodes and the head are killed as well, else only hosts and coordinators on a cluster of one node."""
    dice, seen = random.Random(seed), Seen()
    store, file = str(folder / "journal.db"), folder / "effects.jsonl"
    with ledger(file) as url:
        nodes = Nodes()
        began = time.monotonic()
        try:
            work = team(url, tasks, latency, side=wide)
            async with Board(address=nodes.address, store=store, hosts=2) as board:
                await board.start(work, run_id=f"chaos-{seed}")
            with closing(open_journal(store)) as journal:
                person = asyncio.create_task(_decide(journal, file, seen))
                try:
                    nodes = await _kill(nodes, dice, journal, kills, store, seen, wide=wide)
                    await _ended(journal, nodes, store, seen)
                finally:
                    person.cancel()
                    await asyncio.gather(person, return_exceptions=True)
                seen.seconds = time.monotonic() - began
                judge(journal, f"chaos-{seed}", tasks, file, seen)
        finally:
            nodes.end()
    return seen


async def _kill(nodes: Nodes, dice: random.Random, journal: Journal, kills: int, store: str, seen: Seen, *, wide: bool) -> Nodes:
    kinds = list(KINDS) if wide else ["host", "coordinator", "both"]
    while sum(seen.kills.values()) < kills and not _has_ended(journal):
        await asyncio.sleep(dice.uniform(0.3, 2.0))
        kind = dice.choices(kinds, [KINDS[one] for one in kinds])[0]
        if _has_ended(journal):
            break
        if kind == "head":
            nodes.kill_all()
            nodes = Nodes()
            async with Board(address=nodes.address, store=store, hosts=2) as board:
                await board.resume(_run(journal))
        elif kind == "node":
            nodes.kill_node()
        else:
            killed = [kill_actors(one, dice) for one in {"host": ("Host",), "coordinator": ("Coord",)}.get(kind, ("Coord", "Host"))]
            if not any(killed):
                continue
        seen.kills[kind] += 1
    return nodes


async def _ended(journal: Journal, nodes: Nodes, store: str, seen: Seen) -> None:
    until = time.monotonic() + END_SECONDS
    while not _has_ended(journal):
        if time.monotonic() > until:
            seen.violations.append(f"the run did not end within {END_SECONDS:g} s of the last kill")
            return
        await asyncio.sleep(0.2)


def _run(journal: Journal) -> str:
    return journal.runs()[0].run


def _has_ended(journal: Journal) -> bool:
    return journal.runs()[0].ended


async def _decide(journal: Journal, file: Path, seen: Seen) -> None:
    """The person: looks into the ledger and says what is so."""
    answered: set[tuple[str, int, int]] = set()
    while True:
        await asyncio.sleep(0.5)
        rows = await asyncio.to_thread(journal.runs)
        for review in await asyncio.to_thread(lambda: list(waiting(journal, rows))):  # noqa: B023
            if (review.task, review.step, review.asked) in answered:
                continue
            answered.add((review.task, review.step, review.asked))
            there = any(line["key"] == review.key for line in read(file))
            decision = m.Decision.DONE if there else m.Decision.NOT_DONE
            said = m.ReviewDecided(task=review.task, step=review.step, decision=decision, user="chaos", at=time.time_ns() // 1_000_000)
            await asyncio.to_thread(journal.post, review.run, codec.pack(said))
            seen.decided += 1


def judge(journal: Journal, run: str, tasks: int, file: Path, seen: Seen) -> None:
    """Look at what is left, from outside: the journal, entry by entry, and the ledger's file."""
    say = seen.violations.append
    state, fetch, ends = None, reader(journal), Counter[str]()
    for entry in journal.read(run):
        body = codec.unpack(entry.body)
        if isinstance(body, m.RunRequested):
            state = reducer.begin(run, entry.at, body)
        assert state is not None
        was_open = {name for name in (getattr(body, "task", None),) if name in state.tasks and state.tasks[name].open}
        at_work = {(name, task.attempt) for name, task in state.tasks.items() if task.at_work} if isinstance(body, m.RunResumed) else set()
        state, _ = reducer.step(state, Envelope(run, entry.seq, entry.at, body), fetch)
        ends.update(name for name in was_open if not state.tasks[name].open)
        seen.resumed += isinstance(body, m.RunResumed)
        seen.lost += len(body.tasks) if isinstance(body, m.AttemptsLost) else 0
        seen.lost += len(at_work - set(body.kept)) if isinstance(body, m.RunResumed) else 0
        try:
            within_limits(state)
        except AssertionError as error:
            say(f"entry {entry.seq}: {error}")
    assert state is not None
    if any(account.reserved != ZERO for account in state.ledger.accounts.values()):
        say("something is reserved at rest")
    if state.ledger.accounts[""].settled[0] < amount(state.spent())[0]:
        say("less is settled than was spent")
    outputs = {name: fetch(task.output) if task.output else task.failure for name, task in state.tasks.items()}
    for name, output in outputs.items():
        if output != f"{name} wrote {WRITES}":
            say(f"{name} gave {output!r}")
    if len(outputs) != tasks or state.status is not m.Status.DONE:
        say(f"{len(outputs)} tasks, {state.status.value}")
    if set(ends.values()) != {1}:
        say(f"ended more than once: {[name for name, times in ends.items() if times != 1]}")
    lines = read(file)
    counted = Counter(line["key"] for line in lines if line["counted"])
    arguments: dict[str, set[str]] = {}
    for line in lines:
        arguments.setdefault(line["key"], set()).add(line["arguments"])
    seen.effects, seen.repeated = len(counted), len(lines) - len(counted)
    if len(counted) != tasks * WRITES:
        say(f"{len(counted)} effects instead of {tasks * WRITES}")
    for key, times in counted.items():
        if times != 1:
            say(f"{key} took effect {times} times")
    for key, hashes in arguments.items():
        if len(hashes) != 1:
            say(f"{key} was used with different arguments")
    plain = Counter(line["key"] for line in lines if line["mode"] == "plain")
    for key, times in plain.items():
        if times != 1:
            say(f"{key}, which may not be repeated, was called {times} times")
    for review in reviews(journal, run):
        if review.is_open:
            say(f"{review.task}/{review.step} still waits for a person")


def shown(seed: int, seen: Seen) -> dict[str, Any]:
    """One line about a round."""
    kills = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.kills.items())) or "none"
    return {
        "seed": seed,
        "kills": kills,
        "seconds": f"{seen.seconds:.0f}",
        "effects": seen.effects,
        "asked again": seen.repeated,
        "decided": seen.decided,
        "taken up": seen.resumed,
        "attempts lost": seen.lost,
        "violations": len(seen.violations),
    }
