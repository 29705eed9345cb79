"""A run in memory: its state, the epoch at which it is carried on, and those who wait for it or watch it."""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.fallback import answered
from orchestrator.journal.allowances import Limit
from orchestrator.journal.port import Journal
from orchestrator.reducer.state import Act, Phase, RunState
from orchestrator.replay import Loose
from orchestrator.sides import Watched
from protocols.envelope import BATCH_BYTES
from protocols.failures import BadInput, StaleEpoch, StorageError
from protocols.messages import Decision, Message, ReviewDecided, ReviewKind

PIECES = 500
"""Pieces of output that are kept for those who watch; they are not stored, so who comes late misses the older ones."""


@dataclass(slots=True)
class LiveRun:
    """One run that a coordinator has in memory. ``broken`` is why it can't be carried on here, if so. Until it is ``joined`` to what
    hosts still have of it, nothing of it is started; ``loose`` is what may be said again (see ``orchestrator.replay``). ``limits`` are
    those over many runs that it is under; ``limited`` says that all its agents know that there are limits."""

    state: RunState
    epoch: int
    joined: bool = True
    loose: dict[str, Loose] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    limited: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    partials: deque[bytes] = field(default_factory=lambda: deque(maxlen=PIECES))
    partial: int = 0
    broken: StorageError | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether it has not ended, and can go on."""
        return self.state.act is not Act.ENDED and self.broken is None

    @property
    def can_be_mended(self) -> bool:
        """Whether it can't be carried on only because storage failed, or because another run in the same batch was taken over."""
        return self.broken is not None and (self.broken.retryable or isinstance(self.broken, StaleEpoch))

    def has_heard(self, task: str, body: bytes) -> bool:
        """Whether the journal holds this message of a task at work already."""
        return task in self.loose and hash(body) in self.loose[task].heard

    def pass_on(self, piece: bytes) -> None:
        """Keep a packed ``PartialOutput`` for those who watch."""
        self.partials.append(piece)
        self.partial += 1
        self.news.set()

    def decision(self, decided: Message) -> ReviewDecided:
        """A person's decision, with the step and attempt that its task waits at.

        Raises ``BadInput`` when it waits for nobody, or for another decision.
        """
        if not isinstance(decided, ReviewDecided):
            raise BadInput(f"a review ends with ReviewDecided, not {type(decided).__name__}")
        me = self.state.tasks.get(decided.task)
        if me is None or me.phase is not Phase.IN_REVIEW or me.review is None:
            raise BadInput(f"task {decided.task!r} waits for nobody; `callboard reviews` lists what does")
        if me.review.kind is ReviewKind.FALLBACK and decided.decision is not Decision.FAIL:
            if decided.decision is not Decision.DONE or decided.result is None:
                raise BadInput(f"task {decided.task!r} waits for its output: decide DONE with a result, or FAIL")
            answered(decided.result, self.state.request.team.roles[me.task.role])
        return decided.model_copy(update={"step": me.review.step, "attempt": decided.attempt or me.review.attempt})

    def finish(self) -> None:
        """The run has ended, or was loaded after its end."""
        if self.timer is not None:
            self.timer.cancel()
        self.done.set()
        self.news.set()

    def fail(self, error: StorageError) -> None:
        """The run can't be carried on here: what is in memory is not what is stored."""
        self.broken = error
        self.finish()

    async def wait(self, seconds: float) -> bool:
        """Whether the run has ended within this time. Raises ``StorageError`` when it can't be carried on here."""
        try:
            await asyncio.wait_for(self.done.wait(), seconds)
        except TimeoutError:
            return False
        if self.broken is not None:
            raise self.broken
        return True

    async def watch(self, journal: Journal, after: int, partial: int, seconds: float) -> Watched:
        """What was said after entry ``after`` and piece ``partial``; waits this long for something new."""
        if self.broken is not None:
            raise self.broken
        if self.state.seq <= after and self.partial <= partial and not self.done.is_set():
            self.news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), seconds)
        entries, size = [], 0
        if self.state.seq > after:
            for entry in await asyncio.to_thread(lambda: list(journal.read(self.state.run, after, 500))):
                entries.append((entry.seq, entry.at, entry.body))
                size += len(entry.body)
                if size > BATCH_BYTES:
                    break
        new = min(self.partial - partial, len(self.partials))
        return Watched(entries, list(self.partials)[len(self.partials) - new :] if new > 0 else [], self.partial)


def surplus(runs: Mapping[str, LiveRun], tasks: int) -> list[str]:
    """The runs that ended longest ago, as many as it takes to keep no more than so many tasks of ended runs; never the newest."""
    ended = [name for name, here in runs.items() if here.state.act is Act.ENDED]
    kept = sum(len(runs[name].state.tasks) for name in ended)
    found = []
    for name in ended[:-1]:
        if kept <= tasks:
            break
        kept -= len(runs[name].state.tasks)
        found.append(name)
    return found
