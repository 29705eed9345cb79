"""The coordinator: the thin shell around the reducer. It appends, then acts. No Ray here.

One loop takes what has come in, folds it, schedules, appends everything in one transaction, and only then answers and sends. While
a transaction is on its way the next batch gathers, so the disk's pace sets the batch size and nothing else.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orchestrator import outcomes, reducer
from orchestrator.journal.port import Entry, Journal
from orchestrator.link import now, open_parcel
from orchestrator.live import LiveRun
from orchestrator.observe.logs import get_logger
from orchestrator.observe.meter import Meter
from orchestrator.pools import Pools
from orchestrator.reducer.state import Act, RunState
from orchestrator.replay import reader, replay
from orchestrator.roster import Roster
from orchestrator.scheduler import schedule
from orchestrator.sides import HostSide, Watched
from protocols import codec
from protocols import messages as m
from protocols.envelope import Batch, Envelope
from protocols.failures import BadInput, StorageError, UnknownMessage, Verdict
from protocols.plan import refs

REQUEST_SECONDS = 0.5
"""How often requests of other processes are looked for."""

ADJUST_SECONDS = 0.5
"""How often the number of hosts is looked at."""

STOP_SECONDS = 5.0
"""A stopped task that has not ended after this long is given up."""

KEPT_TASKS = 200_000
"""Finished runs stay in memory, for those who still read them, while they have no more tasks than this together."""

log = get_logger("coordinator")

DISPATCHED = 1_000
"""At most so many attempts of a run start with one append: hosts are at work on the first while the next are prepared."""

_FROM_HOSTS = (m.ModelCalled, m.ToolIntended, m.ToolCalled, m.LeaseAsked, m.SubtasksAsked, m.TaskEnded)
_SILENT = frozenset((m.ModelCalled, m.ToolIntended, m.ToolCalled, m.LeaseAsked, m.SubtasksAsked, m.TaskEnded, m.TasksAdded))
"""Messages that are acted on by what they lead to, and not themselves."""


class _Item(NamedTuple):
    run: str
    at: int
    message: m.Message
    body: bytes | None


class Coordinator:
    """Carries any number of runs over the hosts it is given."""

    def __init__(self, journal: Journal, hosts: Sequence[HostSide], pools: Pools | None = None) -> None:
        self.name = f"coordinator/{secrets.token_hex(4)}"
        self.meter: Meter | None = None
        self._journal = journal
        self._hosts = hosts
        self._pools = pools
        self._runs: dict[str, LiveRun] = {}
        self._queue: list[tuple[list[_Item], asyncio.Future[None] | None]] = []
        self._wake = asyncio.Event()
        self._opening = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._fetch = reader(journal)
        self._roster = Roster(self.name, self, self._lost, self._wake)

    async def start(self) -> None:
        """Begin to work; returns when at least one host is attached."""
        self._tasks = [
            asyncio.create_task(self._loop(), name="coordinator loop"),
            asyncio.create_task(self._hear_requests(), name="requests"),
        ]
        if self._pools is not None:
            self._tasks.append(asyncio.create_task(self._adjust(self._pools), name="pools"))
        for side in self._hosts:
            self._roster.add(side)
        await self._roster.ready()

    async def _adjust(self, pools: Pools) -> None:
        while True:
            try:
                await pools.adjust([run.state for run in self._runs.values() if run.is_at_work], self._roster)
            except Exception:
                log.exception("the pools could not be adjusted; it is tried again")
            await asyncio.sleep(ADJUST_SECONDS)

    async def close(self) -> None:
        """Stop working. Runs that have not ended can be resumed from the journal."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._roster.close()
        for run in self._runs.values():
            if run.timer is not None:
                run.timer.cancel()

    # --- runs, as their owners reach them ---------------------------------------------------------------------------

    async def submit(self, run: str, request: bytes) -> None:
        """Begin a run. Returns once the request is durable; asking again for the same run changes nothing."""
        message = codec.unpack(request)
        if not isinstance(message, m.RunRequested):
            raise BadInput(f"a run begins with RunRequested, not {type(message).__name__}")
        async with self._opening:
            if run in self._runs:
                return
            if await asyncio.to_thread(lambda: list(self._journal.read(run, 0, 1))):
                raise BadInput(f"run {run!r} exists already; resume it, or choose another id")
            epoch = await asyncio.to_thread(self._journal.claim, run)
            at = now()
            self._runs[run] = LiveRun(reducer.begin(run, at, message), epoch)
            await self._put([_Item(run, at, message, request)])

    async def resume(self, run: str) -> None:
        """Carry a run on from the journal; one that has ended is only loaded, and one at work here is left alone."""
        async with self._opening:
            if run not in self._runs or self._runs[run].broken is not None:
                await self._take_up(run)

    async def _take_up(self, run: str, *then: m.Message) -> None:
        rows = await asyncio.to_thread(self._journal.runs)
        row = next((row for row in rows if row.run == run), None)
        if row is None or row.seq == 0:
            raise BadInput(f"there is no run {run!r} in this journal; `callboard runs` lists those there are")
        epoch = row.epoch if row.ended else await asyncio.to_thread(self._journal.claim, run)
        state = await asyncio.to_thread(replay, self._journal, run)
        self._runs[run] = here = LiveRun(state, epoch)
        if state.act is Act.ENDED:
            here.finish()
            return
        # In one batch: nothing is dispatched between taking the run up and what follows.
        await self._put([_Item(run, now(), message, None) for message in (m.RunResumed(epoch=epoch), *then)])
        self._set_deadline(here)

    async def abandon(self, run: str, reason: str) -> None:
        """Take over a run that nobody works on, and end it; nothing more is started."""
        async with self._opening:
            if run in self._runs and self._runs[run].broken is None:
                await self.cancel(run, reason)
            else:
                await self._take_up(run, m.CancelRequested(reason=reason))

    async def cancel(self, run: str, reason: str) -> None:
        """Stop a run. Returns once the request is durable; the run ends when its agents have stopped."""
        await self._put([_Item(run, now(), m.CancelRequested(reason=reason), None)])

    async def wait(self, run: str, seconds: float) -> bool:
        """Whether the run has ended within this time. Raises ``StorageError`` when it can't be carried on here."""
        return await self._find(run).wait(seconds)

    async def watch(self, run: str, after: int, partial: int, seconds: float) -> Watched:
        """What was said in a run after entry ``after`` and piece ``partial``; waits this long for something new."""
        return await self._find(run).watch(self._journal, after, partial, seconds)

    async def outcomes(self, run: str, start: int) -> bytes:
        """A packed page of a run's tasks (see ``orchestrator.outcomes``)."""
        return outcomes.page(self._find(run).state, start)

    async def ended(self, run: str) -> bytes:
        """The packed ``RunEnded`` of a run that has ended."""
        state = self._find(run).state
        entry = await asyncio.to_thread(self._journal.pick, run, [state.seq])
        return entry[0].body

    async def put_blob(self, data: bytes) -> m.BlobRef:
        """Store content, durable on return."""
        return await asyncio.to_thread(self._journal.put_blob, data)

    async def get_blob(self, digest: str) -> bytes:
        """Read content."""
        return await asyncio.to_thread(self._journal.get_blob, digest)

    def states(self) -> Iterator[RunState]:
        """The runs at work here."""
        return (here.state for here in self._runs.values() if here.is_at_work)

    async def has(self, run: str) -> bool:
        """Whether the run has begun, here or in the journal."""
        return run in self._runs or bool(await asyncio.to_thread(lambda: list(self._journal.read(run, 0, 1))))

    def is_busy(self) -> bool:
        """Whether a run is at work here."""
        return any(run.is_at_work for run in self._runs.values())

    def knows(self, run: str) -> bool:
        """Whether the run is in memory here."""
        return run in self._runs

    def _find(self, run: str) -> LiveRun:
        if run not in self._runs:
            raise BadInput(f"run {run!r} is not at work here; `callboard resume {run}` carries it on")
        return self._runs[run]

    # --- hosts --------------------------------------------------------------------------------------------------------

    async def deliver(self, host: str, batch: bytes, label: str = "") -> int:
        """Take a batch from a host; returns, once it is durable, the number of the last parcel taken."""
        link = self._roster.links.get(host)
        if link is None:
            return 0
        async with link.taking:
            if self._roster.links.get(host) is not link:
                return 0  # given up meanwhile: its work is somebody else's now
            unpacked = Batch.unpack(batch)
            items = []
            for parcel in link.inbox.fresh(unpacked):
                body = await open_parcel(parcel, self.get_blob)
                message = codec.unpack(body)
                if isinstance(message, m.PartialOutput):
                    self._pass_on(parcel.run, body)
                elif isinstance(message, _FROM_HOSTS):
                    items.append(_Item(parcel.run, parcel.at, message, body))
                else:
                    raise UnknownMessage(f"a host may not say {type(message).__name__}")
            if items:
                await self._put(items)
            for item in items:
                if isinstance(item.message, m.TaskEnded) and link.at_work.get((item.run, item.message.task)) == item.message.attempt:
                    del link.at_work[item.run, item.message.task]
            link.heard = now()
            taken = link.inbox.take(unpacked)
        self._wake.set()
        return taken

    def _pass_on(self, run: str, body: bytes) -> None:
        here = self._runs.get(run)
        if here is not None:
            here.pass_on(body)

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def _put(self, items: list[_Item]) -> None:
        """Queue messages and return when they are durable and acted on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((items, future))
        self._wake.set()
        await future

    async def _loop(self) -> None:
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

    async def _tick(self, queue: list[tuple[list[_Item], asyncio.Future[None] | None]], entries: list[Entry]) -> None:
        decided: list[tuple[LiveRun, m.Message]] = []
        for items, _ in queue:
            for item in items:
                self._fold(item, entries, decided)
        room = self._roster.room()
        for here in list(self._runs.values()):
            if not here.is_at_work:
                continue
            dispatch = schedule(here.state, room, DISPATCHED)
            if dispatch is not None:
                for one in dispatch.items:
                    room[self._roster.links[one.host].side.pool][one.host] -= 1
                self._fold(_Item(here.state.run, now(), dispatch, None), entries, decided)
                self._wake.set()
        if entries:
            epochs = {entry.run: self._runs[entry.run].epoch for entry in entries}
            await asyncio.to_thread(self._journal.append, entries, epochs)
            if self.meter is not None:
                self.meter.commit()
        for here, message in decided:
            await self._act(here, message)
        for run in {entry.run for entry in entries}:
            self._runs[run].news.set()
        for _, future in queue:
            if future is not None and not future.done():
                future.set_result(None)

    def _fold(self, item: _Item, entries: list[Entry], decided: list[tuple[LiveRun, m.Message]]) -> None:
        here = self._runs.get(item.run)
        if here is None or not here.is_at_work:
            return
        todo: list[tuple[m.Message, bytes | None]] = [(item.message, item.body)]
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

    # --- the end of things --------------------------------------------------------------------------------------------

    async def _lost(self, host: str, at_work: dict[tuple[str, str], int]) -> None:
        """A host is gone, and what it had at work with it."""
        by_run: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for (run, task), attempt in at_work.items():
            by_run[run].append((task, attempt))
        log.warning("host lost", host=host, tasks=len(at_work))
        at = now()
        items = [_Item(run, at, m.AttemptsLost(host=host, tasks=tuple(tasks)), None) for run, tasks in by_run.items()]
        if items:
            await self._put(items)

    def _give_up(self, run: str) -> None:
        """What has not stopped by now is lost."""
        for host, left in self._roster.give_up(run):
            self._later(_Item(run, now(), m.AttemptsLost(host=host, tasks=left), None))

    def _later(self, item: _Item) -> None:
        self._queue.append(([item], None))
        self._wake.set()

    def _break(self, queue: list[tuple[list[_Item], asyncio.Future[None] | None]], entries: list[Entry], error: StorageError) -> None:
        """Nothing of this batch is stored, but its runs' states have it: they must be read again before they go on."""
        log.error("storage failed", why=str(error))
        if self.meter is not None:
            self.meter.discard()
        runs = {item.run for items, _ in queue for item in items} | {entry.run for entry in entries}
        for run in runs & self._runs.keys():
            here = self._runs[run]
            here.fail(error)
            self._roster.stop_run(here.state.run, Verdict.CANCELLED)
        for _, future in queue:
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()

    # --- acting on what is durable --------------------------------------------------------------------------------------

    async def _act(self, here: LiveRun, message: m.Message) -> None:
        if isinstance(message, m.Dispatched):
            await self._assign(here.state, message)
        elif isinstance(message, (m.LeaseGranted, m.LeaseDenied, m.SubtasksEnded)):
            self._send(here.state, message.task, message)
        elif isinstance(message, m.TaskClosed):
            self._roster.stop_task(here.state.run, message.task, Verdict.CANCELLED)
        elif isinstance(message, m.RunRequested):
            self._set_deadline(here)
        elif isinstance(message, (m.CancelRequested, m.DeadlinePassed)):
            self._roster.stop_run(here.state.run, Verdict.DEADLINE if isinstance(message, m.DeadlinePassed) else Verdict.CANCELLED)
            asyncio.get_running_loop().call_later(STOP_SECONDS, self._give_up, here.state.run)
        elif isinstance(message, m.RunEnded):
            self._finish(here)

    async def _assign(self, state: RunState, message: m.Dispatched) -> None:
        team = state.request.code.digest if state.request.code else state.run
        for item in message.items:
            me = state.tasks[item.task]
            link = self._roster.links.get(item.host)
            if link is None:  # lost since; the loss is in the queue or will be noticed with the next ping
                self._later(_Item(state.run, now(), m.AttemptsLost(host=item.host, tasks=((item.task, item.attempt),)), None))
                continue
            history: tuple[bytes, ...] = ()
            if me.steps:
                picked = await asyncio.to_thread(self._journal.pick, state.run, [seq for seq, _ in me.steps])
                history = tuple(entry.body for entry in picked)
            names = list(refs(me.task.input)) if isinstance(me.task.input, (dict, list, tuple)) else []
            assign = m.Assign(
                task=item.task,
                attempt=item.attempt,
                role=me.task.role,
                team=team,
                input=me.task.input,
                inputs={name: state.tasks[name].output for name in names},
                lease=item.lease,
                limited=state.limited(me),
                depth=me.depth,
                history=history,
                traceparent=state.request.traceparent,
            )
            link.at_work[state.run, item.task] = item.attempt
            link.outbox.send(state.run, codec.pack(assign), f"{state.run} / {me.task.role} / {item.task}")

    def _send(self, state: RunState, task: str, message: m.Message) -> None:
        host = state.tasks[task].host
        link = self._roster.links.get(host) if host else None
        if link is not None:
            link.outbox.send(state.run, codec.pack(message), f"{state.run} / {state.tasks[task].task.role} / {task}")

    def _set_deadline(self, here: LiveRun) -> None:
        seconds = here.state.request.budget.seconds
        if seconds is None:
            return
        left = here.state.began / 1000 + seconds - now() / 1000
        here.timer = asyncio.get_running_loop().call_later(max(left, 0), self._deadline, here.state.run)

    def _deadline(self, run: str) -> None:
        self._later(_Item(run, now(), m.DeadlinePassed(), None))

    def _finish(self, here: LiveRun) -> None:
        here.finish()
        ended = [name for name, run in self._runs.items() if run.state.act is Act.ENDED]
        kept = sum(len(self._runs[name].state.tasks) for name in ended)
        for name in ended[:-1]:
            if kept <= KEPT_TASKS:
                break
            kept -= len(self._runs.pop(name).state.tasks)

    async def _hear_requests(self) -> None:
        """Take what other processes ask of the runs at work here, through the journal's store."""
        while True:
            await asyncio.sleep(REQUEST_SECONDS)
            mine = [name for name, run in self._runs.items() if run.is_at_work]
            if not mine:
                continue
            try:
                for run, body in await asyncio.to_thread(self._journal.take, mine):
                    message = codec.unpack(body)
                    if isinstance(message, m.CancelRequested):
                        await self._put([_Item(run, now(), message, body)])
            except (StorageError, UnknownMessage) as error:
                log.warning("a request could not be read", why=str(error))
