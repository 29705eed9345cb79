"""Playback: a recorded run carried out by today's code, with models and tools that answer from the recording. No effects, no network.

The run goes over a journal in memory, under the id that it had. A model call that was never recorded, and a tool call that was never
recorded, are made by nobody: they are divergences, and end their task. Functions of roles are code and run; what one does besides
calling tools is its own business, so a role can be ``skipped``: then what it gave is taken from the recording. What depends on time is
no divergence: the order of tasks, leases, lost hosts, and limits of money and seconds, which do not hold here.
"""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from agents.at_work import Context
from agents.models.port import Model
from agents.models.recorded import RecordedModel
from agents.role import Role
from agents.tool import Tool, ToolResult
from orchestrator import code
from orchestrator.code import Roles
from orchestrator.coordinator import Coordinator
from orchestrator.divergence import Divergence, cut_short, differences, request_differs, value_differs
from orchestrator.host import Host
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.port import Journal
from orchestrator.models import Models
from orchestrator.recording import RecordedTask, Recording, originals
from orchestrator.replay import reader
from orchestrator.scheduler import EVERY
from orchestrator.team import Team
from protocols import codec
from protocols import messages as m
from protocols.chat import ModelReply, ModelRequest, ToolCall
from protocols.failures import BadInput, CallboardError, Failed, Failure, ModelError, Verdict
from protocols.record import Record
from protocols.team import Strategy

WAIT_SECONDS = 5.0


class Playback(Record):
    """What came of it: how much was compared, what differs (first things first), and ``notes`` that are no differences.

    ``unfinished`` tasks ended in the recording for a reason outside them, or not at all, and were compared as far as they went.
    """

    run: str
    tasks: int
    model_calls: int
    tool_calls: int
    unfinished: int
    divergences: tuple[Divergence, ...] = ()
    notes: tuple[str, ...] = ()


async def play(journal: Journal, run: str, team: Team, skipped: Collection[str] = ()) -> Playback:
    """Carry ``run`` out again with the code of ``team``, and compare. ``skipped`` are roles whose functions must not run.

    Raises ``BadInput`` for a run or role that is not there, and for one that can't be played.
    """
    recording = await asyncio.to_thread(Recording, journal, run)
    unknown = sorted(set(skipped) - set(team.cast))
    if unknown:
        raise BadInput(f"team {team.name!r} has no role {unknown[0]!r}; its roles are: {', '.join(team.cast)}")
    player = Player(recording, journal, team, frozenset(skipped))
    stage = MemoryJournal()
    host = Host("host/playback", EVERY, Models(), {run: player.cast()})
    coordinator = Coordinator(stage, [host])
    await coordinator.start()
    try:
        await coordinator.submit(run, codec.pack(_request(recording.request, team)))
        await _ended(coordinator, recording)
        return player.compared(Recording(stage, run), reader(stage))
    finally:
        await coordinator.close()
        await host.close()
        stage.close()


async def _ended(coordinator: Coordinator, recording: Recording) -> None:
    """Wait for the end; what a person gave then is given again."""
    after = partial = 0
    while True:
        news = await coordinator.watch(recording.run, after, partial, WAIT_SECONDS)
        partial = news.partial
        for seq, _, body in news.entries:
            after, asked = seq, codec.unpack(body)
            if isinstance(asked, m.RunEnded):
                return
            if isinstance(asked, m.ReviewAsked):
                told = recording.tasks.get(asked.task)
                then = told.decided.model_copy(update={"attempt": 0}) if told and told.decided else None
                nobody = m.ReviewDecided(task=asked.task, step=asked.step, decision=m.Decision.FAIL, note="nobody decided then")
                try:
                    await coordinator.decide(recording.run, codec.pack(then or nobody))
                except BadInput:  # it does not fit today's code
                    await coordinator.decide(recording.run, codec.pack(nobody))


def _request(then: m.RunRequested, team: Team) -> m.RunRequested:
    plan = team.plan(then.goal)
    kept = None if plan is None else m.Value(inline=plan.model_dump(exclude_defaults=True))
    return m.RunRequested(team=team.spec(), goal=then.goal, user=then.user, plan=kept)


