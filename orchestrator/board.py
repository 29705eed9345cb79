"""The board: where goals are posted. It opens a runtime (Ray, or this process) over a journal, starts runs and hands out handles."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pydantic_core import PydanticSerializationError, to_jsonable_python

from agents.models.port import Model
from orchestrator import code, warm
from orchestrator.code import Roles
from orchestrator.host import INLINE
from orchestrator.journal import open_journal
from orchestrator.link import HostGone, LinkDown, now
from orchestrator.outcomes import TaskOutcome, rows
from orchestrator.recording import recorded_run, replaying
from orchestrator.sides import Service, Watched
from orchestrator.team import UNNAMED, Team
from protocols import codec, ids
from protocols import messages as m
from protocols.budget import Limits, Usage
from protocols.envelope import Envelope
from protocols.failures import BadInput, CallboardError, Failure
from protocols.record import Record
from protocols.team import TeamSpec

WAIT_SECONDS = 5.0
AGAIN_SECONDS = 0.2
"""How long a coordinator that was lost is waited for before it is asked again."""

T = TypeVar("T")


class Runtime(Protocol):
    """What carries a service: this process, or a Ray cluster."""

    store: str | None

    async def open(self, roles: Callable[[], dict[str, Roles]]) -> Sequence[Service]:
        """Start coordinators and hosts."""
        ...

    async def prepare(self, team: TeamSpec) -> None:
        """Have hosts and model servers ready for the team's roles."""
        ...

    async def close(self) -> None:
        """End everything that was started."""
        ...


class RunResult(Record):
    """What a run brought: its output (typed where the team says how), how it ended, and what it took."""

    run_id: str
    status: m.Status
    output: Any = None
    failure: Failure | None = None
    usage: Usage = Usage()
    tasks: tuple[TaskOutcome, ...] = ()

    @property
    def cost_micros(self) -> int:
        """Money in millionths of a currency unit."""
        return self.usage.micros

    @property
    def results(self) -> tuple[TaskOutcome, ...]:
        """The tasks whose outputs are the run's results, in plan order: all that there is where the merge failed."""
        return tuple(task for task in self.tasks if task.is_result)

    @property
    def failed(self) -> tuple[TaskOutcome, ...]:
        """The tasks that failed, and so are missing from the results."""
        return tuple(task for task in self.tasks if task.failure is not None)

    @property
    def fallen_back(self) -> tuple[TaskOutcome, ...]:
        """The tasks that a fallback took over."""
        return tuple(task for task in self.tasks if task.fallbacks)


