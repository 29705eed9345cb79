"""A host carries many agents at once, each an asyncio task, and reports what they do over its link. No Ray here."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from orchestrator import code
from orchestrator.agent import Agent
from orchestrator.code import Roles
from orchestrator.link import Inbox, LinkDown, Outbox, open_parcel
from orchestrator.models import Models
from orchestrator.permits import Permits
from orchestrator.sides import Attached, CoordinatorSide, Place
from protocols import codec
from protocols import messages as m
from protocols.envelope import Batch
from protocols.failures import StaleEpoch, UnknownMessage
from protocols.team import Resources

INLINE = 8_000
"""An output of more packed bytes than this goes to the blob store and travels by digest."""

LEAVE_SECONDS = 1.0
"""How long a host waits for agents that it drops; those that catch their cancelling are left to themselves."""

HEARD_SECONDS = 0.5
"""How long a host that has stopped all work waits until all of it is known to the coordinator."""

ASK_SECONDS = 0.2
"""How long a host waits before it asks again a coordinator that did not answer."""

T = TypeVar("T")


class Host:
    """One host. ``deliver`` takes work; everything it does comes back through the coordinator it is attached to."""

    def __init__(self, name: str, pool: str, models: Models, teams: dict[str, Roles] | None = None) -> None:
        self.name = name
        self.pool = pool
        self.capacity = Resources().agents_per_host
        self.models = models
        self._incarnation = f"{name}/{secrets.token_hex(4)}"
        self._teams: dict[str, Roles] = teams if teams is not None else {}
        self._at_work: dict[tuple[str, str], Agent] = {}
        self._side: CoordinatorSide | None = None
        self._born = 0
        self._held: dict[str, asyncio.Event] = {}
        self._inbox = Inbox("")
        self._outbox: Outbox | None = None
        self._pump: asyncio.Task[None] | None = None
        self._taking = asyncio.Lock()
        self._loading = asyncio.Lock()
        self._attaching = asyncio.Lock()
        self.permits = Permits(self._report)

    async def attach(self, coordinator: str, side: CoordinatorSide, born: int, wanted: Sequence[Place] = ()) -> Attached:
        """See ``HostSide``. What it goes on with keeps its place on the way up: what was said and not acknowledged is said again."""
        async with self._attaching:
            if born < self._born:
                raise StaleEpoch(f"{self.name} works for a coordinator that began later; stop this one")
            self._born, self._side, self._inbox = born, side, Inbox(coordinator)
            kept = self._kept(set(wanted))
            await self._drop(all_but=kept)
            if not kept or self._outbox is None:
                self._incarnation = f"{self.name}/{secrets.token_hex(4)}"
                self._outbox = Outbox(self._incarnation, self._carry, self._put_blob)
            self._pump = asyncio.create_task(self._outbox.run(), name=f"{self.name} outbox")
            self.permits.attach(coordinator)
            return Attached(self._incarnation, self._outbox.first, tuple(sorted(kept)))

    def _kept(self, wanted: set[Place]) -> set[Place]:
        """Those of ``wanted`` that are at work here, or have ended and nobody knows yet."""
        there = {(agent.run, agent.task, agent.attempt) for agent in self._at_work.values()}
        for parcel in self._outbox.unheard() if self._outbox is not None and wanted - there else ():
            said = None if parcel.large else codec.unpack(parcel.body)
            if isinstance(said, m.TaskEnded):
                there.add((parcel.run, said.task, said.attempt))
        return wanted & there

    def _report(self, said: m.CallsReported) -> None:
        self.outbox.send("", codec.pack(said), f"calls / {said.model}")

    async def _carry(self, batch: bytes, label: str) -> int:
        return await self.side.deliver(self.name, batch, label)

    async def _put_blob(self, data: bytes) -> m.BlobRef:
        return await self._surely(lambda: self.side.put_blob(data))

    async def _get_blob(self, digest: str) -> bytes:
        return await self._surely(lambda: self.side.get_blob(digest))

    async def _surely(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the coordinator answers: where none does, what the next one does."""
        while True:
            try:
                return await ask()
            except LinkDown:
                await asyncio.sleep(ASK_SECONDS)

    async def ping(self) -> str:
        """The incarnation that is attached now."""
        return self._incarnation

    async def deliver(self, batch: bytes, label: str = "") -> int:
        """Take a batch of work, answers and stops; returns the number of the last parcel taken."""
        async with self._taking:
            unpacked, inbox = Batch.unpack(batch), self._inbox
            for parcel in inbox.fresh(unpacked):
                body = await open_parcel(parcel, self._get_blob)
                if self._inbox is not inbox:
                    return 0  # another coordinator has been attached meanwhile
                self._take(parcel.run, codec.unpack(body))
            return inbox.take(unpacked)

    async def stop(self) -> tuple[Place, ...]:
        """See ``HostSide``."""
        self._inbox, agents = Inbox(""), list(self._at_work.values())
        left = await self._leave(agents)
        try:
            async with asyncio.timeout(HEARD_SECONDS):
                await self.outbox.emptied()
        except TimeoutError:
            left = agents
        return tuple((agent.run, agent.task, agent.attempt) for agent in left)

    async def close(self) -> None:
        """End all work and close the models."""
        await self._drop()
        await self.models.aclose()

    async def _drop(self, all_but: Collection[Place] = ()) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
        await self._leave([agent for agent in self._at_work.values() if (agent.run, agent.task, agent.attempt) not in all_but])
        if pump is not None:
            await asyncio.wait([pump], timeout=LEAVE_SECONDS)

    async def _leave(self, agents: Sequence[Agent]) -> list[Agent]:
        """Abandon these; returns those that do not stop."""
        for agent in agents:
            agent.abandon()
            del self._at_work[agent.run, agent.task]
        handles = [agent.task_handle for agent in agents if agent.task_handle is not None]
        _, left = await asyncio.wait(handles, timeout=LEAVE_SECONDS) if handles else (None, set())
        return [agent for agent in agents if agent.task_handle in left]

    def _take(self, run: str, message: m.Message) -> None:
        if isinstance(message, m.Assign):
            agent = Agent(self, run, message)
            self._at_work[run, message.task] = agent
            agent.task_handle = asyncio.create_task(agent.perform())
            agent.task_handle.add_done_callback(agent.account)
            return
        if isinstance(message, m.HoldRun):
            self._hold(run, message.held)
            return
        if isinstance(message, m.LimitRun):
            for agent in self._at_work.values():
                if agent.run == run:
                    agent.limit()
            return
        if isinstance(message, m.PermitsChanged):
            self.permits.hear(message)
            return
        if not isinstance(message, (m.LeaseGranted, m.LeaseDenied, m.SubtasksEnded, m.StopTask)):
            raise UnknownMessage(f"a host has no use for {type(message).__name__}")
        agent_at_work = self._at_work.get((run, message.task))
        if agent_at_work is not None and agent_at_work.attempt == message.attempt:
            agent_at_work.hear(message)

    def _hold(self, run: str, held: bool) -> None:
        if held:
            self._held.setdefault(run, asyncio.Event())
        elif run in self._held:
            self._held.pop(run).set()

    def holds(self, run: str) -> bool:
        """Whether agents of this run must not make calls now."""
        return run in self._held

    async def released(self, run: str) -> None:
        """Return when agents of this run may make calls."""
        while run in self._held:
            await self._held[run].wait()

    async def roles(self, digest: str) -> Roles:
        """The roles of a team, by the digest of its code."""
        if digest not in self._teams:
            async with self._loading:
                if digest not in self._teams:
                    self._teams[digest] = code.unpack(await self._get_blob(digest))
        return self._teams[digest]

    @property
    def side(self) -> CoordinatorSide:
        """The coordinator."""
        assert self._side is not None
        return self._side

    @property
    def outbox(self) -> Outbox:
        """The way up."""
        assert self._outbox is not None
        return self._outbox

    async def keep(self, value: Any) -> m.Value:
        """An output as it travels: inline when it is small, else by digest."""
        packed = codec.pack_value(value)
        if len(packed) <= INLINE:
            return m.Value(inline=value)
        return m.Value(blob=await self._put_blob(packed))

    async def read(self, value: m.Value) -> Any:
        """The value behind a ``Value``."""
        if value.blob is None:
            return value.inline
        return codec.unpack_value(await self._get_blob(value.blob.digest))

    def at_work(self) -> Iterator[Agent]:
        """The agents at work, longest first."""
        return iter(self._at_work.values())

    async def ended(self, run: str, task: str) -> None:
        """Return when nobody works on this task here."""
        agent = self._at_work.get((run, task))
        if agent is not None and agent.task_handle is not None:
            await asyncio.wait((agent.task_handle,))

    def done(self, agent: Agent) -> None:
        """Forget an agent that has ended."""
        if self._at_work.get((agent.run, agent.task)) is agent:
            del self._at_work[agent.run, agent.task]
