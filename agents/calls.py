"""One tool call at its place in a task: made, made again where its tool allows it, and settled where its end was lost."""

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from agents.at_work import Context
from agents.desk import ONE_TOOL_CALL, Desk
from agents.effects import Done, NotDone, Standing, Unknown
from agents.guards import Meter, failed
from agents.tool import Tool, ToolResult
from protocols.chat import ToolCall
from protocols.failures import Failed, Failure, Verdict
from protocols.messages import Decision, ReviewAsked, ToolCalled, ToolIntended

FIRST_WAIT = 0.5
"""Seconds before the second try of a call; doubled for each one after, unless a provider names a time."""

MOST_WAIT = 30.0
"""It grows no further than this."""

STALE_MS = 2_000
"""A write that was announced longer ago than this (milliseconds) is announced again before it begins: this process may have been
suspended, and its task be somebody else's now."""

MOST_ANNOUNCED = 3
"""So often, where the journal is that slow."""


class Place(NamedTuple):
    """Where a call stands: the desk, the role's meter, the step ordinal, and what makes the ``Context`` for that step."""

    desk: Desk
    meter: Meter
    step: int
    context: Callable[[int], Context]

    def told(
        self, call: ToolCall, effect: str, result: ToolResult, began: int, *, ran: bool = True, again: bool = False, settled: str = ""
    ) -> None:
        """Report how the call ended."""
        desk = self.desk
        if ran:
            desk.settle(ONE_TOOL_CALL, ONE_TOOL_CALL)
        desk.tell(
            ToolCalled(
                task=desk.task,
                attempt=desk.attempt,
                step=self.step,
                call=call,
                content=result.content,
                failure=result.failure,
                ran=ran,
                again=again,
                settled=settled,
                effect=effect,
                began=began,
                ended=desk.now(),
            )
        )