class RunHandle:
    """A run at work: follow it, wait for it, stop it."""

    def __init__(self, run_id: str, service: Service, team: Team | None) -> None:
        self.run_id = run_id
        self._service = service
        self._team = team
        self._board: Board | None = None

    def owns(self, board: "Board") -> None:
        """Close this board with the handle."""
        self._board = board

    async def close(self) -> None:
        """Let go of the run, and end the runtime if it was started for it."""
        if self._board is not None:
            await self._board.close()
            self._board = None

    async def events(self, after: int = 0) -> AsyncIterator[Envelope]:
        """Every entry of the run's journal as it is written, from the one after number ``after``, and pieces of output (``seq`` 0)."""
        partial = 0
        while True:
            news: Watched = await self._surely(self._service.watch, self.run_id, after, partial, WAIT_SECONDS)
            for body in news.partials:
                yield Envelope(self.run_id, 0, 0, codec.unpack(body))
            partial = news.partial
            for seq, at, body in news.entries:
                envelope = Envelope(self.run_id, seq, at, codec.unpack(body))
                after = seq
                yield envelope
                if isinstance(envelope.body, m.RunEnded):
                    return

    async def result(self) -> RunResult:
        """Wait for the end and return what the run brought. Raises ``StorageError`` when its journal can't be written."""
        while not await self._surely(self._service.wait, self.run_id, WAIT_SECONDS):
            pass
        ended = codec.unpack(await self._surely(self._service.ended, self.run_id))
        assert isinstance(ended, m.RunEnded)
        tasks = await self._outcomes()
        results = [task for task in tasks if task.is_result]
        output = await self._read(ended.output) if ended.output else None
        if ended.output is None and ended.status not in (m.Status.FAILED, m.Status.CANCELLED):
            output = [self._typed(task) for task in results]
        elif self._team is not None and len(results) == 1 and self._team.plan_is_one_task:
            output = self._typed(results[0])
        return RunResult(
            run_id=self.run_id, status=ended.status, output=output, failure=ended.failure, usage=ended.usage, tasks=tuple(tasks)
        )

    async def cancel(self, reason: str = "cancelled by request") -> None:
        """Stop the run. It has ended when ``result`` returns."""
        await self._surely(self._service.cancel, self.run_id, reason)

    async def pause(self) -> None:
        """Have the run rest: nothing is started and no call made until ``unpause``; its seconds go on."""
        await self._surely(self._service.pause, self.run_id, True)

    async def unpause(self) -> None:
        """Have a run that rests go on."""
        await self._surely(self._service.pause, self.run_id, False)

    async def decide(self, task: str, decision: m.Decision, *, result: str | None = None, note: str = "", user: str = "nobody") -> None:
        """Say, as ``user``, what became of the effect that ``task`` waits for a person for (``ReviewAsked`` in ``events``).

        ``result`` is what the call returned, for the agent to read. Raises ``BadInput`` when the task waits for nobody.
        """
        said = m.ReviewDecided(task=task, step=0, decision=decision, result=result, note=note, user=user, at=now())
        await self._surely(self._service.decide, self.run_id, codec.pack(said))

    async def _outcomes(self) -> list[TaskOutcome]:
        tasks: list[TaskOutcome] = []
        while True:
            total, page = rows(await self._surely(self._service.outcomes, self.run_id, len(tasks)))
            for row in page:
                outcome = row.outcome
                if row.blob is not None:
                    outcome = outcome.model_copy(update={"output": await self._read(m.Value(blob=row.blob))})
                tasks.append(outcome)
            if len(tasks) >= total:
                return tasks

    def _typed(self, task: TaskOutcome) -> Any:
        role = self._team.cast.get(task.role) if self._team is not None else None
        if role is None:
            return task.output
        try:
            return role.output_shape.read(task.output)
        except BadInput:
            return task.output

    async def _read(self, value: m.Value) -> Any:
        if value.blob is None:
            return value.inline
        return codec.unpack_value(await self._surely(self._service.get_blob, value.blob.digest))

    async def _surely(self, call: Any, *args: Any) -> Any:
        """``call``, again after a coordinator that was lost has come back and has taken the run up."""
        while True:
            try:
                return await call(*args)
            except HostGone:
                raise HostGone(
                    f"the coordinator of {self.run_id} has ended; `callboard resume {self.run_id}` goes on with the run"
                ) from None
            except LinkDown:
                await asyncio.sleep(AGAIN_SECONDS)
                with suppress(LinkDown):
                    await self._service.resume(self.run_id)


