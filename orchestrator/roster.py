"""The roster: the hosts that a coordinator has attached, what each has at work, and the watch over them."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.link import HostGone, Inbox, LinkDown, Outbox, now
from orchestrator.observe.logs import get_logger
from orchestrator.sides import CoordinatorSide, HostSide, Place
from protocols import codec
from protocols.failures import CallboardError, Failure
from protocols.messages import AttemptsLost, HoldRun, LimitRun, StopTask

log = get_logger("roster")

PING_SECONDS = 0.5
PATIENCE_SECONDS = 15.0
"""A host that has not answered for this long is taken for lost."""

REST_SECONDS = 1.7
"""How long a host is given to stop its work; the others do not wait for one that does not answer."""

Lost = Callable[[str, dict[tuple[str, str], int]], Awaitable[None]]
"""Told of a host that is gone, with its attempts by (run, task)."""

Wanted = Callable[[str], Sequence[Place]]
"""Of a host that is about to be attached: what an earlier coordinator gave it and is still wanted."""

Kept = Callable[[str, Sequence[Place]], None]
"""Told of a host that was attached: what it goes on with."""


@dataclass(slots=True)
class Link:
    """A host that is attached: its incarnation, both directions, and what it has at work as (run, task) -> attempt."""

    side: HostSide
    inbox: Inbox
    outbox: Outbox
    pump: asyncio.Task[None]
    heard: int
    at_work: dict[tuple[str, str], int] = field(default_factory=dict)
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Roster:
    """Attaches hosts, watches over them, and knows what they have at work."""

    def __init__(self, coordinator: str, me: CoordinatorSide, wanted: Wanted, kept: Kept, lost: Lost, wake: asyncio.Event) -> None:
        self._coordinator = coordinator
        self._born = now()
        self._me = me
        self._wanted = wanted
        self._kept = kept
        self._lost = lost
        self._wake = wake
        self._watches: dict[str, tuple[HostSide, asyncio.Task[None]]] = {}
        self.links: dict[str, Link] = {}
        self._settled = asyncio.Event()
        self._attached = asyncio.Event()
        self._failure: Exception | None = None

    def add(self, side: HostSide) -> None:
        """Attach a host as soon as it answers, and watch over it."""
        self._watches[side.name] = side, asyncio.create_task(self._watch(side), name=f"watch {side.name}")

    def hosts(self, pool: str) -> list[str]:
        """The hosts of a pool that are attached, or may still be."""
        return [name for name, (side, watch) in self._watches.items() if side.pool == pool and not watch.done()]

    def is_idle(self, name: str) -> bool:
        """Whether a host is attached and has nothing at work."""
        return name in self.links and not self.links[name].at_work

    def remove(self, name: str) -> None:
        """Let go of a host that has nothing at work."""
        _, watch = self._watches.pop(name)
        watch.cancel()
        self.links.pop(name).pump.cancel()

    async def ready(self) -> None:
        """Return when a host is attached; raises what went wrong with one that can't be."""
        await self._settled.wait()
        if self._failure is not None and not self.links:
            raise self._failure

    async def heard(self, hosts: Collection[str], seconds: float) -> None:
        """Return when those of these hosts that are known are attached, or this much time has passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(name not in self.links and not watch.done() for name, (_, watch) in self._watches.items() if name in hosts):
                    self._attached.clear()
                    await self._attached.wait()

    async def stop(self) -> list[tuple[str, AttemptsLost]]:
        """Have all hosts stop their work; what they had and is surely at rest is forgotten, and comes back by run."""
        links = list(self.links.items())
        answers = await asyncio.gather(*(asyncio.wait_for(link.side.stop(), REST_SECONDS) for _, link in links), return_exceptions=True)
        stopped = []
        for (name, link), left in zip(links, answers, strict=True):
            if self.links.get(name) is link and not isinstance(left, BaseException):
                at_rest = {(run, task): n for (run, task), n in link.at_work.items() if (run, task, n) not in {tuple(one) for one in left}}
                link.at_work = {place: n for place, n in link.at_work.items() if place not in at_rest}
                stopped += losses(name, at_rest, returned=True)
        return stopped

    async def close(self) -> None:
        """Let go of all hosts."""
        tasks = [*(watch for _, watch in self._watches.values()), *(link.pump for link in self.links.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def room(self) -> dict[str, dict[str, int]]:
        """By pool and host, how many more tasks may be given."""
        room: dict[str, dict[str, int]] = defaultdict(dict)
        for name, link in self.links.items():
            room[link.side.pool][name] = link.side.capacity - len(link.at_work)
        return room

    def stop_task(self, run: str, task: str, why: Failure) -> bool:
        """Have a task stopped, wherever it is at work, and end with this failure; returns whether it is."""
        found = False
        for link in self.links.values():
            attempt = link.at_work.get((run, task))
            if attempt is not None:
                stop = StopTask(task=task, attempt=attempt, failure=why)
                link.outbox.send(run, codec.pack(stop), f"{run} / stop / {task}")
                found = True
        return found

    def stop_run(self, run: str, why: Failure) -> None:
        """Have everything of a run stopped, which ends as ``why`` says."""
        stopped = Failure(verdict=why.verdict, message=f"stopped with its run: {why.message}")
        for link in self.links.values():
            for at_run, task in list(link.at_work):
                if at_run == run:
                    self.stop_task(run, task, stopped)

    def hold(self, run: str, held: bool) -> None:
        """Have the agents of a run wait before their next call, or go on."""
        for link in self.links.values():
            link.outbox.send(run, codec.pack(HoldRun(held=held)), f"{run} / {'pause' if held else 'continue'}")

    def limit(self, run: str) -> None:
        """Have the agents of a run that are at work ask for room before their next call."""
        for link in self.links.values():
            if any(at_run == run for at_run, _ in link.at_work):
                link.outbox.send(run, codec.pack(LimitRun()), f"{run} / limit")

    def having(self, run: str) -> tuple[tuple[str, int], ...]:
        """What hosts have at work for a run, as (task, attempt)."""
        return tuple((task, n) for link in self.links.values() for (at_run, task), n in link.at_work.items() if at_run == run)

    def give_up(self, run: str, only: str | None = None) -> Iterator[tuple[str, tuple[tuple[str, int], ...]]]:
        """Forget what is still at work for a run, or ``only`` one task of it: (host, ((task, attempt), ...))."""
        for name, link in self.links.items():
            mine = ((task, attempt) for (at_run, task), attempt in link.at_work.items() if at_run == run)
            left = tuple(one for one in mine if only is None or one[0] == only)
            for task, _ in left:
                del link.at_work[run, task]
            if left:
                yield name, left

    async def _watch(self, side: HostSide) -> None:
        try:
            await self._keep(side)
        except Exception as error:
            if isinstance(error, CallboardError):
                log.warning("a host can't be used", host=side.name, why=str(error))
            else:
                log.exception("a host can't be used", host=side.name)
            self._failure = error
            self._settled.set()
            await self._drop(side.name)

    async def _keep(self, side: HostSide) -> None:
        """A host that comes back as another incarnation has lost what it had."""
        while True:
            link = self.links.get(side.name)
            try:
                incarnation = await side.ping()
                if link is None or link.inbox.sender != incarnation:
                    await self._attach(side)
                else:
                    link.heard = now()
            except HostGone:
                await self._drop(side.name)
                return
            except LinkDown:
                if link is not None and now() - link.heard > PATIENCE_SECONDS * 1000:
                    await self._drop(side.name)
            await asyncio.sleep(PING_SECONDS)

    async def _attach(self, side: HostSide) -> None:
        await self._drop(side.name)
        outbox = Outbox(f"{self._coordinator}/{secrets.token_hex(3)}", side.deliver, self._me.put_blob)
        attached = await side.attach(outbox.sender, self._me, self._born, self._wanted(side.name))
        pump = asyncio.create_task(outbox.run(), name=f"outbox to {side.name}")
        self.links[side.name] = link = Link(side, Inbox(attached.incarnation, attached.first - 1), outbox, pump, now())
        link.at_work = {(run, task): attempt for run, task, attempt in attached.kept}
        self._kept(side.name, attached.kept)
        self._attached.set()
        self._settled.set()
        self._wake.set()

    async def _drop(self, name: str) -> None:
        link = self.links.pop(name, None)
        if link is not None:
            link.pump.cancel()
            await self._lost(name, link.at_work)


def losses(host: str, at_work: Mapping[tuple[str, str], int], *, returned: bool = False) -> list[tuple[str, AttemptsLost]]:
    """By run, that these attempts of a host are at work no more."""
    by_run: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for (run, task), attempt in at_work.items():
        by_run[run].append((task, attempt))
    return [(run, AttemptsLost(host=host, tasks=tuple(tasks), returned=returned)) for run, tasks in by_run.items()]
