"""The roster: the hosts that a coordinator has attached, what each has at work, and the watch over them."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.link import HostGone, Inbox, LinkDown, Outbox, now
from orchestrator.observe.logs import get_logger
from orchestrator.sides import CoordinatorSide, HostSide
from protocols import codec
from protocols.failures import Verdict
from protocols.messages import StopTask

log = get_logger("roster")

PING_SECONDS = 0.5
PATIENCE_SECONDS = 15.0
"""A host that has not answered for this long is taken for lost."""

Lost = Callable[[str, dict[tuple[str, str], int]], Awaitable[None]]
"""Told of a host that is gone, with its attempts by (run, task)."""


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

    def __init__(self, coordinator: str, me: CoordinatorSide, lost: Lost, wake: asyncio.Event) -> None:
        self._coordinator = coordinator
        self._me = me
        self._lost = lost
        self._wake = wake
        self._watches: dict[str, tuple[HostSide, asyncio.Task[None]]] = {}
        self.links: dict[str, Link] = {}
        self._settled = asyncio.Event()
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

    def stop_task(self, run: str, task: str, verdict: Verdict) -> None:
        """Have a task stopped, wherever it is at work."""
        for link in self.links.values():
            attempt = link.at_work.get((run, task))
            if attempt is not None:
                stop = StopTask(task=task, attempt=attempt, verdict=verdict.value)
                link.outbox.send(run, codec.pack(stop), f"{run} / stop / {task}")

    def stop_run(self, run: str, verdict: Verdict) -> None:
        """Have everything of a run stopped."""
        for link in self.links.values():
            for at_run, task in list(link.at_work):
                if at_run == run:
                    self.stop_task(run, task, verdict)

    def give_up(self, run: str) -> Iterator[tuple[str, tuple[tuple[str, int], ...]]]:
        """Forget what is still at work for a run: (host, ((task, attempt), ...))."""
        for name, link in self.links.items():
            left = tuple((task, attempt) for (at_run, task), attempt in link.at_work.items() if at_run == run)
            for task, _ in left:
                del link.at_work[run, task]
            if left:
                yield name, left

    async def _watch(self, side: HostSide) -> None:
        try:
            await self._keep(side)
        except Exception as error:
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
        incarnation = await side.attach(outbox.sender, self._me)
        pump = asyncio.create_task(outbox.run(), name=f"outbox to {side.name}")
        self.links[side.name] = Link(side, Inbox(incarnation), outbox, pump, now())
        self._settled.set()
        self._wake.set()

    async def _drop(self, name: str) -> None:
        link = self.links.pop(name, None)
        if link is not None:
            link.pump.cancel()
            await self._lost(name, link.at_work)
