"""Chaos: faults that a rehearsal brings about at a chosen tool call, and the hosts, links and journal that suffer them. No Ray here.

Tool calls are counted over the whole run in the order in which tools start, from 1; one that is made again counts again, and delegating
is none. Each fault happens once.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from agents.at_work import Context
from agents.role import Role
from agents.tool import Tool, ToolResult
from orchestrator.code import Roles
from orchestrator.host import Host
from orchestrator.journal.port import Entry, Journal
from orchestrator.link import LinkDown, open_parcel
from orchestrator.models import Models
from orchestrator.scheduler import EVERY
from orchestrator.sides import Attached, CoordinatorSide, Place
from protocols import codec
from protocols import messages as m
from protocols.envelope import Batch

Moment = Literal["before", "after", "recorded"]
"""Before the tool runs (a write has been announced), after it ran and nobody knows yet, or once its result is in the journal."""


@dataclass(frozen=True)
class KillHost:
    """The process that carries the agents dies, with everything it had at work, and comes back empty."""

    at_tool_call: int
    when: Moment = "after"


@dataclass(frozen=True)
class StopCoordinator:
    """The coordinator stops in the middle of its work, another one takes the run over, and then the first one wakes and goes on."""

    at_tool_call: int
    when: Literal["before", "after"] = "before"


@dataclass(frozen=True)
class DropAcknowledgement:
    """The result of the tool call arrives and is stored, and the host never hears that it did."""

    at_tool_call: int


@dataclass(frozen=True)
class DropReport:
    """The result of the tool call is lost on its way, and must be said again."""

    at_tool_call: int


@dataclass(frozen=True)
class DoubleReport:
    """The result of the tool call arrives twice."""

    at_tool_call: int


@dataclass(frozen=True)
class DelayAcknowledgement:
    """The host hears ``seconds`` later that the result of the tool call has arrived."""

    at_tool_call: int
    seconds: float = 0.05


Fault = KillHost | StopCoordinator | DropAcknowledgement | DropReport | DoubleReport | DelayAcknowledgement


class Unrest:
    """The faults of one rehearsal, and how far its tool calls have come. ``succeed`` has another coordinator take over."""

    def __init__(self, faults: Sequence[Fault], succeed: Callable[[], Awaitable[None]]) -> None:
        self.faults, self.succeed = list(faults), succeed
        self.calls = 0
        self._reports: dict[tuple[str, int], list[Fault]] = {}

    def begin(self, context: Context) -> list[Fault]:
        """A tool starts: what happens at this call."""
        self.calls += 1
        now = [fault for fault in self.faults if fault.at_tool_call == self.calls]
        of_report = [fault for fault in now if getattr(fault, "when", "recorded") == "recorded"]
        if of_report:
            self._reports[context.task, context.step or 0] = of_report
        return [fault for fault in now if fault not in of_report]

    def reported(self, message: m.Message) -> list[Fault]:
        """What happens to the report of a tool call."""
        return self._reports.pop((message.task, message.step), []) if isinstance(message, m.ToolCalled) else []


class MortalHost:
    """A host that can be killed: what it had at work is gone, and it comes back as another incarnation."""

    def __init__(self, name: str, run: str, cast: Roles, unrest: Unrest) -> None:
        self.name, self.pool = name, EVERY
        self._unrest = unrest
        self._models = _Kept()
        self._teams: dict[str, Roles] = {run: {key: self._watched(role) for key, role in cast.items()}}
        self._host = self._born()
        self._dead = False

    @property
    def capacity(self) -> int:
        """See ``HostSide``."""
        return self._host.capacity

    async def attach(self, coordinator: str, side: CoordinatorSide, born: int, wanted: Sequence[Place] = ()) -> Attached:
        """See ``HostSide``."""
        self._alive()
        return await self._host.attach(coordinator, _Wire(side, self, self._unrest), born, wanted)

    async def deliver(self, batch: bytes, label: str = "") -> int:
        """See ``HostSide``."""
        self._alive()
        return await self._host.deliver(batch, label)

    async def stop(self) -> tuple[Place, ...]:
        """See ``HostSide``."""
        self._alive()
        return await self._host.stop()

    async def ping(self) -> str:
        """See ``HostSide``."""
        self._alive()
        return await self._host.ping()

    async def kill(self) -> None:
        """End this incarnation at once, and begin the next."""
        self._dead, host = True, self._host
        await host.close()
        self._host, self._dead = self._born(), False

    async def close(self) -> None:
        """End it for good."""
        self._dead = True
        await self._host.close()
        await self._models.release()

    def _born(self) -> Host:
        return Host(self.name, self.pool, self._models, self._teams)

    def _alive(self) -> None:
        if self._dead:
            raise LinkDown(f"{self.name} is dead")

    def _watched(self, role: Role) -> Role:
        known = {one.name for one in fields(Tool)}
        tools = tuple(
            _WatchedTool(**{key: value for key, value in vars(tool).items() if key in known}, host=self, unrest=self._unrest)
            for tool in role.tools
            if isinstance(tool, Tool)
        )
        return replace(role, tools=tools)


class _Kept(Models):
    """Models that outlive the incarnations of their host."""

    async def aclose(self) -> None:
        """Keep them."""

    async def release(self) -> None:
        """Close them."""
        await super().aclose()


@dataclass(frozen=True, eq=False)
class _WatchedTool(Tool):
    """A tool that meets the faults of its call."""

    host: MortalHost | None = None
    unrest: Unrest | None = None

    async def run(self, arguments: dict[str, Any], context: Context) -> ToolResult:
        """See ``Tool.run``."""
        assert self.unrest is not None
        faults = self.unrest.begin(context)
        await self._meet(faults, "before")
        result = await super().run(arguments, context)
        await self._meet(faults, "after")
        return result

    async def _meet(self, faults: Sequence[Fault], when: Moment) -> None:
        assert self.unrest is not None
        assert self.host is not None
        for fault in faults:
            if isinstance(fault, KillHost) and fault.when == when:
                await _never(self.host.kill())
            elif isinstance(fault, StopCoordinator) and fault.when == when:
                await asyncio.shield(asyncio.ensure_future(self.unrest.succeed()))


class _Wire:
    """The way from a host to its coordinator, on which reports meet their faults."""

    def __init__(self, side: CoordinatorSide, host: MortalHost, unrest: Unrest) -> None:
        self._side, self._host, self._unrest = side, host, unrest
        self.put_blob, self.get_blob = side.put_blob, side.get_blob
        self.keep, self.kept, self.let_go = side.keep, side.kept, side.let_go

    async def deliver(self, host: str, batch: bytes, label: str = "") -> int:
        """See ``CoordinatorSide``."""
        unpacked, faults = Batch.unpack(batch), list[Fault]()
        for place, parcel in enumerate(unpacked.parcels, 1):
            faults += self._unrest.reported(codec.unpack(await open_parcel(parcel, self.get_blob)))
            if any(isinstance(fault, KillHost) for fault in faults):  # nothing that was said later gets out
                batch = unpacked._replace(parcels=unpacked.parcels[:place]).pack()
                break
        if any(isinstance(fault, DropReport) for fault in faults):
            raise LinkDown("the report was dropped")
        taken = await self._side.deliver(host, batch, label)
        for fault in faults:
            if isinstance(fault, DoubleReport):
                taken = await self._side.deliver(host, batch, label)
            elif isinstance(fault, DelayAcknowledgement):
                await asyncio.sleep(fault.seconds)
            elif isinstance(fault, DropAcknowledgement):
                raise LinkDown("the acknowledgement was dropped")
            elif isinstance(fault, KillHost):
                await _never(self._host.kill())
        return taken


_ending: set["asyncio.Future[None]"] = set()


async def _never(killing: Awaitable[None]) -> None:
    """Have the caller's own process killed: it does not come back from this."""
    task = asyncio.ensure_future(killing)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    await asyncio.Event().wait()


class Stoppable:
    """A journal as one coordinator has it: while that one is stopped, what it appends waits."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._goes_on = threading.Event()
        self._goes_on.set()

    def stop(self) -> None:
        """Let nothing through."""
        self._goes_on.clear()

    def wake(self) -> None:
        """Go on, with what waited first."""
        self._goes_on.set()

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """See ``Journal.append``."""
        self._goes_on.wait()
        self._journal.append(entries, epochs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)