class Player:
    """Answers everything that a team asks from one recording, and keeps what it was asked in vain."""

    def __init__(self, recording: Recording, journal: Journal, team: Team, skipped: frozenset[str]) -> None:
        self._recording, self._journal, self._team, self._skipped = recording, journal, team, skipped
        self._read = reader(journal)
        self._used: dict[str, set[int]] = defaultdict(set)
        self._found: dict[str, Divergence] = {}

    def cast(self) -> Roles:
        """The team's roles, with everything that reaches out of them played."""
        calls: dict[str, list[m.ModelCalled]] = defaultdict(list)
        for name, call in self._recording.calls():
            calls[name].append(call)
        return {name: self._played(name, role, calls[name]) for name, role in self._team.cast.items()}

    def compared(self, now: Recording, read: Callable[[m.Value], Any]) -> Playback:
        """What differs between the recording and ``now``, as its values are ``read``: the earliest in the recording first."""
        found = {one.task: one for one in differences(self._recording, now, self._read, read, skipped=self._skipped)}
        for name, heard in self._found.items():  # of two in one task the earlier counts, and what was heard while it worked says more
            known = found.get(name)
            if known is None or known.step is None or heard.step is None or heard.step <= known.step:
                found[name] = heard
        told = [one for name, one in self._recording.tasks.items() if name in now.tasks]
        return Playback(
            run=self._recording.run,
            tasks=len(told),
            model_calls=sum(len(one.models()) for one in told),
            tool_calls=sum(len(one.tools()) for one in told),
            unfinished=sum(cut_short(one) is not None for one in told),
            divergences=tuple(sorted(found.values(), key=lambda one: one.entry)),
            notes=tuple(self._notes()),
        )

    def ended(self, task: str, role: str) -> Failed | None:
        """How to end a task, as this role has it, at the end of its recording, if that is not of its own making."""
        told = self._recording.tasks.get(task)
        failure = None if told is None else cut_short(told, role)
        return None if failure is None else Failed(failure)

    def unheard(self, role: Role, request: ModelRequest, *, made: bool) -> Failed | None:
        """What ends a task that asks its model what was never recorded. ``None`` before the call is ``made``, where the recording ends with
        the role's turns: then its limits may end it now as well."""
        task, step = request.place or ("", 0)
        told = self._recording.tasks.get(task)
        if told is None:
            return self._differs(task, role.name, step, f"the recording has no such task of role {role.name!r}")
        until = next((place for place, one in enumerate(told.fallen) if one.role == role.name), len(told.fallen))
        further = any(one.role == role.name and one.fallen <= until and one.call.step >= step for one in told.models())
        if not further and (ended := self.ended(task, role.name)) is not None:
            return ended
        failure = told.failure_of(role.name)
        if not further and not made and failure is not None and failure.verdict is Verdict.TURNS:
            return None
        then = self._then.get(role.name)
        return self._differs(task, role.name, step, request_differs(told, step, request, then, self._team.cast[role.name]))

    async def call(self, call: ToolCall, context: Context) -> ToolResult:
        """What a tool call gave then; what it delegated is delegated again. Raises ``Failed`` for one that was never made."""
        told, step = self._recording.tasks.get(context.task), context.step or 0
        then = None if told is None else self._take(told, step, call)
        if told is None or then is None:
            ended = self.ended(context.task, context.role)
            if ended is not None:
                raise ended
            there = next((one.call for one in told.tools() if one.call.step == step), None) if told is not None else None
            was = "nothing was called at this step"
            if isinstance(there, m.ToolCalled):
                same = there.call.name == call.name
                was = str(value_differs(there.call.arguments, call.arguments)) if same else f"recorded is {there.call.name!r}"
            raise self._differs(context.task, context.role, step, f"tool {call.name!r} is called as it never was: {was}")
        asked = told.delegated.get(then.step)
        if asked is not None:
            await context.delegate(asked.tasks)
        if then.failure is not None and then.failure.verdict is not Verdict.TOOL_ERROR:
            raise Failed(then.failure)
        return ToolResult(then.content, then.failure)

    def _take(self, told: RecordedTask, step: int, call: ToolCall) -> m.ToolCalled | None:
        """The recorded call that equals this one: at the same step, or else the first elsewhere in the task that nobody took."""
        used = self._used[told.task.id]
        equal = [
            (place, one.call)
            for place, one in enumerate(told.tools())
            if isinstance(one.call, m.ToolCalled) and place not in used and (one.call.ran or one.call.settled)
            and (one.call.call.name, one.call.call.arguments) == (call.name, call.arguments)
        ]  # fmt: skip
        found = next((one for one in equal if one[1].step == step), equal[0] if equal else None)
        if found is None:
            return None
        used.add(found[0])
        return found[1]

    def _differs(self, task: str, role: str, step: int, what: str) -> Failed:
        told = self._recording.tasks.get(task)
        steps: Iterable[Any] = () if told is None else sorted((*told.models(), *told.tools()), key=lambda one: one.call.step)
        later = next((one.seq for one in steps if one.call.step >= step), None)
        entry = later or (told.closed if told is not None else 0) or self._recording.ended
        self._found.setdefault(task, Divergence(task=task, role=role, step=step, what=what, entry=entry))
        return Failed(Failure(verdict=Verdict.CANCELLED, message=f"stopped here, because it differs from the recording: {what}"))

    def _played(self, name: str, role: Role, calls: list[m.ModelCalled]) -> Role:
        limits = None if role.limits is None else role.limits.model_copy(update={"seconds": None})
        if name in self._skipped:
            return replace(
                role,
                run=self._taken(role),
                strategy=Strategy.FUNCTION,
                model=None,
                fallback_models=(),
                tools=(),
                delegates=(),
                limits=limits,
            )
        models = [] if role.model is None else [_PlayedModel(self, role, *one) for one in self._models(role, calls)]
        known = {one.name for one in fields(Tool)}
        tools = tuple(
            _PlayedTool(**{key: value for key, value in vars(tool).items() if key in known}, player=self)
            for tool in role.tools
            if isinstance(tool, Tool)
        )
        run = None if role.run is None else self._guarded(role)
        return replace(role, run=run, model=models[0] if models else None, fallback_models=models[1:], tools=tools, limits=limits)

    def _models(self, role: Role, calls: list[m.ModelCalled]) -> list[tuple[Model, list[m.ModelCalled]]]:
        ids = sorted({call.model for call in calls})
        if len(ids) > 1 and not any(call.then for call in calls):
            before = self._recording.request.forked
            instead = f"play {before[0]}, which it was forked from" if before is not None else "play a run that did not"
            raise BadInput(f"role {role.name!r} changed its model in run {self._recording.run!r} ({', '.join(ids)}); {instead}")
        try:
            return originals(role, calls, self._recording.run)
        except BadInput:
            model = then.model if (then := self._then.get(role.name)) is not None else None
            if model is None or isinstance(model, str):
                raise
            return [(model, calls)]

    def _guarded(self, role: Role) -> Callable[..., Any]:
        """The role's function, which does not run where the recording has no end of its own for the task."""
        run = role.run
        assert run is not None

        async def guarded(value: Any, context: Context) -> Any:
            if (ended := self.ended(context.task, role.name)) is not None:
                raise ended
            named = {} if role.run_context is None else {role.run_context: context}
            if role.run_is_async:
                return await run(value, **named)
            found = await asyncio.to_thread(run, value, **named)
            return await found if inspect.isawaitable(found) else found

        return guarded

    def _taken(self, role: Role) -> Callable[..., Any]:
        """A function that gives what the recording says."""

        async def taken(value: Any, context: Context) -> Any:
            told = self._recording.tasks.get(context.task)
            failure = told.failure_of(role.name) if told is not None else None
            if failure is not None:
                raise Failed(failure)
            if told is None or told.output is None:
                raise self.ended(context.task, role.name) or self._differs(
                    context.task, role.name, 0, "the recording has no output of it to take"
                )
            return role.output_shape.read(self._read(told.output))

        return taken

    @cached_property
    def _then(self) -> Roles:
        """The roles as they were, as far as their code can be loaded: it is only read, to say what changed."""
        ref = self._recording.request.code
        try:
            return {} if ref is None else code.unpack(self._journal.get_blob(ref.digest))
        except CallboardError:
            return {}

    def _notes(self) -> Iterable[str]:
        then = self._recording.request.team
        if then.name != self._team.name:
            yield f"the run was one of team {then.name!r}, and this is team {self._team.name!r}"
        for name, role in self._team.cast.items():
            spec = then.roles.get(name)
            if spec is not None and spec.model != role.model_id and name not in self._skipped:
                yield f"role {name!r} had the model {spec.model} and now has {role.model_id}; what was recorded was played"


