"""An agent: one attempt at one task, an asyncio task of its host, and the desk it works at. No Ray here."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from agents.call_size import CallSize
from agents.calls import wait
from agents.desk import Taken
from agents.history import History
from agents.loop import work
from agents.mishap import frames, passes, worded
from agents.models.port import Model
from orchestrator.keepsakes import Keepsakes
from orchestrator.ledger import as_usage, least, minus, most, plus
from orchestrator.link import now
from orchestrator.observe.logs import get_logger
from orchestrator.permits import Turn
from orchestrator.pieces import Pieces
from protocols import codec
from protocols import messages as m
from protocols.budget import NOTHING, UNLIMITED, ZERO, Amount, Tally, Usage, amount, narrowed
from protocols.failures import CallboardError, Failed, Failure, Verdict
from protocols.json_text import sendable
from protocols.plan import resolve
from protocols.trust import Origin

if TYPE_CHECKING:
    from orchestrator.host import Host

log = get_logger("host")


class Agent(Keepsakes):
    """One attempt at one task, and the desk it works at."""

    __slots__ = (
        "_answers", "_asking", "_asks", "_ended", "_left", "_limited", "_over", "_pieces", "_seconds", "_stop", "_unasked",
        "_under_way", "_used", "assign", "attempt", "began", "claims", "history", "host", "label", "run", "task", "task_handle",
    )  # fmt: skip

    def __init__(self, host: "Host", run: str, assign: m.Assign) -> None:
        self.host = host
        self.run = run
        self.assign = assign.model_copy(update={"history": ()}) if assign.history else assign
        self.task = assign.task
        self.attempt = assign.attempt
        self.began = now()
        self.task_handle: asyncio.Task[None] | None = None
        self._left: Amount = amount(assign.lease) if assign.lease else ZERO
        self._limited = assign.limited
        self._under_way = self._unasked = 0
        self._used = Tally()
        self._asks = 0
        self._asking: asyncio.Lock | None = None
        self._answers: dict[tuple[str, int], asyncio.Future[m.Message]] = {}
        self._stop: Failure | None = None
        self._seconds: float | None = None
        self._over = self._ended = False
        self._pieces: Pieces | None = None
        self.claims: dict[str, tuple[str, bool]] = {}
        self.label = f"{run} / {assign.role} / {assign.task}"
        self.history = History(map(codec.unpack, assign.history))

    # what the coordinator says

    def hear(self, message: m.Message) -> None:
        """Take an answer, or stop."""
        if isinstance(message, m.StopTask):
            self._stop = message.failure
            self._end()
        elif isinstance(message, (m.LeaseGranted, m.LeaseDenied)):
            # What nobody waits for any more, because the call was given up, is for the next.
            if self._answer(("lease", message.ask), message) and isinstance(message, m.LeaseGranted):
                self._left = plus(self._left, amount(message.lease))
        elif isinstance(message, m.SubtasksEnded):
            self._answer(("subtasks", message.step), message)

    def _answer(self, key: tuple[str, int], message: m.Message) -> bool:
        """Whether this was asked, and not answered before."""
        future = self._answers.pop(key, None)
        if future is not None and not future.done():
            future.set_result(message)
        return future is not None

    def limit(self) -> None:
        """Ask for room from the next call on, if it did not so far. For the calls that are under way nobody was asked."""
        if not self._limited:
            self._limited, self._unasked = True, self._under_way

    def abandon(self) -> None:
        """Stop without a word: nobody is there to hear it."""
        self._stop = None
        if self._pieces is not None:
            self._pieces.drop()
        self._end()

    def _end(self) -> None:
        """Cancel the work. It makes no call after this, whatever its tools catch, and says how it ended even when it has not begun."""
        self._over = True
        if self.task_handle is not None:
            asyncio.get_running_loop().call_soon(self.task_handle.cancel)

    # the work

    async def perform(self) -> None:
        """Do the task and report how it ended."""
        structlog.contextvars.bind_contextvars(run=self.run, task=self.task, role=self.assign.role, attempt=self.attempt)
        try:
            output, failure = await self._result()
        except asyncio.CancelledError as error:
            if self._is_abandoned:
                self.host.done(self)
                raise
            output, failure = None, self._stop or _failure(error)
        if failure is not None and failure.retryable and self.assign.tried and not self._over:
            await self._rest()
        self._end_with(output, failure)

    async def _rest(self) -> None:
        """Wait before a failure that may pass is told, within the role's seconds: the next try begins with that. Being stopped ends it."""
        seconds = wait(self.assign.tried)
        if self._seconds is not None:
            seconds = min(seconds, max(self._seconds - (now() - self.began) / 1000, 0.0))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if self._is_abandoned:
                self.host.done(self)
                raise

    def account(self, handle: asyncio.Task[None]) -> None:
        """See to it that the task has an end, however its work came to one: a task without would be waited for until the deadline."""
        error = asyncio.CancelledError() if handle.cancelled() else handle.exception()
        if not (self._ended or self._is_abandoned or error is None or isinstance(error, KeyboardInterrupt)):
            self._end_with(None, self._stop or _failure(error))

    @property
    def _is_abandoned(self) -> bool:
        return self._over and self._stop is None

    def _end_with(self, output: m.Value | None, failure: Failure | None) -> None:
        if failure is not None:
            log.warning("task failed", verdict=failure.verdict.value, why=failure.message)
        try:
            self._tell_end(output, failure, self._used.total())
        except Exception as error:  # it can't be sent like this, and an end with less in it is better than none
            verdict = failure.verdict if failure is not None else Verdict.CODE_ERROR
            self._tell_end(None, Failure(verdict=verdict, message=f"how it ended can't be told: {worded(error)}"), NOTHING)
        finally:
            self._ended = True
            self.host.done(self)

    def _tell_end(self, output: m.Value | None, failure: Failure | None, used: Usage) -> None:
        task, attempt = self.task, self.attempt
        self.tell(m.TaskEnded(task=task, attempt=attempt, output=output, failure=failure, usage=used, began=self.began, ended=now()))

    async def _result(self) -> tuple[m.Value | None, Failure | None]:
        if self._over:
            raise asyncio.CancelledError
        try:
            role = (await self.host.roles(self.assign.team))[self.assign.role]
            self._seconds = narrowed(role.limits or UNLIMITED, self.assign.limits).seconds
            value = self.assign.input
            origin = Origin.AGENT if self.assign.inputs else Origin.USER
            if self.assign.inputs:
                inputs = {name: await self.host.read(one) for name, one in self.assign.inputs.items() if one is not None}
                value = resolve(value, inputs)
            models = self.host.models
            others, limits = models.fallbacks(role), self.assign.limits
            output = await work(role, value, self, models.get(role), fallback_models=others, origin=origin, limits=limits)
            return await self.host.keep(output), None
        except Failed as error:
            if self._over and isinstance(error.__cause__, asyncio.CancelledError):
                raise error.__cause__ from None  # the order to stop was seen before it had come
            return None, error.failure
        except CallboardError as error:
            return None, Failure(verdict=Verdict.CODE_ERROR, message=str(error), retryable=error.retryable)
        except BaseException as error:
            if passes(error):
                raise
            return None, _failure(error)

    # the desk

    def now(self) -> int:
        return now()

    async def afford(self, need: Usage, *, final: bool = True, size: CallSize | None = None, now: bool = False) -> Taken:
        if self._over:
            raise asyncio.CancelledError
        if self.host.holds(self.run):
            await self.host.released(self.run)
        if self.host.outbox.is_full:
            await self.host.outbox.room()
        taken = await self._lease(need, final, size, now) if self._limited else Taken(need)
        self._under_way += 1
        return taken

    async def _lease(self, need: Usage, final: bool, size: CallSize | None, now: bool) -> Taken:
        wanted, limit = amount(need), ""
        while self._lacks(wanted):
            self._asking = self._asking or asyncio.Lock()
            async with self._asking:  # what is granted for one of its calls may do for those that wait with it
                if self._lacks(wanted):
                    need, limit = await self._leased(need, final, size, now)
                    wanted = amount(need)
        self._left = minus(self._left, wanted)
        return Taken(need, limit)

    def _lacks(self, wanted: Amount) -> bool:
        return any(want > left for want, left in zip(wanted, self._left, strict=True))

    async def _leased(self, need: Usage, final: bool, size: CallSize | None, now: bool) -> Taken:
        """More room; and what the call may use then, where there was not enough for the whole of ``need``."""
        self._asks += 1
        have = as_usage(most(self._left, ZERO))
        least_ = None if size is None else as_usage(least(amount(need), most(minus(amount(size.need(size.least)), self._left), ZERO)))
        ask = m.LeaseAsked(task=self.task, attempt=self.attempt, ask=self._asks, need=need, have=have, final=final, least=least_, now=now)
        answer = await self._ask(ask)
        if isinstance(answer, m.LeaseDenied):
            message = f"the limit on {answer.limit} is reached; raise it, or give the role a smaller model or fewer tokens"
            raise Failed(Failure(verdict=Verdict.BUDGET, message=message, limit=answer.limit))
        assert isinstance(answer, m.LeaseGranted)
        shorter = size.within(self._left) if size is not None and answer.limit else None
        if size is None or shorter is None or shorter >= need.output_tokens:
            return Taken(need)
        return Taken(size.need(shorter), answer.limit)

    async def turn(self, model: Model, tokens: int, *, elsewhere: bool, again: bool = False) -> Turn:
        while True:
            await self.host.released(self.run)
            turn = await self.host.permits.take(model.id, self.run, tokens, elsewhere=elsewhere, again=again)
            if not self.host.holds(self.run):
                return turn
            turn.ended(0, asyncio.CancelledError())  # the run was paused while it waited

    async def _ask(self, message: m.LeaseAsked) -> m.Message:
        future: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
        self._answers["lease", message.ask] = future
        self.tell(message)
        return await future

    def settle(self, need: Usage, used: Usage) -> None:
        self._used.add(used)
        self._under_way -= 1
        if self._unasked:  # nothing was taken out of the lease for it; the coordinator takes what there is
            self._unasked -= 1
            self._left = tuple(max(left - was, min(left, 0)) for left, was in zip(self._left, amount(used), strict=True))  # type: ignore[assignment]
        elif self._limited:
            # Below zero when a provider used more than its worst case: the coordinator took that out of the lease as well.
            self._left = minus(plus(self._left, amount(need)), amount(used))

    def tell(self, message: m.Message) -> None:
        if self._is_abandoned and isinstance(message, m.TaskEnded):
            return  # how it ends now is not how the task does
        if self._pieces is not None:
            self._pieces.flush()
        self.host.outbox.send(self.run, codec.pack(message), self.label)

    async def commit(self, message: m.Message) -> None:
        number = self.host.outbox.send(self.run, codec.pack(message), self.label)
        await self.host.outbox.delivered(number)

    async def delegate(self, asked: m.SubtasksAsked) -> m.SubtasksEnded:
        future: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
        self._answers["subtasks", asked.step] = future
        self.tell(asked)
        answer = await future
        assert isinstance(answer, m.SubtasksEnded)
        outputs = [None if one is None else m.Value(inline=await self.host.read(one)) for one in answer.outputs]
        return answer.model_copy(update={"outputs": tuple(outputs)})

    def partial(self, text: str) -> None:
        if self._pieces is None:
            self._pieces = Pieces(self._pass_on)
        self._pieces.add(text)

    def _pass_on(self, text: str) -> None:
        piece = m.PartialOutput(task=self.task, attempt=self.attempt, text=sendable(text))
        self.host.outbox.send(self.run, codec.pack(piece), self.label)


def _failure(error: BaseException) -> Failure:
    return Failure(verdict=Verdict.CODE_ERROR, message=worded(error), evidence=(frames(error, 6),))
