"""What an agent reads back of earlier runs and keeps for later ones, through its host's coordinator."""

from contextlib import suppress
from typing import TYPE_CHECKING

from protocols.failures import CallboardError
from protocols.messages import Assign

if TYPE_CHECKING:
    from orchestrator.host import Host


class Keepsakes:
    """That part of an agent's desk. Where the coordinator does not answer nothing was kept: the call is made."""

    __slots__ = ()
    host: "Host"
    run: str
    assign: Assign

    @property
    def first(self) -> int:
        """The ordinal of its first step."""
        return self.assign.first

    @property
    def concluding(self) -> bool:
        """Whether its role is told to conclude."""
        return self.assign.conclude

    async def kept(self, name: str, *, shared: bool) -> str | None:
        """See ``Desk``."""
        try:
            return await self.host.side.kept(self.run, name, shared)
        except CallboardError:
            return None

    async def keep(self, name: str, said: str, seconds: float, *, shared: bool) -> None:
        """See ``Desk``."""
        with suppress(CallboardError):
            await self.host.side.keep(self.run, name, said, seconds, shared)
