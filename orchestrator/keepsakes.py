"""What an agent reads back of earlier runs and keeps for later ones, through its host's coordinator."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.claims import claimant_at
from protocols.budget import Usage
from protocols.failures import CallboardError
from protocols.messages import Assign

if TYPE_CHECKING:
    from orchestrator.host import Host

_late: set["asyncio.Task[None]"] = set()


class Keepsakes:
    """That part of an agent's desk. Where the coordinator does not answer nothing was kept: the call is made."""

    __slots__ = ()
    host: "Host"
    run: str
    assign: Assign
    claims: dict[str, tuple[str, bool]]

    @property
    def first(self) -> int:
        """The ordinal of its first step."""
        return self.assign.first

    @property
    def spent(self) -> Usage:
        """What earlier attempts used of its role's limits."""
        return self.assign.spent

    @property
    def worked(self) -> int:
        """How many milliseconds they were at calls."""
        return self.assign.worked

    @property
    def concluding(self) -> bool:
        """Whether its role is told to conclude."""
        return self.assign.conclude

    async def kept(self, name: str, *, shared: bool, claim: bool = False) -> str | None:
        """See ``Desk``."""
        if not claim:
            with suppress(CallboardError):
                return await self.host.side.kept(self.run, name, shared, "")
            return None
        claimant = claimant_at(self.host.name)
        asked = asyncio.ensure_future(self.host.side.kept(self.run, name, shared, claimant))
        try:
            said = await asyncio.shield(asked)
        except CallboardError:
            return None
        except asyncio.CancelledError:
            _later(self._forgo(asked, name, shared, claimant))
            raise
        if said is None:
            self.claims[name] = (claimant, shared)
        return said

    async def keep(self, name: str, said: str, seconds: float, *, shared: bool) -> None:
        """See ``Desk``."""
        with suppress(CallboardError):
            await self.host.side.keep(self.run, name, said, seconds, shared)
            self.claims.pop(name, None)

    def let_go(self, name: str) -> None:
        """See ``Desk``."""
        if name in self.claims:
            claimant, shared = self.claims.pop(name)
            _later(self.host.side.let_go(self.run, name, shared, claimant))

    async def _forgo(self, asked: Awaitable[str | None], name: str, shared: bool, claimant: str) -> None:
        """Nobody is there any more to make what it waited for: leave it to the next."""
        if await asked is None:
            await self.host.side.let_go(self.run, name, shared, claimant)


def _later(doing: Awaitable[None]) -> None:
    async def done() -> None:
        with suppress(CallboardError):
            await doing

    task = asyncio.ensure_future(done())
    _late.add(task)
    task.add_done_callback(_late.discard)
