"""Commits: what is said of runs is folded, appended, and only then acted on. No Ray here.

One loop takes what has come in, folds it, schedules, appends everything in one transaction, and only then answers and sends. While
a transaction is on its way the next batch gathers, so the disk's pace sets the batch size and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from orchestrator import reducer
from orchestrator.journal.port import Entry, Journal
from orchestrator.link import now
from orchestrator.live import LiveRun
from orchestrator.observe.logs import get_logger
from orchestrator.observe.meter import Meter
from orchestrator.replay import reader
from orchestrator.roster import Roster
from orchestrator.scheduler import schedule
from protocols import codec
from protocols import messages as m
from protocols.envelope import Envelope
from protocols.failures import Failure, StorageError, Verdict

DISPATCHED = 1_000
"""At most so many attempts of a run start with one append: hosts are at work on the first while the next are prepared."""

_SILENT = frozenset((m.ModelCalled, m.ToolIntended, m.ToolCalled, m.LeaseAsked, m.SubtasksAsked, m.TaskEnded, m.TasksAdded))
"""Messages that are acted on by what they lead to, and not themselves."""

log = get_logger("coordinator")


class Item(NamedTuple):
    """A message for a run, said at this time (milliseconds); ``body`` is its packed form where it came packed."""

    run: str
    at: int
    message: m.Message
    body: bytes | None


Queue = list[tuple[list[Item], asyncio.Future[None] | None]]
CarryOut = Callable[[LiveRun, m.Message], Awaitable[None]]


class Commits:
    """The loop over ``runs``, and the queue before it. ``carry_out`` does what one durable message calls for; ``wake`` has the loop look
    again for who can be dispatched. While ``stopping`` nobody is."""

    def __init__(self, journal: Journal, runs: dict[str, LiveRun], roster: Roster, carry_out: CarryOut, wake: asyncio.Event) -> None:
        self.meter: Meter | None = None
        self.stopping = False
        self._journal = journal
        self._runs = runs
        self._roster = roster
        self._carry_out = carry_out
        self._wake = wake
        self._queue: Queue = []
        self._fetch = reader(journal)

    async def put(self, items: list[Item]) -> None:
        """Queue messages and return when they are durable and acted on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((items, future))
        self._wake.set()
        await future

    async def say(self, run: str, *messages: m.Message) -> None:
        """Put messages into a run in one batch; returns when they are acted on. Raises ``StorageError`` when they are not durable."""
        await self.put([Item(run, now(), message, None) for message in messages])
        here = self._runs.get(run)
        if here is not None and here.broken is not None:
            raise here.broken

    def later(self, run: str, message: m.Message) -> None:
        """Put a message into a run with the next batch."""
        self._queue.append(([Item(run, now(), message, None)], None))
        self._wake.set()

    async def run(self) -> None:
        """Commit what comes in until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            queue, self._queue = self._queue, []
            entries: list[Entry] = []
            try:
                await self._tick(queue, entries)
            except StorageError as error:
                self._break(queue, entries, error)
            except Exception as error:
                log.exception("the coordinator failed on a batch")
                self._break(queue, entries, StorageError(f"the coordinator failed: {error}"))

    async def _tick(self, queue: Queue, entries: list[Entry]) -> None:
        decided: list[tuple[LiveRun, m.Message]] = []
        for items, _ in queue:
            for item in items:
                self._fold(item, entries, decided)
        room = self._roster.room()
        # Who has the fewest at work goes first: a long run fills the hosts, and a short one must not wait for its end.
        ready = [] if self.stopping else [run for run in self._runs.values() if run.is_at_work and run.joined]
        for here in sorted(ready, key=lambda run: run.state.at_work):
            dispatch = schedule(here.state, room, DISPATCHED)
            if dispatch is not None:
                for one in dispatch.items:
                    room[self._roster.links[one.host].side.pool][one.host] -= 1
                self._fold(Item(here.state.run, now(), dispatch, None), entries, decided)
                self._wake.set()
        if entries:
            epochs = {entry.run: self._runs[entry.run].epoch for entry in entries}
            await asyncio.to_thread(self._journal.append, entries, epochs)
            if self.meter is not None:
                self.meter.commit()
        for here, message in decided:
            await self._carry_out(here, message)
        for run in {entry.run for entry in entries}:
            self._runs[run].news.set()
        for _, future in queue:
            if future is not None and not future.done():
                future.set_result(None)

    def _fold(self, item: Item, entries: list[Entry], decided: list[tuple[LiveRun, m.Message]]) -> None:
        here = self._runs.get(item.run)
        if here is None or not here.is_at_work:
            return
        first = item.message
        if here.state.stopping is not None and isinstance(first, (m.CancelRequested, m.DeadlinePassed)):
            return  # it is ending already
        if isinstance(first, m.RunResumed) and not here.joined:
            first, here.joined = first.model_copy(update={"kept": self._roster.having(item.run)}), True
        todo: list[tuple[m.Message, bytes | None]] = [(first, item.body)]
        while todo:
            message, body = todo.pop()
            seq = here.state.seq + 1
            entry = Envelope(item.run, seq, item.at, message)
            entries.append(Entry(item.run, seq, item.at, type(message).__name__, body or codec.pack(message)))
            if self.meter is not None:
                self.meter.hear(here.state, message)
            here.state, decisions = reducer.step(here.state, entry, self._fetch)
            if type(message) not in _SILENT:
                decided.append((here, message))
            if decisions:
                todo += [(decision, None) for decision in reversed(decisions)]

    def _break(self, queue: Queue, entries: list[Entry], error: StorageError) -> None:
        """Nothing of this batch is stored, but its runs' states have it: they must be read again before they go on."""
        log.error("storage failed", why=str(error))
        if self.meter is not None:
            self.meter.discard()
        runs = {item.run for items, _ in queue for item in items} | {entry.run for entry in entries}
        for run in runs & self._runs.keys():
            here = self._runs[run]
            here.fail(error)
            self._roster.stop_run(run, Failure(verdict=Verdict.CANCELLED, message=str(error)))
        for _, future in queue:
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()
