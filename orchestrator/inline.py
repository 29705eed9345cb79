"""The inline runtime: the same coordinator, host, link and journal in this process, without Ray. Starts in a fraction of a second."""

from collections.abc import Callable

from orchestrator.code import Roles
from orchestrator.coordinator import Coordinator
from orchestrator.host import Host
from orchestrator.journal import open_journal
from orchestrator.journal.port import Journal
from orchestrator.models import Models
from orchestrator.scheduler import EVERY
from protocols.team import TeamSpec


class InlineRuntime:
    """One coordinator and one host on the caller's event loop."""

    def __init__(self, store: str | None) -> None:
        self.store = store
        self._journal: Journal | None = None
        self._coordinator: Coordinator | None = None
        self._host: Host | None = None

    async def open(self, roles: Callable[[], dict[str, Roles]]) -> tuple[Coordinator]:
        """Start; roles are shared with the host as they are, so that nothing is unpickled here."""
        self._journal = open_journal(self.store)
        self._host = Host("host/inline", EVERY, Models(), roles())
        self._coordinator = Coordinator(self._journal, [self._host])
        await self._coordinator.start()
        return (self._coordinator,)

    async def prepare(self, team: TeamSpec) -> None:
        """Nothing: a model is made by the role that first needs it, and one host serves all."""

    async def close(self) -> None:
        """Stop all work, give back what it held and close the journal."""
        try:
            if self._coordinator is not None:
                await self._coordinator.stop()
        finally:
            if self._coordinator is not None:
                await self._coordinator.close()
            if self._host is not None:
                await self._host.close()
            if self._journal is not None:
                self._journal.close()