class Calling:
    """A call that fits its tool, with its typed arguments."""

    __slots__ = ("_arguments", "_call", "_open", "_place", "_tool")

    def __init__(self, place: Place, call: ToolCall, tool: Tool, arguments: dict[str, object]) -> None:
        self._place, self._call, self._tool, self._arguments = place, call, tool, arguments
        self._open = False

    async def made(self, tried: int = 0) -> ToolResult:
        """Make the call, and again where the tool allows it; each try is a record of this step. ``tried`` tries were made before."""
        tool = self._tool
        while True:
            tried += 1
            result, began = await self._try()
            if result.in_doubt:
                self._told(_doubtful(result.content, self._key), began)
                spent = tried > max(tool.retries, 1)
                settled = await self._settled(began, _unsure(result.content), spent=spent, going_on=result.going_on)
                if settled is not None:
                    return settled
            else:
                again = result.again and tried <= tool.retries
                self._told(result, began, again=again)
                if not again:
                    return result
            await asyncio.sleep(wait(tried))

    async def recovered(self, stand: Standing, *, changed: bool) -> ToolResult | None:
        """What became of this write in an earlier attempt, of which ``stand`` says what was recorded; ``None`` when it may be made.

        ``changed``: an earlier attempt made other changes, in a conversation that is not this one. Raises ``Failed`` when nobody can say.
        """
        call, key, decided = self._call, self._key, stand.decided
        self._open = stand.doubt is not None and (decided is None or decided.decision is not Decision.NOT_DONE)
        if stand.other:
            raise failed(Verdict.EFFECT_IN_DOUBT, f"an earlier attempt made another change at {key} than {call.name!r} would now", key)
        if decided is not None and decided.decision is Decision.NOT_DONE:
            return None
        if decided is not None and decided.decision is Decision.DONE:
            known = f"{call.name} was carried out, as {decided.user} has made sure; what it returned is not known"
            return self._settle(ToolResult(known if decided.result is None else decided.result), "review")
        if stand.doubt is not None:
            why = stand.why or _unsure(f"attempt {stand.doubt.attempt} began {call.name!r} and nobody recorded its end")
            return await self._settled(stand.doubt.began, why)
        if changed and not stand.announced:
            why = f"the conversation changed since an earlier attempt that made changes, so {call.name!r} might repeat one of them"
            self._ask_review(0, why)
        return None

    async def _try(self) -> tuple[ToolResult, int]:
        """One call, and when it began. A write is announced before it, durably."""
        desk, tool = self._place.desk, self._tool
        self._place.meter.take(ONE_TOOL_CALL)
        await desk.afford(ONE_TOOL_CALL)
        step = self._place.step
        began = await self._announced() if tool.effect == "write" else desk.now()
        try:
            return await tool.run(self._arguments, self._place.context(step)), began
        except Failed as error:
            self._told(ToolResult(error.failure.message, error.failure), began)
            raise
        except asyncio.CancelledError:
            if tool.effect == "write":
                self._told(_doubtful(f"tool {tool.name!r} was stopped before it ended", self._key), began)
            raise

    @property
    def _key(self) -> str:
        return self._place.context(self._place.step).key

    async def _announced(self) -> int:
        """Announce the call, durably; when it begins. Whoever was stopped meanwhile, and may have been given up, is not heard again."""
        desk = self._place.desk
        for _ in range(MOST_ANNOUNCED):
            began = desk.now()
            intent = ToolIntended(task=desk.task, attempt=desk.attempt, step=self._place.step, call=self._call, key=self._key, began=began)
            try:
                await desk.commit(intent)
            except asyncio.CancelledError:
                if not self._open:  # else an earlier announcement is in doubt, and stays so
                    stopped = self._tool.failed("it was stopped before it was begun")
                    self._place.told(self._call, self._tool.effect, stopped, began, ran=False, again=True, settled="stopped")
                raise
            if desk.now() - began < STALE_MS:
                break
        self._open = True
        return began

    async def look_back(self) -> None:
        """Say what became of a write that was broken off, if its tool can."""
        tool = self._tool
        found = await tool.reconciled(self._key, self._arguments) if self._open else Unknown()
        if isinstance(found, Done):
            self._settle(self._done(found), "reconcile")
        elif isinstance(found, NotDone) and tool.is_async:  # a thread may still be at work
            self._settle(tool.failed("it was stopped, and its reconcile function says that it did not happen"), "reconcile")

    async def _settled(self, began: int, why: str, *, spent: bool = False, going_on: bool = False) -> ToolResult | None:
        """A write in doubt: what became of it, if its tool can say; ``None`` when it may be made again. Else a person is asked."""
        tool = self._tool
        if tool.reconcile is not None:
            found = await tool.reconciled(self._key, self._arguments)
            if isinstance(found, Done):
                return self._settle(self._done(found), "reconcile")
            if not isinstance(found, NotDone):
                why += f"; {found.why or 'its reconcile function could not say'}"
            elif going_on:
                why += "; its reconcile function found nothing, but its thread may still be at work"
            elif spent:
                return self._settle(tool.failed(f"{why}; its reconcile function says that it did not", retryable=True), "reconcile")
            else:
                return None
        if spent or not tool.idempotent:
            self._ask_review(began, why)
        return None

    def _done(self, found: Done) -> ToolResult:
        return self._tool.result(found.result) or ToolResult(f"{self._tool.name} was carried out; what it returned is not known")

    def _settle(self, result: ToolResult, by: str) -> ToolResult:
        self._open = False
        self._place.told(self._call, self._tool.effect, result, self._place.desk.now(), ran=False, settled=by)
        return result

    def _ask_review(self, began: int, why: str) -> NoReturn:
        ask_review(self._place.desk, self._place.step, self._call, self._key, began, why)

    def _told(self, result: ToolResult, began: int, *, again: bool = False) -> None:
        self._open = result.failure is not None and result.failure.verdict is Verdict.EFFECT_IN_DOUBT
        self._place.told(self._call, self._tool.effect, result, began, again=again)


def ask_review(desk: Desk, step: int, call: ToolCall, key: str, began: int, why: str) -> NoReturn:
    """Have a person decide. The attempt ends (``Failed``); the next one finds the decision at this step."""
    desk.tell(ReviewAsked(task=desk.task, attempt=desk.attempt, step=step, call=call, key=key, message=why, began=began))
    raise failed(Verdict.EFFECT_IN_DOUBT, why, key)


def wait(tried: int, named: float | None = None) -> float:
    """Seconds before the next try: doubled each time, or what the provider ``named``; spread, so that not all come back at once."""
    if named is None:
        return min(FIRST_WAIT * 2.0 ** min(tried - 1, 16), MOST_WAIT) * (0.5 + random.random())
    return named + min(named, FIRST_WAIT) * random.random()


def _unsure(what: str) -> str:
    return f"{what}; it may or may not have happened"


def _doubtful(what: str, key: str) -> ToolResult:
    message = _unsure(what)
    return ToolResult(message, Failure(verdict=Verdict.EFFECT_IN_DOUBT, message=message, evidence=(key,)))
