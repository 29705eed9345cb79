"""One attempt at one task: it numbers the steps, keeps to the limits, recalls what was done, and reports what it does."""

import asyncio
import random
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from agents.at_work import Context, Counter, Outcome
from agents.desk import Desk
from agents.guards import Calls, Meter, Objection, failed
from agents.models.port import Model
from agents.role import Role
from agents.tool import Tool, ToolResult
from protocols.budget import NOTHING, UNLIMITED, Usage
from protocols.chat import ChatMessage, ModelReply, ModelRequest, ToolCall
from protocols.failures import BadInput, Failed, Failure, ModelError, Verdict
from protocols.messages import ModelCalled, SubtasksAsked, ToolCalled, ToolIntended
from protocols.plan import Task

MOST_TRIES = 4
"""A model call is tried this often when its provider says that trying again may help."""
FIRST_WAIT = 0.5
"""Seconds before the second try; doubled for each one after, unless the provider names a time."""
LONGEST_WAIT = 60.0
"""A provider that asks for a longer wait (seconds) ends the attempt; the task may be tried again later."""
MOST_GAP = 64
"""How many steps without a record are passed over in the search for effects behind a changed history."""

_ONE_TOOL_CALL = Usage(tool_calls=1)


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

    __slots__ = ("_cut", "_delegating", "_lost_writes", "_step", "clock", "counter", "desk", "lengths", "meter", "model", "role", "watch")

    def __init__(self, role: Role, desk: Desk, model: Model | None) -> None:
        self.role, self.desk, self.model = role, desk, model
        self.meter = Meter(role.name, role.limits or UNLIMITED)
        self.watch = Calls()
        self.clock: asyncio.Timeout | None = None
        self.counter: Counter | None = None
        self.lengths = 0
        self._step = 0
        self._cut = False
        self._lost_writes = False
        self._delegating: asyncio.Lock | None = None

    def next_step(self) -> int:
        """The next step ordinal."""
        step = self._step
        self._step = step + 1
        return step

    def context(self, step: int | None = None) -> Context:
        """What a function (or, with a step, a tool) is given."""
        desk = self.desk
        return Context(desk.run, desk.task, self.role.name, desk.attempt, step, self.counter)

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
        conversation, so that a difference from what is recalled says nothing about later steps. Raises ``Failed``.
        """
        model, desk, step = self.the_model(), self.desk, self.next_step()
        for past in self._recalled(step, digest, alone=alone):
            said = ()
            self.meter.recall(past.usage)
            self._pass(past.began, past.ended)
            if past.reply is not None:
                return past.reply
        request = request.model_copy(update={"digest": digest, "place": (desk.task, step)})
        tokens_in, tokens_out = model.bound(request)
        price = model.price
        micros = 0 if price is None else price.cost(tokens_in, tokens_out)
        need = Usage(input_tokens=tokens_in, output_tokens=tokens_out, micros=micros, model_calls=1, turns=int(turn))
        for tried in range(1, MOST_TRIES + 1):
            self.meter.take(need)
            try:
                await desk.afford(need)
            except BaseException:
                self.meter.settle(need, NOTHING)
                raise
            began, reply, failure, used, wait = desk.now(), None, None, need, 0.0
            try:
                reply = await model.complete(request, on_text)
                used = _used(reply, need, model)
                return reply
            except ModelError as error:
                used = need if error.charged else Usage(model_calls=1, turns=int(turn))
                wait = _wait(error.retry_after, tried)
                failure = _provider(model.id, str(error), error.retryable, tried)
                if not error.retryable or tried == MOST_TRIES or (error.retry_after or 0.0) > LONGEST_WAIT:
                    raise Failed(failure) from None
            except asyncio.CancelledError:
                failure = Failure(verdict=Verdict.CANCELLED, message="the work was stopped during this call; it may have been charged")
                raise
            except Exception as error:
                failure = _provider(model.id, f"{type(error).__name__}: {error}", False, tried)
                raise Failed(failure) from error
            finally:
                desk.settle(need, used)
                self.meter.settle(need, used)
                desk.tell(
                    ModelCalled(
                        task=desk.task,
                        attempt=desk.attempt,
                        step=step,
                        model=model.id,
                        request=digest,
                        said=said,
                        reply=reply,
                        failure=failure,
                        usage=used,
                        began=began,
                        ended=desk.now(),
                    )
                )
            said, turn = (), False
            need = need.model_copy(update={"turns": 0}) if need.turns else need
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def run_tools(self, calls: Sequence[ToolCall], *, reuse_failed: bool = True) -> list[Ran]:
        """Make the calls of one turn, in their order: neighbours that only read run together, a write runs alone.

        Wrong calls come back ``refused``, with feedback. Raises ``Failed``, also for an effect that is in doubt.
        """
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
        for one in ran:
            self.watch.gave(one.call, one.content)
        return ran

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
            left = self._stop_clock()
            ended = await desk.delegate(asked)
            self._start_clock(left)
        if ended.refused is not None:
            raise Failed(ended.refused)
        outcomes = []
        for task, output, failure in zip(tasks, ended.outputs, ended.failures, strict=True):
            if output is not None and output.blob is not None:
                raise failed(Verdict.INFRASTRUCTURE, f"the output of {task.id!r} was not fetched", retryable=True)
            outcomes.append(Outcome(task.id, output.inline if output else None, failure))
        return outcomes

    def _recalled(self, step: int, digest: str, *, alone: bool) -> list[ModelCalled]:
        """What was recorded of this very request, a reply last."""
        if self._cut:
            return []
        there = self.desk.recall(step)
        same = [one for one in there if isinstance(one, ModelCalled) and one.request == digest]
        if there and not same and not alone:
            self._cut = True
            self._lost_writes = self._writes_from(step)
        answered = [place for place, one in enumerate(same) if one.reply is not None]
        return same[: answered[-1] + 1] if answered else same

    def _writes_from(self, step: int) -> bool:
        empty = 0
        while empty < MOST_GAP:
            there = self.desk.recall(step)
            if any(isinstance(one, ToolIntended) for one in there):
                return True
            empty = 0 if there else empty + 1
            step += 1
        return False

    def _check(self, call: ToolCall) -> _Checked:
        step, tool = self.next_step(), self.role.toolbox.get(call.name)
        arguments: dict[str, object] = {}
        if tool is None:
            objection: Objection | None = self.watch.unknown(call, self.role.toolbox)
        else:
            objection = self.watch.repeated(call, repeatable=tool.repeatable)
            try:
                arguments = tool.read_arguments(call.arguments) if objection is None else {}
            except BadInput as error:
                objection = self.watch.refused(str(error))
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
        there = self.desk.recall(step)
        past = next((told for told in reversed(there) if isinstance(told, ToolCalled) and _same(told.call, call)), None) if there else None
        if one.objection is not None or tool is None:
            return self._refuse(one, told=past is not None and not self._cut)
        writes = tool.effect == "write"
        if past is not None and past.ran and (writes or not self._cut) and not _again(past, writes, reuse_failed):
            self.meter.recall(_ONE_TOOL_CALL)
            self._pass(past.began, past.ended)
            if past.failure is not None and past.failure.verdict is not Verdict.TOOL_ERROR:
                raise Failed(past.failure)
            return Ran(call, past.content, past.failure)
        desk, context = self.desk, self.context(step)
        if writes:
            self._settle_doubt(step, call, tool)
        self.meter.take(_ONE_TOOL_CALL)
        await desk.afford(_ONE_TOOL_CALL)
        if writes:
            await desk.commit(ToolIntended(task=desk.task, attempt=desk.attempt, step=step, call=call, key=context.key))
        began = desk.now()
        try:
            result = await tool.run(one.arguments, context)
            if result.in_doubt and tool.idempotent:
                result = await tool.run(one.arguments, self.context(step))
            if result.in_doubt:
                message = f"{result.content}; it may or may not have happened. Look at the other side, then resume or cancel the run"
                raise failed(Verdict.EFFECT_IN_DOUBT, message, context.key)
        except Failed as error:
            self._told(one, ToolResult(error.failure.message, error.failure), began)
            raise
        self._told(one, result, began)
        return Ran(call, result.content, result.failure)

    def _settle_doubt(self, step: int, call: ToolCall, tool: Tool) -> None:
        """Raises ``Failed`` (effect in doubt) when starting this write could repeat one, or cross one, of an earlier attempt."""
        intents = [told for told in self.desk.recall(step) if isinstance(told, ToolIntended)]
        key = f"{self.desk.run}/{self.desk.task}/{step}"
        if not all(_same(told.call, call) for told in intents):
            raise failed(Verdict.EFFECT_IN_DOUBT, f"an earlier attempt made another change at {key} than {call.name!r} would now", key)
        if intents and not tool.idempotent:
            message = (
                f"an earlier attempt began {call.name!r} ({key}) and nobody recorded its end: it may or may not have happened. "
                "Look at the other side, then resume or cancel the run"
            )
            raise failed(Verdict.EFFECT_IN_DOUBT, message, key)
        if self._lost_writes and not intents:
            message = f"the conversation changed since an earlier attempt that made changes, so {call.name!r} might repeat one of them"
            raise failed(Verdict.EFFECT_IN_DOUBT, message, key)

    def _refuse(self, one: _Checked, *, told: bool) -> Ran:
        assert one.objection is not None
        content = f"not done: {one.objection.message}"
        failure = Failure(verdict=one.objection.verdict, message=one.objection.message)
        if not told:
            self._told(one, ToolResult(content, failure), self.desk.now(), ran=False)
        return Ran(one.call, content, failure, refused=True)

    def _told(self, one: _Checked, result: ToolResult, began: int, *, ran: bool = True) -> None:
        desk = self.desk
        if ran:
            desk.settle(_ONE_TOOL_CALL, _ONE_TOOL_CALL)
        desk.tell(
            ToolCalled(
                task=desk.task,
                attempt=desk.attempt,
                step=one.step,
                call=one.call,
                content=result.content,
                failure=result.failure,
                ran=ran,
                effect=one.tool.effect if one.tool else "read",
                began=began,
                ended=desk.now(),
            )
        )

    def _pass(self, began: int, ended: int) -> None:
        """Recalled time counts against the role's seconds."""
        if self.clock is not None and not self.clock.expired() and ended > began:
            when = self.clock.when()
            if when is not None:
                self.clock.reschedule(when - (ended - began) / 1000)

    def _stop_clock(self) -> float | None:
        when = self.clock.when() if self.clock is not None else None
        if self.clock is None or when is None or self.clock.expired():
            return None
        self.clock.reschedule(None)
        return when - asyncio.get_running_loop().time()

    def _start_clock(self, left: float | None) -> None:
        if self.clock is not None and left is not None and not self.clock.expired():
            self.clock.reschedule(asyncio.get_running_loop().time() + left)


