"""One attempt at one task: it numbers the steps, keeps to the limits, recalls what was done, and reports what it does."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple, NoReturn

from agents.at_work import Context, Counter, Outcome
from agents.cache import Cache
from agents.calls import Calling, Place, ask_review, recall, recorded, wait
from agents.context import Concluding, Conversation
from agents.desk import Desk, NoTurn, Turn
from agents.effects import same, standing, unsettled
from agents.guards import Meter, Mistakes, Objection, failed
from agents.mishap import passes, worded
from agents.models.port import Model
from agents.repetition import Repetition
from agents.role import Role
from agents.succession import Succession
from agents.tool import Tool, ToolResult
from protocols.budget import NOTHING, UNLIMITED, Usage
from protocols.chat import ChatMessage, ModelReply, ModelRequest, ToolCall
from protocols.failures import BadInput, Failed, Failure, ModelError, Verdict
from protocols.messages import ModelCalled, SubtasksAsked, ToolCalled, ToolIntended
from protocols.plan import Task
from protocols.team import Strategy

MOST_TRIES = 4
"""A model call is tried this often when its provider says that trying again may help."""
LONGEST_WAIT = 60.0
"""A provider that asks for a longer wait (seconds) ends the attempt; the task may be tried again later."""


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
        "_models",
        "_ponged",
        "_step",
        "_written",
        "cache",
        "clock",
        "concluding",
        "counter",
        "desk",
        "lengths",
        "meter",
        "mistakes",
        "role",
        "talk",
        "watch",
    )

    def __init__(self, role: Role, desk: Desk, model: Model | None, fallback_models: Sequence[Model] = ()) -> None:
        self.role, self.desk = role, desk
        self._models = Succession(model, fallback_models)
        self.meter = Meter(role.name, role.limits or UNLIMITED)
        self.mistakes, self.watch = Mistakes(), Repetition()
        self.clock: asyncio.Timeout | None = None
        self.counter: Counter | None = None
        self.cache = Cache(role, desk)
        self.lengths = 0
        self.talk: Conversation | None = None
        self.concluding = desk.concluding
        self._step = desk.first
        self._cut = False
        self._lost_writes = False
        self._written: set[int] = set()
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
        return self._models.model

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
        model, desk, step = self.the_model(), self.desk, self.next_step()
        for past in self._recalled(step, digest, alone=alone):
            said = ()
            self.meter.recall(past.usage)
            self._pass(past.began, past.ended)
            if past.reply is not None:
                return past.reply
            if past.then:
                self._models.hand_over(model, past.then)
        if self.concluding and not alone:
            raise Concluding(said)
        request = request.model_copy(update={"digest": digest, "place": (desk.task, step)})
        kept = await self.cache.reply(digest)
        if kept is not None:
            self.meter.take(Usage(turns=int(turn)))
            self._tell_call(model, step, request, said, desk.now(), reply=kept, cached=True)
            return kept
        tokens_in, tokens_out = model.bound(request)
        price = model.price
        micros = 0 if price is None else price.cost(tokens_in, tokens_out)
        need = Usage(input_tokens=tokens_in, output_tokens=tokens_out, micros=micros, model_calls=1, turns=int(turn))
        for tried in range(1, MOST_TRIES + 1):
            heir = self._models.cheaper(model, tokens_in, tokens_out)
            raised: BaseException | None = None
            began, reply, failure, used, pause, then = desk.now(), None, None, need, 0.0, ""
            try:
                paced = await self._permitted(model, need, final=heir is None)
            except (NoTurn, Failed) as error:
                failure = error.failure if isinstance(error, Failed) else _provider(model.id, str(error), True, tried)
                heir = heir if isinstance(error, Failed) else self._models.heir(model)
                if heir is None or failure.verdict not in (Verdict.BUDGET, Verdict.PROVIDER):
                    raise Failed(failure) from None
                self._tell_call(model, step, request, said, began, failure=failure, then=heir.id)
                self._models.hand_over(model, heir.id)
            began = desk.now()
            try:
                reply = await model.complete(request, on_text)
                used = _used(reply, need, model)
                return reply
            except ModelError as error:
                raised = error
                used = need if error.charged else Usage(model_calls=1, turns=int(turn))
                pause = wait(tried, error.retry_after)
                failure = _provider(model.id, str(error), error.retryable, tried)
                if not error.retryable or tried == MOST_TRIES or (error.retry_after or 0.0) > LONGEST_WAIT:
                    heir = self._models.heir(model) if error.retryable else None
                    if heir is None:
                        raise Failed(failure) from None
                    then = heir.id
            except BaseException as error:
                raised = error
                if passes(error):
                    failure = Failure(verdict=Verdict.CANCELLED, message="the work was stopped during this call; it may have been charged")
                    raise
                failure = _provider(model.id, worded(error), False, tried)
                raise Failed(failure) from error
            finally:
                desk.settle(need, used)
                self.meter.settle(need, used)
                if paced is not None:
                    paced.ended(used.tokens, raised)
                self._tell_call(model, step, request, said, began, reply=reply, failure=failure, usage=used, then=then)
                if reply is not None:
                    await self.cache.keep_reply(digest, reply)
            if then:
                self._models.hand_over(model, then)
            said, turn = (), False
            need = need.model_copy(update={"turns": 0}) if need.turns else need
            await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _permitted(self, model: Model, need: Usage, *, final: bool) -> Turn | None:
        """Reserve ``need`` and wait for a turn. Time spent waiting for one does not count against the role's seconds."""
        self.meter.take(need)
        try:
            await self.desk.afford(need, final=final)
            if getattr(model, "throttling", None) is None:
                return None
            left = self._stop_clock()
            try:
                return await self.desk.turn(model, need.tokens, elsewhere=bool(self._models.heirs))
            except BaseException:
                self.desk.settle(need, NOTHING)
                raise
            finally:
                self._start_clock(left)
        except BaseException:
            self.meter.settle(need, NOTHING)
            raise

    def _tell_call(
        self,
        model: Model,
        step: int,
        request: ModelRequest,
        said: tuple[ChatMessage, ...],
        began: int,
        *,
        reply: ModelReply | None = None,
        failure: Failure | None = None,
        usage: Usage = NOTHING,
        then: str = "",
        cached: bool = False,
    ) -> None:
        desk = self.desk
        desk.tell(
            ModelCalled(
                task=desk.task,
                attempt=desk.attempt,
                step=step,
                model=model.id,
                request=request.digest,
                said=said,
                reply=reply,
                failure=failure,
                usage=usage,
                priced=model.price is not None or (reply is not None and reply.micros is not None),
                then=then,
                cached=cached,
                cut=request.cut,
                began=began,
                ended=desk.now(),
            )
        )

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
            left = self._stop_clock()
            ended = await desk.delegate(asked)
            self._start_clock(left)
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
        for step, there in recorded(self.desk) if self.desk.attempt > 1 else ():
            begun = None if step in self._written else unsettled(there)
            if begun is not None:
                why = f"attempt {begun.attempt} began {begun.call.name!r}, nobody recorded its end, and this attempt did not come to it"
                ask_review(self.desk, step, begun.call, begun.key, begun.began, why)

    def _recalled(self, step: int, digest: str, *, alone: bool) -> list[ModelCalled]:
        """What was recorded of this very request, a reply last."""
        if self._cut:
            return []
        there = self.desk.recall(step)
        same = [one for one in there if isinstance(one, ModelCalled) and one.request == digest]
        if there and not same and not alone:
            self._cut = True
            self._lost_writes = any(isinstance(one, ToolIntended) for _, behind in recorded(self.desk, step) for one in behind)
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
        there = self.desk.recall(step)
        tries = [told for told in there if isinstance(told, ToolCalled) and same(told.call, call)] if there else []
        past = tries[-1] if tries else None
        if one.objection is not None or tool is None:
            return self._refuse(one, told=past is not None and not self._cut)
        writes = tool.effect == "write"
        if past is not None and (past.ran or past.settled) and (writes or not self._cut) and not _again(past, writes, reuse_failed):
            recall(tries, self.meter, self._pass)
            if past.failure is not None and past.failure.verdict is not Verdict.TOOL_ERROR:
                raise Failed(past.failure)
            return Ran(call, past.content, past.failure)
        if not writes:
            kept = await self.cache.result(tool, call)
            if kept is not None:
                self._place(step).told(call, tool.effect, kept, self.desk.now(), ran=False, settled="cache")
                return Ran(call, kept.content)
            made = await Calling(self._place(step), call, tool, one.arguments).made()
            await self.cache.keep_result(tool, call, made)
        else:
            recall(tries, self.meter, self._pass)
            self._written.add(step)
            stand = standing(there, call)
            calling = Calling(self._place(step, stand.doubt.key if stand.doubt else None), call, tool, one.arguments)
            made = await calling.recovered(stand, changed=self._lost_writes) or await calling.made(stand.tries)
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


def _provider(model: str, why: str, retryable: bool, tried: int) -> Failure:
    message = f"model {model} failed (try {tried}): {why}"
    return Failure(verdict=Verdict.PROVIDER, message=message, retryable=retryable)


def _again(past: ToolCalled, writes: bool, reuse_failed: bool) -> bool:
    """Whether a recorded call is made again: a try that was to be followed by one, a read that ended the attempt, or an effect in doubt."""
    if past.failure is None:
        return False
    if past.again or past.failure.verdict is Verdict.EFFECT_IN_DOUBT:
        return True
    return not writes and (not reuse_failed or past.failure.verdict is not Verdict.TOOL_ERROR)
