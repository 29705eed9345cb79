"""Pools: how many hosts serve each kind of resources. They grow with what waits, and shrink when it is quiet. No Ray here."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.observe.logs import get_logger
from orchestrator.reducer.state import RunState
from orchestrator.roster import Roster
from orchestrator.scheduler import SHARED, pool_of
from orchestrator.sides import HostSide
from protocols.team import Resources

log = get_logger("pools")

ADJUST_SECONDS = 0.5
"""How often the number of hosts is looked at."""

AGAIN_SECONDS = 5.0
"""How long it takes at least until a shared host that is gone again is hired again: what it is given may be what ends it."""

QUIET_SECONDS = 30.0
"""A host that is not needed and has had nothing at work for this long is let go."""


class Hiring(Protocol):
    """Makes hosts and ends them."""

    def there(self, pool: str) -> list[int]:
        """The numbers of the pool's hosts that are there already, in order."""
        ...

    async def hire(self, pool: str, number: int, resources: Resources) -> HostSide:
        """Host ``number`` of a pool, with these resources; one that is there already is taken as it is."""
        ...

    async def dismiss(self, host: str) -> None:
        """End a host that nobody is at work on."""
        ...


@dataclass(slots=True)
class _Pool:
    resources: Resources
    hired: int = 0
    quiet: dict[str, float] = field(default_factory=dict)


def needs(states: Iterable[RunState]) -> dict[str, tuple[Resources, int]]:
    """By pool, the resources of its hosts, and how many agents of these runs wait or are at work there."""
    found: dict[str, tuple[Resources, int]] = {}
    for state in states:
        for name, role in state.request.team.roles.items():
            pool = pool_of(role.resources)
            if pool != SHARED:
                load = len(state.ready.get(name, ())) + state.working.get(name, 0)
                found[pool] = (role.resources, load + found.get(pool, (None, 0))[1])
    return found


def wanted(load: int, resources: Resources) -> int:
    """How many hosts this many agents call for; while a run may need the pool it has one."""
    return max(1, min(resources.most_hosts, -(-load // resources.agents_per_host)))


class Pools:
    """The pools of one coordinator. The ``shared`` one keeps the size that it was made with: hosts that are gone are hired again."""

    def __init__(self, hiring: Hiring, shared: int, quiet: float = QUIET_SECONDS) -> None:
        self._hiring = hiring
        self._shared = shared
        self._quiet = quiet
        self._again = 0.0
        self._pools: dict[str, _Pool] = {}

    async def keep(self, states: Callable[[], Iterable[RunState]], roster: Roster) -> None:
        """Adjust them to the runs at work, until cancelled."""
        while True:
            try:
                await self.adjust(list(states()), roster)
            except Exception:
                log.exception("the pools could not be adjusted; it is tried again")
            await asyncio.sleep(ADJUST_SECONDS)

    async def adjust(self, states: Iterable[RunState], roster: Roster) -> None:
        """Hire for what these runs need now, and let go what has been quiet."""
        await self._refill(roster)
        needed = needs(states)
        for name, (resources, _) in needed.items():
            if name not in self._pools:
                self._pools[name] = pool = _Pool(resources)
                for number in self._hiring.there(name):  # those of an earlier coordinator
                    roster.add(await self._hiring.hire(name, number, resources))
                    pool.hired = number + 1
        for name, pool in self._pools.items():
            target = wanted(needed[name][1], pool.resources) if name in needed else 0
            hosts = roster.hosts(name)
            for _ in range(target - len(hosts)):
                roster.add(await self._hiring.hire(name, pool.hired, pool.resources))
                pool.hired += 1
                log.info("hired a host", pool=name, number=pool.hired, wanted=target)
            await self._let_go(pool, hosts, len(hosts) - target, roster)

    async def _refill(self, roster: Roster) -> None:
        there, now = roster.hosts(SHARED), time.monotonic()
        if len(there) < self._shared and now >= self._again:
            self._again = now + AGAIN_SECONDS
            for number in range(self._shared):
                host = await self._hiring.hire(SHARED, number, Resources())
                if host.name not in there:
                    roster.add(host)
                    log.warning("hired a host that was gone", host=host.name)

    async def _let_go(self, pool: _Pool, hosts: list[str], surplus: int, roster: Roster) -> None:
        now = time.monotonic()
        pool.quiet = {host: pool.quiet.get(host, now) for host in hosts if roster.is_idle(host)} if surplus > 0 else {}
        ripe = [host for host, since in pool.quiet.items() if now - since >= self._quiet]
        for host in ripe[: max(surplus, 0)]:
            roster.remove(host)
            await self._hiring.dismiss(host)
            log.info("let a host go", host=host)