def _used(reply: ModelReply, need: Usage, model: Model) -> Usage:
    """What the reply cost; where the provider reports no count, the reservation."""
    tokens_in = need.input_tokens if reply.input_tokens is None else reply.input_tokens
    tokens_out = need.output_tokens if reply.output_tokens is None else reply.output_tokens
    micros = reply.micros
    if micros is None:
        micros = 0 if model.price is None else model.price.cost(tokens_in, tokens_out)
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, micros=micros, model_calls=1, turns=need.turns)


def _wait(named: float | None, tried: int) -> float:
    """Seconds before the next try: doubled each time, or what the provider named; spread, so that agents do not come back all at once."""
    if named is None:
        return FIRST_WAIT * (1 << tried - 1) * (0.5 + random.random())
    return named + min(named, FIRST_WAIT) * random.random()


def _provider(model: str, why: str, retryable: bool, tried: int) -> Failure:
    message = f"model {model} failed (try {tried}): {why}"
    return Failure(verdict=Verdict.PROVIDER, message=message, retryable=retryable)


def _same(one: ToolCall, other: ToolCall) -> bool:
    """Whether two calls ask for the same; their ids are the provider's and say nothing."""
    return one.name == other.name and one.arguments == other.arguments


def _again(past: ToolCalled, writes: bool, reuse_failed: bool) -> bool:
    """Whether a recorded call is made again: a read that failed and ended the attempt, or an effect in doubt."""
    if past.failure is None:
        return False
    if past.failure.verdict is Verdict.EFFECT_IN_DOUBT:
        return True
    return not writes and (not reuse_failed or past.failure.verdict is not Verdict.TOOL_ERROR)