class Board:
    """A runtime over a journal, as an async context manager.

    ``runtime`` is ``ray`` or ``inline``; ``store`` a journal's address (see ``open_journal``); ``hosts`` how many processes carry agents.
    ``address`` is that of a Ray cluster, whose deployment carries the runs and stays when the board is closed. Runs are spread over
    ``coordinators``, each with hosts of its own; ``None`` is as many as the deployment has, else one.
    """

    def __init__(
        self, runtime: str = "ray", store: str | None = None, hosts: int = 2, address: str | None = None, coordinators: int | None = None
    ) -> None:
        if hosts < 1 or (coordinators is not None and coordinators < 1):
            raise BadInput(f"hosts is {hosts} and coordinators {coordinators or 1}; at least one of each is needed")
        if runtime == "inline" and coordinators not in (None, 1):
            raise BadInput(f"the inline runtime has one coordinator, not {coordinators}; use runtime='ray'")
        if address is not None and runtime != "ray":
            raise BadInput(f"address {address!r} is that of a Ray cluster; leave it out with runtime={runtime!r}")
        self._runtime = _runtime(runtime, store, hosts, address, coordinators)
        self._teams: dict[str, Roles] = {}
        self._services: Sequence[Service] = ()

    async def __aenter__(self) -> Self:
        try:
            self._services = await self._runtime.open(lambda: self._teams)
        except BaseException:
            await self._runtime.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """End the runtime. Runs that have not ended can be resumed."""
        await self._runtime.close()

    def service(self, run_id: str) -> Service:
        """The coordinator that carries this run."""
        if not self._services:
            raise BadInput("this board is not open; use `async with Board(...) as board`")
        return self._services[ids.share(run_id, len(self._services))]

    async def start(
        self,
        team: Team,
        goal: Any = None,
        *,
        user: str | None = None,
        budget: Limits | None = None,
        model: str | Model | None = None,
        target: str | None = None,
        run_id: str | None = None,
    ) -> RunHandle:
        """Begin a run. What ``budget`` limits replaces the team's limit; its other limits stay. The model ``recorded:RUN`` plays what
        models answered in an earlier run of this journal.

        Raises ``BadInput`` when the team, goal or model can't work; nothing has been done or stored then.
        """
        if run_id is not None and not ids.is_run_id(run_id):
            raise BadInput(f"{run_id!r} can't name a run; use at most 100 letters, digits, dots, dashes and underscores, and not 'last'")
        run = recorded_run(model)
        if run is not None:
            team = await asyncio.to_thread(self._replaying, team, run)
        elif model is not None:
            team = team.with_model(model)
        limits = team.budget.model_copy(update=budget.model_dump(exclude_none=True)) if budget else team.budget
        run_id, user = run_id or ids.new_run_id(), team.user if user is None else user
        if not ids.is_user_name(user):
            raise BadInput(UNNAMED)
        service = self.service(run_id)
        money = limits.micros is not None or await _despite_loss(service.limits_money, user)
        wrong = team.unmet(limits.model_copy(update={"micros": 0}) if money else limits) or team.unkept(limits)
        if wrong:
            raise BadInput(wrong[0])
        try:
            goal = to_jsonable_python(goal)
        except PydanticSerializationError as error:
            raise BadInput(f"the goal is not JSON: {error}; give JSON types, dataclasses or pydantic models") from None
        plan = team.plan(goal)
        spec = team.spec()
        await self._runtime.prepare(spec)
        packed_plan = None if plan is None else plan.model_dump(exclude_defaults=True)
        kept_plan, code_ref = await asyncio.gather(_keep(service, packed_plan), self._code(service, team))
        request = m.RunRequested(
            team=spec,
            goal=goal,
            user=user,
            budget=limits,
            reserve=team.reserve,
            plan=kept_plan if plan else None,
            code=code_ref,
            target=target,
        )
        await _despite_loss(service.submit, run_id, codec.pack(request))
        return RunHandle(run_id, service, team)

    async def resume(self, run_id: str, team: Team | None = None) -> RunHandle:
        """Carry a run on that has not ended, or follow it where it is at work; for one that has ended, the handle gives its result."""
        service = self.service(run_id)
        packed = await _despite_loss(service.begun, run_id)
        request = codec.unpack(packed) if packed is not None else None
        if isinstance(request, m.RunRequested):  # before anything is dispatched, for it may need a server
            await self._runtime.prepare(request.team)
        await _despite_loss(service.resume, run_id)
        return RunHandle(run_id, service, team)

    async def has(self, run_id: str) -> bool:
        """Whether this run has begun, however it stands."""
        return await self.service(run_id).begun(run_id) is not None

    async def abandon(self, run_id: str, reason: str) -> RunHandle:
        """Close a run that nobody works on: it is taken over and cancelled before anything more is done."""
        service = self.service(run_id)
        await service.abandon(run_id, reason)
        return RunHandle(run_id, service, None)

    def _replaying(self, team: Team, run: str) -> Team:
        with closing(open_journal(self._runtime.store)) as journal:
            return replaying(team, run, journal)

    async def _code(self, service: Service, team: Team) -> m.BlobRef:
        ref = await _despite_loss(service.put_blob, code.pack(team.cast))
        self._teams[ref.digest] = team.cast
        return ref


async def _keep(service: Service, value: Any) -> m.Value:
    packed = codec.pack_value(value)
    return m.Value(inline=value) if len(packed) <= INLINE else m.Value(blob=await _despite_loss(service.put_blob, packed))


async def _despite_loss(call: Callable[..., Awaitable[T]], *args: Any) -> T:
    """What a coordinator answers: where one is lost, what it does when it has come back."""
    while True:
        try:
            return await call(*args)
        except HostGone:
            raise
        except LinkDown:
            await asyncio.sleep(AGAIN_SECONDS)


def _runtime(name: str, store: str | None, hosts: int, address: str | None, coordinators: int | None) -> Runtime:
    if name == "inline":
        from orchestrator.inline import InlineRuntime

        return InlineRuntime(store)
    if name != "ray":
        raise BadInput(f"there is no runtime {name!r}; choose ray or inline")
    there = warm.found() if address is not None else None
    if there is not None and there.address == address:
        warm.heed(there)
    try:
        from orchestrator.cluster import RayRuntime
        from orchestrator.deployment import DeploymentRuntime
    except ImportError as error:
        raise CallboardError(f"Ray can't be imported ({error}); reinstall callboard, or use runtime='inline'") from None
    if address is None:
        return RayRuntime(store, hosts, coordinators or 1)
    return DeploymentRuntime(address, store, hosts, coordinators)
