"""One model call at its place in a task: recalled, or reserved, made, tried again where that may help, and told."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from agents.call_size import CallSize, fewest
from agents.calls import wait
from agents.context import Concluding
from agents.desk import NoTurn, Turn
from agents.hedging import Race
from agents.mishap import passes, worded
from protocols.budget import NOTHING, Usage
from protocols.chat import ChatMessage, Finish, ModelReply, ModelRequest, Shortened
from protocols.failures import Failed, Failure, ModelError, Verdict
from protocols.messages import ModelCalled

if TYPE_CHECKING:
    from agents.attempt import Attempt

MOST_TRIES = 4
"""A model call is tried this often when its provider says that trying again may help."""
LONGEST_WAIT = 60.0
"""A provider that asks for a longer wait (seconds) ends the attempt; the task may be tried again later."""


class Asking:
    """What is asked of the model that ``at`` asks now, in one step. All tries are records of it."""

    __slots__ = (
        "_alone",
        "_at",
        "_count",
        "_digest",
        "_hedged",
        "_model",
        "_on_text",
        "_patience",
        "_request",
        "_said",
        "_shortened",
        "_size",
        "_step",
    )

    def __init__(
        self,
        at: "Attempt",
        request: ModelRequest,
        digest: str,
        said: tuple[ChatMessage, ...],
        *,
        turn: bool,
        on_text: Callable[[str], None] | None,
        alone: bool,
    ) -> None:
        self._at, self._model, self._step = at, at.the_model(), at.next_step()
        self._request, self._digest, self._said = request, digest, said
        self._on_text, self._alone = on_text, alone
        self._size = CallSize(0, 0, 0, None, int(turn))
        self._shortened: Shortened | None = None
        self._hedged, self._count = False, 1
        # Only a provider's calls are made twice: a model that nobody paces runs on this machine, and would only be slower.
        self._patience = at.role.hedge_after if getattr(self._model, "throttling", None) is not None else None

    async def reply(self) -> ModelReply:
        """See ``Attempt.complete``."""
        at, model = self._at, self._model
        past = self._recalled()
        if past is not None:
            return past
        if at.concluding and not self._alone:
            raise Concluding(self._said)
        request = self._request = self._request.model_copy(update={"digest": self._digest, "place": (at.desk.task, self._step)})
        kept = None
        if at.role.cache is not None:
            with at.clock.stopped():
                kept = await at.cache.reply(self._digest)
        if kept is not None:
            at.meter.take(Usage(turns=self._size.turns))
            self._tell(at.desk.now(), reply=kept, cached=True)
            return kept
        tokens_in, tokens_out = model.bound(request)
        least = fewest(tokens_out, self._reserves) if tokens_out == request.max_output_tokens else tokens_out
        self._size = CallSize(tokens_in, tokens_out, least, model.price, self._size.turns)
        for tried in range(1, MOST_TRIES + 1):
            found = await self._tried(tried)
            if isinstance(found, ModelReply):
                return self._whole(found, self._shortened)
            await asyncio.sleep(found)
        raise AssertionError("the last try returns or raises")

    @property
    def _reserves(self) -> bool:
        """Whether room for a conclusion is to be left: the agent works by turns, and was not told to conclude yet."""
        return self._at.role.concludes and not self._alone and not self._at.desk.concluding

    def _recalled(self) -> ModelReply | None:
        """The reply that an earlier attempt paid for; raises ``TakenOver`` where another model took over then."""
        at = self._at
        for past in at.recalled(self._step, self._digest, alone=self._alone):
            self._said = ()
            if past.reply is not None:
                return self._whole(past.reply, past.shortened)
            if past.then:
                at.models.hand_over(self._model, past.then)
        return None

    def _whole(self, reply: ModelReply, shortened: Shortened | None) -> ModelReply:
        """The reply, unless it was cut off where there was room for no more: that is of no use, and can't be asked again."""
        if shortened is None or reply.finish is not Finish.LENGTH:
            return reply
        if self._at.concluding and not self._alone:
            raise Concluding(())
        message = f"its reply was cut off at {shortened.tokens} tokens, and there was no room for more; raise the limit, or ask for less"
        raise Failed(Failure(verdict=Verdict.BUDGET, message=message, evidence=(reply.text[-300:],), limit=shortened.limit))

    async def _tried(self, tried: int) -> ModelReply | float:
        """The reply; or in how many seconds to try again. Raises ``TakenOver`` where another model takes over."""
        at, model = self._at, self._model
        self._count = tried
        one = await self._permitted(tried)
        reply, failure, used, then, pause = None, None, one.need, "", 0.0
        raised: BaseException | None = None
        try:
            if self._patience is None:
                reply = await self._made(one, self._on_text)
            else:
                one, answer = await Race(self._made, self._second, self._unused, self._lost, self._on_text).run(one, self._patience)
                reply = await answer
            used = self._used(one, reply)
            return reply
        except ModelError as error:
            raised, failure = error, _provider(model.id, str(error), error.retryable, tried)
            used, pause = _charged(one, error), wait(tried, error.retry_after)
            if one.paced is not None and error.refused:  # who paces its calls waits for room: the first time, its turn is pause enough
                pause = 0.0 if tried == 1 else wait(tried - 1)
            if not error.retryable or tried == MOST_TRIES or (error.retry_after or 0.0) > LONGEST_WAIT:
                heir = at.models.heir(model) if error.retryable or error.elsewhere else None
                if heir is None:
                    raise Failed(failure) from None
                then = heir.id
        except BaseException as error:
            raised, used = error, one.need
            if passes(error):
                failure = Failure(verdict=Verdict.CANCELLED, message="the work was stopped during this call; it may have been charged")
                raise
            failure = _provider(model.id, worded(error), False, tried)
            raise Failed(failure) from error
        finally:
            used = used if reply is not None else used.model_copy(update={"turns": 0})  # a turn is had when its reply is there
            self._ended(one, used, reply=reply, failure=failure, raised=raised, then=then)
            if reply is not None:
                await at.cache.keep_reply(self._digest, reply)
        if then:
            at.models.hand_over(model, then)
        return pause

    async def _made(self, one: "_Try", on_text: Callable[[str], None] | None) -> ModelReply:
        return await self._model.complete(one.request, on_text)

    def _ended(
        self,
        one: "_Try",
        used: Usage,
        *,
        reply: ModelReply | None = None,
        failure: Failure | None = None,
        raised: BaseException | None = None,
        then: str = "",
    ) -> None:
        """Settle a call that was made, and tell of it."""
        self._at.desk.settle(one.need, used)
        self._at.meter.settle(one.need, used)
        if one.paced is not None:
            one.paced.ended(used.tokens, raised)
        self._shortened = one.shortened or (reply.shortened if reply is not None else None)
        self._tell(one.began, reply=reply, failure=failure, usage=used, then=then)
        self._said = ()

    async def _second(self) -> "_Try | None":
        """What another call beside the first needs, where all of it can be had at once, with room for the work's next one left."""
        at, size = self._at, self._size._replace(turns=0)
        next_ = size.need(size.most)
        try:
            at.meter.take(next_)
            try:
                await at.desk.afford(next_, final=False, now=True)
                try:
                    found = await self._reserved(size, final=False, beside=True)
                finally:
                    at.desk.settle(next_, NOTHING)
            finally:
                at.meter.settle(next_, NOTHING)
        except (NoTurn, Failed):
            return None
        self._hedged = True
        return found

    def _unused(self, one: "_Try") -> None:
        """Give back what was had for a second call that is not wanted any more."""
        self._hedged = False
        self._at.desk.settle(one.need, NOTHING)
        self._at.meter.settle(one.need, NOTHING)
        if one.paced is not None:
            one.paced.ended(0, asyncio.CancelledError())

    def _lost(self, one: "_Try", answer: asyncio.Task[ModelReply]) -> None:
        """Settle one of two calls: another was answered sooner, or is still under way."""
        failure = Failure(verdict=Verdict.CANCELLED, message="an equal call was answered sooner; this one may have been charged")
        used, raised = one.need, None if answer.cancelled() else answer.exception()
        if raised is not None:
            # It is another try of the same step, whoever reads or plays it later: an equal one followed.
            why = str(raised) if isinstance(raised, ModelError) else worded(raised)
            failure = _provider(self._model.id, why, True, self._count)
            used = _charged(one, raised) if isinstance(raised, ModelError) else used
        elif not answer.cancelled():
            used = self._used(one, answer.result())
        self._ended(one, used, failure=failure, raised=raised or asyncio.CancelledError())

    async def _permitted(self, tried: int) -> "_Try":
        """Room for the call, and a turn where its model's calls are paced; or another of the role's models takes over."""
        models, model, size = self._at.models, self._model, self._size
        began, heir = self._at.desk.now(), models.cheaper(model, size.tokens_in, size.most)
        self._hedged, self._shortened = False, None
        try:
            return await self._reserved(size, final=heir is None, again=tried > 1)
        except NoTurn as error:
            failure, heir = _provider(model.id, str(error), True, tried), models.heir(model)
        except Failed as error:
            failure = error.failure
        if heir is not None and failure.verdict in (Verdict.BUDGET, Verdict.PROVIDER):
            self._tell(began, failure=failure, then=heir.id)
            models.hand_over(model, heir.id)
        raise Failed(failure)

    async def _reserved(self, size: CallSize, *, final: bool, again: bool = False, beside: bool = False) -> "_Try":
        """Reserve the worst case and wait for a turn. Time spent waiting for one does not count against the role's seconds.

        A ``final`` call for which there is too little room is made with fewer output tokens; one ``beside`` another waits for no room.
        """
        at, model = self._at, self._model
        need = self._metered(size, final=final)
        if need.output_tokens < size.most:
            size = size._replace(most=need.output_tokens)
        paced = None
        try:
            taken = await at.desk.afford(need, final=final, size=size if final and size.least < size.most else None, now=beside)
            at.meter.settle(need, taken.need)
            need = taken.need
            if getattr(model, "throttling", None) is not None:
                try:
                    with nullcontext() if beside else at.clock.stopped():
                        paced = await at.desk.turn(model, need.tokens, elsewhere=beside or bool(at.models.heirs), again=again)
                except BaseException:
                    at.desk.settle(need, NOTHING)
                    raise
        except BaseException:
            at.meter.settle(need, NOTHING)
            raise
        allowed, request, shortened = need.output_tokens, self._request, None
        if allowed < self._size.most:
            request = request.model_copy(update={"max_output_tokens": allowed})
            shortened = Shortened(tokens=allowed, limit=taken.limit)
        return _Try(request, need, shortened, paced, at.desk.now())

    def _metered(self, size: CallSize, *, final: bool) -> Usage:
        """Take the worst case out of the role's own limits."""
        meter, need = self._at.meter, size.need(size.most)
        try:
            meter.take(need)
        except Failed:
            fits = size.within(meter.room) if final else None
            if fits is None:
                raise
            need = size.need(fits)
            meter.take(need)
        return need

    def _used(self, one: "_Try", reply: ModelReply) -> Usage:
        """What the reply cost; where the provider reports no count, the reservation."""
        need, price = one.need, self._model.price
        tokens_in = need.input_tokens if reply.input_tokens is None else reply.input_tokens
        tokens_out = need.output_tokens if reply.output_tokens is None else reply.output_tokens
        micros = reply.micros
        if micros is None:
            micros = 0 if price is None else price.cost(tokens_in, tokens_out)
        return Usage(input_tokens=tokens_in, output_tokens=tokens_out, micros=micros, model_calls=1, turns=need.turns)

    def _tell(
        self,
        began: int,
        *,
        reply: ModelReply | None = None,
        failure: Failure | None = None,
        usage: Usage = NOTHING,
        then: str = "",
        cached: bool = False,
    ) -> None:
        desk = self._at.desk
        desk.tell(
            ModelCalled(
                task=desk.task,
                attempt=desk.attempt,
                step=self._step,
                model=self._model.id,
                request=self._digest,
                said=self._said,
                reply=reply,
                failure=failure,
                usage=usage,
                priced=self._model.price is not None or (reply is not None and reply.micros is not None),
                then=then,
                cached=cached,
                cut=self._request.cut,
                shortened=self._shortened,
                hedged=self._hedged,
                began=began,
                ended=desk.now(),
            )
        )


class _Try(NamedTuple):
    """A call that may leave: the request as it is allowed, what was reserved, and its turn."""

    request: ModelRequest
    need: Usage
    shortened: Shortened | None
    paced: Turn | None
    began: int


def _charged(one: _Try, error: ModelError) -> Usage:
    return one.need if error.charged else Usage(model_calls=1)


def _provider(model: str, why: str, retryable: bool, tried: int) -> Failure:
    message = f"model {model} failed (try {tried}): {why}"
    return Failure(verdict=Verdict.PROVIDER, message=message, retryable=retryable)
