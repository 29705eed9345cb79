"""A run in memory: its state, the epoch at which it is carried on, and those who wait for it or watch it."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.journal.port import Journal
from orchestrator.reducer.state import Act, RunState
from orchestrator.sides import Watched
from protocols.envelope import BATCH_BYTES
from protocols.failures import StorageError

PIECES = 500
"""Pieces of output that are kept for those who watch; they are not stored, so who comes late misses the older ones."""


@dataclass(slots=True)
class LiveRun:
    """One run that a coordinator has in memory. ``broken`` is why it can't be carried on here, if so."""

    state: RunState
    epoch: int
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

    def pass_on(self, piece: bytes) -> None:
        """Keep a packed ``PartialOutput`` for those who watch."""
        self.partials.append(piece)
        self.partial += 1
        self.news.set()

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