class _PlayedModel(RecordedModel):
    """Refuses a request that was never recorded before anything of it is reserved or reported."""

    def __init__(self, player: Player, role: Role, original: Model, calls: list[m.ModelCalled]) -> None:
        super().__init__("", role.name, original, calls, verbatim=True)
        self._player, self._of = player, role

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        """The original's. Raises ``Failed`` for a request that was never recorded: this is asked before each call."""
        if not self.holds(request) and (ended := self._player.unheard(self._of, request, made=False)) is not None:
            raise ended
        return super().bound(request)

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """See ``RecordedModel``."""
        if not self.holds(request):
            raise ModelError(str(self._player.unheard(self._of, request, made=True)), charged=False)
        return await super().complete(request, on_text)


class _Arguments(dict[str, Any]):
    """Typed arguments, and the call as the model wrote it."""

    def __init__(self, typed: dict[str, Any], written: dict[str, Any] | str) -> None:
        super().__init__(typed)
        self.written = written


@dataclass(frozen=True, eq=False)
class _PlayedTool(Tool):
    """Checks arguments as the tool does, and answers from the recording."""

    player: Player | None = None

    def read_arguments(self, arguments: dict[str, Any] | str) -> dict[str, Any]:
        """See ``Tool.read_arguments``."""
        return _Arguments(super().read_arguments(arguments), arguments)

    async def run(self, arguments: dict[str, Any], context: Context) -> ToolResult:
        """What the recording says."""
        assert self.player is not None
        assert isinstance(arguments, _Arguments)
        return await self.player.call(ToolCall(id="", name=self.name, arguments=arguments.written), context)
