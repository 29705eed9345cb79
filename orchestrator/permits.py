"""The permits of one host: who waits for a turn to call a throttled model, who has one, and what came of it."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from agents.desk import NoTurn
from protocols.failures import ModelError
from protocols.messages import CallsReported, PermitsChanged

PATIENCE_SECONDS = 60.0
"""Who has no other model waits at most this long for an open circuit to close."""


class _Waiter(NamedTuple):
    future: asyncio.Future[None]
    elsewhere: bool


class Turn:
    """A turn to make one call: a permit of ``run``, in use until the call has ended."""

    __slots__ = ("_line", "_round", "run")

    def __init__(self, line: "Line", run: str) -> None:
        self._line, self.run = line, run
        self._round = line.round

    def ended(self, tokens: int, error: BaseException | None = None) -> None:
        """The call has ended, and used so many tokens. Errors that are not the provider's say nothing of it."""
        self._line.ended(self.run, self._round, tokens, error)


class Line:
    """Those who wait for one model here, by run, and the permits in use."""

    def __init__(self, model: str, changed: Callable[["Line"], None]) -> None:
        self.model, self.round = model, 0
        self._changed = changed
        self._waiting: dict[str, deque[_Waiter]] = {}
        self._in_use: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()
        self._lasting = False
        self._open_until: float | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._why = ""
        self.reattach()

    def reattach(self) -> None:
        """A coordinator begins to count: it knows nothing of what is in use here."""
        self._lasting, self._number, self._kept = False, 0, tuple(self._in_use.items())
        self._wanted.clear()
        self._close()
        self._forget()

    def _forget(self) -> None:
        self._back: Counter[str] = Counter()
        self._refused: list[int] = []
        self._succeeded = self._failed = self._tokens = self._need = 0
        self._retry_after: float | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether nobody waits or calls."""
        return not self._in_use and not self._waiting

    def report(self, link: str) -> CallsReported:
        """What happened since the last report."""
        self._number += 1
        self._wanted = Counter({run: len(queue) for run, queue in self._waiting.items()})
        said = CallsReported(
            link=link,
            number=self._number,
            model=self.model,
            waiting=tuple(self._wanted.items()),
            back=tuple(self._back.items()),
            kept=self._kept if self._number == 1 else (),
            succeeded=self._succeeded,
            failed=self._failed,
            refused=tuple(self._refused),
            retry_after=self._retry_after,
            tokens=self._tokens,
            need=self._need,
            why=self._why if self._failed or self._refused else "",
        )
        self._forget()
        return said

    async def take(self, run: str, tokens: int, *, elsewhere: bool, again: bool = False) -> Turn:
        """Wait for a turn, before all others of the run for a call that is made ``again``.

        Raises ``NoTurn`` when the circuit is open and there is an ``elsewhere``, or it stays open.
        """
        if self._open_until is not None and elsewhere and (self._now() < self._open_until or self._waiting):
            raise self._no_turn()
        waiter = _Waiter(asyncio.get_running_loop().create_future(), elsewhere)
        queue = self._waiting.setdefault(run, deque())
        (queue.appendleft if again else queue.append)(waiter)
        self._need = max(self._need, tokens)
        self._tell_waiting(run)
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give_back(run)
            else:
                self._leave(run, waiter)
            raise
        return Turn(self, run)

    def hear(self, said: PermitsChanged) -> None:
        """What the coordinator says of this model."""
        self._lasting, self.round = said.lasting, said.round
        for run, count in said.more:
            self._in_use[run] += count
            for _ in range(count):
                if not self._serve(run):
                    self._give_back(run)
            self._wanted[run] -= count
            self._tell_waiting(run)
        if said.open_for is None:
            self._close()
        else:
            self._open(said.open_for, said.why)

    def ended(self, run: str, round_: int, tokens: int, error: BaseException | None) -> None:
        """A call has ended; see ``Turn.ended``."""
        self._tokens += tokens
        if isinstance(error, ModelError) and error.refused:
            self._lasting, self._why = False, str(error)
            self._refused.append(round_)
            if error.retry_after is not None:
                self._retry_after = max(self._retry_after or 0.0, error.retry_after)
        elif isinstance(error, ModelError) and error.retryable:
            self._lasting, self._why = False, str(error)
            self._failed += 1
        elif error is None:
            self._succeeded += 1
        if self._lasting and self._serve(run):
            self._changed(self)
        else:
            self._give_back(run)

    def _serve(self, run: str) -> bool:
        """Let the first in the queue of this run use a permit."""
        queue = self._waiting.get(run, ())
        while queue:
            future = queue.popleft().future
            if not queue:
                del self._waiting[run]
            if not future.done():
                future.set_result(None)
                return True
        return False

    def _tell_waiting(self, run: str) -> None:
        """Have it said how many wait, where the coordinator knows of less than half: what it knows suffices for it to go on giving."""
        if len(self._waiting.get(run, ())) > 2 * self._wanted[run]:
            self._changed(self)

    def _give_back(self, run: str) -> None:
        self._in_use[run] -= 1
        if not self._in_use[run]:
            del self._in_use[run]
        self._back[run] += 1
        self._changed(self)

    def _leave(self, run: str, waiter: _Waiter) -> None:
        queue = self._waiting.get(run)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[run]
            self._changed(self)

    def _open(self, seconds: float, why: str) -> None:
        now = self._now()
        if self._open_until is None:
            self._closing = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._turn_away)
        self._open_until, self._why = now + seconds, why
        if seconds:
            self._turn_away(only_elsewhere=True)

    def _close(self) -> None:
        self._open_until = None
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _turn_away(self, *, only_elsewhere: bool = False) -> None:
        if not only_elsewhere:
            self._closing = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._turn_away)
        for run, queue in list(self._waiting.items()):
            for waiter in [one for one in queue if one.elsewhere or not only_elsewhere]:
                if not waiter.future.done():
                    waiter.future.set_exception(self._no_turn())
                self._leave(run, waiter)

    def _no_turn(self) -> NoTurn:
        return NoTurn(f"model {self.model} is not asked for now, because its provider keeps failing: {self._why}")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class Permits:
    """All lines of one host. What happens in one turn of the event loop is said in one report a model."""

    def __init__(self, say: Callable[[CallsReported], None]) -> None:
        self._say = say
        self._link = ""
        self._lines: dict[str, Line] = {}
        self._news: dict[str, Line] = {}

    def attach(self, link: str) -> None:
        """Another coordinator, or the same one anew, gives permits from now on."""
        self._link = link
        self._lines = {model: line for model, line in self._lines.items() if not line.is_quiet}
        self._news.clear()
        for line in self._lines.values():
            line.reattach()
            self._changed(line)

    async def take(self, model: str, run: str, tokens: int, *, elsewhere: bool, again: bool = False) -> Turn:
        """Wait for a turn to call a model (see ``Line.take``). Raises ``NoTurn``."""
        if model not in self._lines:
            self._lines[model] = Line(model, self._changed)
        return await self._lines[model].take(run, tokens, elsewhere=elsewhere, again=again)

    def hear(self, said: PermitsChanged) -> None:
        """What the coordinator says."""
        if said.model in self._lines:
            self._lines[said.model].hear(said)

    def _changed(self, line: Line) -> None:
        if not self._news:
            asyncio.get_running_loop().call_soon(self._flush)
        self._news[line.model] = line

    def _flush(self) -> None:
        news, self._news = self._news, {}
        for line in news.values():
            self._say(line.report(self._link))
