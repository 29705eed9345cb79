"""One attempt at one task: it numbers the steps, keeps to the limits, recalls what was done, and reports what it does."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple, NoReturn

from agents.asking import Asking
from agents.at_work import Context, Counter, Outcome
from agents.cache import Cache
from agents.calls import Calling, Place, ask_review
from agents.clock import Clock
from agents.context import Conversation
from agents.desk import Desk
from agents.effects import same, standing, unsettled
from agents.guards import Meter, Mistakes, Objection, failed
from agents.models.port import Model
from agents.repetition import Repetition
from agents.role import Role
from agents.succession import Succession
from agents.tool import Tool, ToolResult
from protocols.budget import UNLIMITED, Limits, narrowed
from protocols.chat import ChatMessage, ModelReply, ModelRequest, ToolCall
from protocols.failures import BadInput, Failed, Failure, Verdict
from protocols.messages import ModelCalled, SubtasksAsked, ToolCalled
from protocols.plan import Task
from protocols.team import Strategy


class Ran(NamedTuple):
    """A tool call with what came of it. ``refused`` calls never ran: they were wrong, and the content says how."""

    call: ToolCall
    content: str
    failure: Failure | None = None
    refused: bool = False


class _Checked(NamedTuple):
    step: int
    call: ToolCall
    tool: Tool | None
    arguments: dict[str, object]
    objection: Objection | None


class Attempt:
    """The state that one agent needs while it works, and the calls that it can make."""

    __slots__ = (
        "_cut",
        "_delegating",
        "_lost_writes",
        "_ponged",
        "_step",
        "_writing",
        "_written",
        "cache",
        "clock",
        "concluding",
        "counter",
        "desk",
        "lengths",
        "limits",
        "meter",
        "mistakes",
        "models",
        "role",
        "talk",
        "watch",
    )

    def __init__(
        self, role: Role, desk: Desk, model: Model | None, fallback_models: Sequence[Model] = (), limits: Limits | None = None
    ) -> None:
        self.role, self.desk = role, desk
        self.models = Succession(model, fallback_models)
        self.limits = narrowed(role.limits or UNLIMITED, limits)
        # What concludes answers once, and nothing else that it does is new: its role's limits do not hold that back.
        held = UNLIMITED if desk.concluding else self.limits
        self.meter = Meter(role.name, held, desk.spent, "its limits" if limits is None else "its limits, or those of the task,")
        self.mistakes, self.watch = Mistakes(), Repetition()
        self.clock = Clock()
        self.counter: Counter | None = None
        self.cache = Cache(role, desk)
        self.lengths = 0
        self.talk: Conversation | None = None
        self.concluding = desk.concluding
        self._step = desk.first
        self._cut = False
        self._lost_writes = False
        self._written: set[int] = set()
        self._writing: Calling | None = None
        self._ponged = 0
        self._delegating: asyncio.Lock | None = None

    def next_step(self) -> int:
        """The next step ordinal."""
        step = self._step
        self._step = step + 1
        return step

    def context(self, step: int | None = None, announced: str | None = None) -> Context:
        """What a function (or, with a step, a tool) is given; ``announced`` is the key of a call that was begun before."""
        desk = self.desk
        return Context(desk.run, desk.task, self.role.name, desk.attempt, step, self.counter, announced=announced)

    @property
    def model(self) -> Model | None:
        """The model that is asked now."""
        return self.models.model

    def the_model(self) -> Model:
        """The model; raises ``BadInput`` when there is none."""
        if self.model is None:
            raise BadInput(f"role {self.role.name!r} asks a model and has none; give it model=, like model='embedded'")
        return self.model

    async def complete(
        self,
        request: ModelRequest,
        digest: str,
        said: tuple[ChatMessage, ...],
        *,
        turn: bool = True,
        on_text: Callable[[str], None] | None = None,
        alone: bool = False,
    ) -> ModelReply:
        """One model call: recalled if an earlier attempt paid for it, else reserved, made and reported; retried within bounds.

        All tries are records of one step. ``turn`` says that the call begins a turn; an ``alone`` call belongs to no
        conversation, so that a difference from what is recalled says nothing about later steps. Raises ``Failed``, and ``TakenOver``
        where a fallback model is to go on, at the next step.
        """
        try:
            return await Asking(self, request, digest, said, turn=turn, on_text=on_text, alone=alone).reply()
        finally:
            self.cache.let_go(digest)

    async def run_tools(self, calls: Sequence[ToolCall], *, reuse_failed: bool = True) -> list[Ran]:
        """Make the calls of one turn, in their order: neighbours that only read run together, a write runs alone.

        Wrong calls come back ``refused``, with feedback. Raises ``Failed``, also for an effect that is in doubt.
        """
        self.mistakes.begin()
        self.watch.begin()
        checked = [self._check(call) for call in calls]
        if len(checked) == 1:
            ran = [await self._run(checked[0], reuse_failed)]
        else:
            ran = []
            for alone, group in groupby(checked, key=lambda one: one.tool is not None and one.tool.effect == "write"):
                if alone:
                    ran += [await self._run(one, reuse_failed) for one in group]
                else:
                    ran += await self._run_together(list(group), reuse_failed)
        for one, before in zip(ran, checked, strict=True):
            if not one.refused:
                writes = before.tool is not None and before.tool.effect == "write"
                self.watch.gave(one.call, one.content, writes=writes, fails=one.failure is not None)
                self.cache.written = self.cache.written or writes
        return ran

    async def refuse_written(self, call: ToolCall) -> Ran:
        """Refuse a call that is only the text of a reply: nothing runs, and it is told. Raises ``Failed`` when it was told enough."""
        self.mistakes.begin()
        self.watch.begin()
        objection = self.mistakes.written(call.name, self.role.toolbox)
        return await self._run(_Checked(self.next_step(), call, None, {}, objection), reuse_failed=True)

    async def delegate(self, tasks: Sequence[Task], step: int | None) -> list[Outcome]:
        """Have subtasks run; one family at a time. Time spent waiting does not count against the role's seconds."""
        foreign = sorted({task.role for task in tasks} - set(self.role.delegates))
        if foreign:
            may = ", ".join(self.role.delegates) or "none"
            raise BadInput(f"role {self.role.name!r} may not delegate to {', '.join(foreign)}; its delegates= are: {may}")
        if not tasks:
            return []
        desk = self.desk
        asked = SubtasksAsked(task=desk.task, attempt=desk.attempt, step=self.next_step() if step is None else step, tasks=tuple(tasks))
        self._delegating = self._delegating or asyncio.Lock()
        async with self._delegating:
            with self.clock.stopped():
                ended = await desk.delegate(asked)
        if ended.refused is not None:
            self._refuse_subtasks(ended.refused, step)
        outcomes = []
        for task, output, failure in zip(tasks, ended.outputs, ended.failures, strict=True):
            if output is not None and output.blob is not None:
                raise failed(Verdict.INFRASTRUCTURE, f"the output of {task.id!r} was not fetched", retryable=True)
            outcomes.append(Outcome(task.id, output.inline if output else None, failure))
        return outcomes

    def _refuse_subtasks(self, refused: Failure, step: int | None) -> NoReturn:
        """A model that hands work round is told once, as what a tool raises is, and has another turn. Everything else ends the task."""
        final = step is None or self.role.strategy is Strategy.SINGLE or self._ponged not in (0, self.watch.turn)
        if final or refused.verdict is not Verdict.PING_PONG:
            raise Failed(refused)
        self._ponged = self.watch.turn
        raise BadInput(refused.message)

    def account_for_writes(self) -> None:
        """Ask a person about a write that an earlier attempt began and that this one, on another way, never came to."""
        for step, there in self.desk.history.writes():
            begun = None if step in self._written else unsettled(there)
            if begun is not None:
                why = f"attempt {begun.attempt} began {begun.call.name!r}, nobody recorded its end, and this attempt did not come to it"
                ask_review(self.desk, step, begun.call, begun.key, begun.began, why)

    async def look_back(self) -> None:
        """Ask the tool of a write that was broken off how it ended. Where nobody knows, the coordinator asks a person."""
        if self._writing is not None:
            await self._writing.look_back()

    def recalled(self, step: int, digest: str, *, alone: bool) -> list[ModelCalled]:
        """What was recorded of this very request, a reply last."""
        if self._cut:
            return []
        there = self.desk.history.recall(step)
        same = [one for one in there if isinstance(one, ModelCalled) and one.request == digest]
        if there and not same and not alone:
            self._cut = True
            self._lost_writes = bool(self.desk.history.writes(step))
        answered = [place for place, one in enumerate(same) if one.reply is not None]
        return same[: answered[-1] + 1] if answered else same

    def _check(self, call: ToolCall) -> _Checked:
        step, tool = self.next_step(), self.role.toolbox.get(call.name)
        arguments: dict[str, object] = {}
        if tool is None:
            objection: Objection | None = self.mistakes.unknown(call.name, self.role.toolbox)
        else:
            try:
                arguments = tool.read_arguments(call.arguments)
            except BadInput as error:
                objection = self.mistakes.refused(str(error))
            else:
                self.mistakes.fits()
                objection = self.watch.check(call, repeatable=tool.repeatable)
        return _Checked(step, call, tool, arguments, objection)

    async def _run_together(self, checked: list[_Checked], reuse_failed: bool) -> list[Ran]:
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._run(one, reuse_failed)) for one in checked]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [one.result() for one in running]

    async def _run(self, one: _Checked, reuse_failed: bool) -> Ran:
        step, call, tool = one.step, one.call, one.tool
        there = self.desk.history.recall(step)
        tries = [told for told in there if isinstance(told, ToolCalled) and same(told.call, call)] if there else []
        past = tries[-1] if tries else None
        if one.objection is not None or tool is None:
            return self._refuse(one, told=past is not None and not self._cut)
        writes = tool.effect == "write"
        if past is not None and (past.ran or past.settled) and (writes or not self._cut) and not _again(past, writes, reuse_failed):
            if past.failure is not None and past.failure.verdict is not Verdict.TOOL_ERROR:
                raise Failed(past.failure)
            return Ran(call, past.content, past.failure)
        if self.concluding and not (writes and there):
            return _left_out(call)
        if not writes:
            kept = await self.cache.result(tool, call)
            if kept is not None:
                self._place(step).told(call, tool.effect, kept, self.desk.now(), ran=False, settled="cache")
                return Ran(call, kept.content)
            made = await Calling(self._place(step), call, tool, one.arguments).made()
            await self.cache.keep_result(tool, call, made)
        else:
            self._written.add(step)
            stand = standing(there, call)
            calling = Calling(self._place(step, stand.doubt.key if stand.doubt else None), call, tool, one.arguments)
            self._writing = calling
            before = await calling.recovered(stand, changed=self._lost_writes)
            if before is None and self.concluding:
                return _left_out(call)
            made = before or await calling.made(stand.tries)
            self._writing = None
        return Ran(call, made.content, made.failure)

    def _refuse(self, one: _Checked, *, told: bool) -> Ran:
        assert one.objection is not None
        content = f"not done: {one.objection.message}"
        failure = Failure(verdict=one.objection.verdict, message=one.objection.message)
        if not told:
            effect = one.tool.effect if one.tool else "read"
            self._place(one.step).told(one.call, effect, ToolResult(content, failure), self.desk.now(), ran=False)
        return Ran(one.call, content, failure, refused=True)

    def _place(self, step: int, announced: str | None = None) -> Place:
        return Place(self.desk, self.meter, step, lambda step: self.context(step, announced))


def _left_out(call: ToolCall) -> Ran:
    """What an agent that is told to conclude reads of a call that was not made yet."""
    content = "not done: you can do no more"
    return Ran(call, content, Failure(verdict=Verdict.BUDGET, message=content), refused=True)


def _again(past: ToolCalled, writes: bool, reuse_failed: bool) -> bool:
    """Whether a recorded call is made again: a try that was to be followed by one, a read that ended the attempt, or an effect in doubt."""
    if past.failure is None:
        return False
    if past.again or past.failure.verdict is Verdict.EFFECT_IN_DOUBT:
        return True
    return not writes and (not reuse_failed or past.failure.verdict is not Verdict.TOOL_ERROR)
