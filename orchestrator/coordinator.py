"""The coordinator: carries runs over hosts, for drivers and for what other processes ask. No Ray here.

It takes runs up, hears hosts, and has what was said committed (see ``orchestrator.commits``), which does all the rest.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress

from orchestrator import outcomes, reducer
from orchestrator.claims import Claims
from orchestrator.commits import Commits, Item
from orchestrator.execution import Execution
from orchestrator.journal.port import Journal
from orchestrator.link import now, open_parcel
from orchestrator.live import LiveRun, surplus
from orchestrator.observe.logs import get_logger
from orchestrator.observe.meter import Meter
from orchestrator.pools import Pools
from orchestrator.purse import Purse, opening, reclaim
from orchestrator.reducer.state import Act, RunState
from orchestrator.replay import replay
from orchestrator.requests import hear, left
from orchestrator.roster import Roster, losses
from orchestrator.sides import HostSide, Place, Watched
from orchestrator.takeover import places, read_own
from orchestrator.turnstile import Turnstile
from protocols import codec
from protocols import messages as m
from protocols.envelope import Batch
from protocols.failures import BadInput, Failure, StorageError, UnknownMessage, Verdict

MEND_SECONDS = 2.0
"""How often it is tried to go on with a run that could not be stored."""

JOIN_SECONDS = 2.0
"""How long a new coordinator waits for hosts to say what they still have of an earlier one's work."""

KEPT_TASKS = 200_000
"""Finished runs stay in memory, for those who still read them, while they have no more tasks than this together."""

log = get_logger("coordinator")

STOP_SECONDS = 2.0
"""How long a coordinator that ends in good order waits for its hosts."""

_TOO_LATE = Failure(verdict=Verdict.CANCELLED, message="its host came back too late, and its work was given to another")

_FROM_HOSTS = (m.ModelCalled, m.ToolCalled, m.TaskEnded, m.ToolIntended, m.PartialOutput, m.LeaseAsked, m.ReviewAsked, m.SubtasksAsked)
"""Of an attempt; those that are said most come first."""


class Coordinator:
    """Carries any number of runs over the hosts it is given."""

    def __init__(
        self, journal: Journal, hosts: Sequence[HostSide], pools: Pools | None = None, owner: str = "", share: float = 1.0
    ) -> None:
        """Runs that it begins or carries on belong to ``owner``: the next coordinator of that name takes them up by itself. It has this
        ``share`` of what providers allow."""
        self.name = f"coordinator/{secrets.token_hex(4)}"
        self._owner = owner
        self._journal = journal
        self._hosts = hosts
        self._pools = pools
        self._runs: dict[str, LiveRun] = {}
        self._opening = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._roster = Roster(self.name, self, lambda host: places(self._runs.values()).get(host, ()), self._kept, self._lost, self._wake)
        self._commits = Commits(journal, self._runs, self._roster, lambda here, said: self._execution.carry_out(here, said), self._wake)
        self._purse = Purse(journal, self._commits.say)
        self._claims = Claims(journal)
        self.turnstile = Turnstile(self._roster.links, share)
        self._execution = Execution(journal, self._roster, self._purse, self._commits.later, self._finish)

    async def start(self) -> None:
        """Take up the runs of its owner, and begin to work; returns when at least one host is attached."""
        await asyncio.to_thread(reclaim, self._journal)
        own = await asyncio.to_thread(read_own, self._journal, self._owner)
        self._runs.update(own)
        self._tasks = [
            asyncio.create_task(self._commits.run(), name="commits"),
            asyncio.create_task(hear(self._journal, self._in_hand, self._commits.say), name="requests"),
            asyncio.create_task(self._purse.keep(), name="limits"),
            asyncio.create_task(self._purse.heed(self._runs.values), name="changes of limits"),
        ]
        if self._pools is not None:
            self._tasks.append(asyncio.create_task(self._pools.keep(self.states, self._roster), name="pools"))
        self._tasks.append(asyncio.create_task(self._mend(), name="mending"))
        if own:
            self.turnstile.rest()
        for side in self._hosts:
            self._roster.add(side)
        await self._roster.ready()
        await self._join(own)

    async def _mend(self) -> None:
        """Take up again what could not be stored, when it can be and nobody else has taken it over."""
        while True:
            await asyncio.sleep(MEND_SECONDS)
            for run in [name for name, here in self._runs.items() if here.can_be_mended]:
                with suppress(StorageError):
                    row = await asyncio.to_thread(self._journal.row, run)
                    if row is not None and row.epoch == self._runs[run].epoch:
                        await self.resume(run)

    async def stop(self) -> None:
        """Have hosts stop all work, and give back what it held and did not use; call it before ``close``. Takes seconds, raises nothing."""
        if not self._tasks:
            return  # it has not begun
        self._commits.stopping = True
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._commits.put([])  # what was being dispatched has been by then
                await self._lose(await self._roster.stop())
                await self._purse.rest()
        except Exception as error:
            log.warning("what was at work counts as used", why=str(error) or "it did not stop in time")

    async def close(self) -> None:
        """Stop working. Runs that have not ended can be resumed from the journal."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._purse.close()
        await self._roster.close()
        self.turnstile.close()
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
            epoch = await asyncio.to_thread(self._journal.claim, run, self._owner)
            limits, at = await self._purse.limits(message.user), now()
            self._runs[run] = LiveRun(reducer.begin(run, at, message), epoch, limits=limits)
            await self._commits.put([Item(run, at, message, request), *(Item(run, at, one, None) for one in opening(limits))])

    async def resume(self, run: str) -> None:
        """Carry a run on from the journal; one that has ended is only loaded, and one at work here is left alone."""
        async with self._opening:
            if run not in self._runs or self._runs[run].broken is not None:
                await self._take_up(run)

    async def _take_up(self, run: str, *then: m.Message) -> None:
        row = await asyncio.to_thread(self._journal.row, run)
        if row is None or row.seq == 0:
            raise BadInput(f"there is no run {run!r} in this journal; `callboard runs` lists those there are")
        epoch = row.epoch if row.ended else await asyncio.to_thread(self._journal.claim, run, self._owner)
        state = await asyncio.to_thread(replay, self._journal, run)
        limits = () if state.act is Act.ENDED else await self._purse.limits(state.request.user)
        self._runs[run] = here = LiveRun(state, epoch, limits=limits)
        if state.act is Act.ENDED:
            here.finish()
            return
        asked = await left(self._journal, run)
        # In one batch: nothing is dispatched between taking the run up and what follows.
        await self._commits.say(run, m.RunResumed(epoch=epoch), *opening(limits, state), *(said for _, said in asked), *then)
        for number, _ in asked:
            await asyncio.to_thread(self._journal.drop, number)
        await self._purse.align(here)
        self._execution.set_deadline(here)

    async def abandon(self, run: str, reason: str) -> None:
        """Take over a run that nobody works on, and end it; nothing more is started."""
        async with self._opening:
            if run in self._runs and self._runs[run].broken is None:
                await self.cancel(run, reason)
            else:
                await self._take_up(run, m.CancelRequested(reason=reason))

    async def cancel(self, run: str, reason: str) -> None:
        """Stop a run. Returns once the request is durable; the run ends when its agents have stopped."""
        await self._commits.say(run, m.CancelRequested(reason=reason))

    async def pause(self, run: str, paused: bool) -> None:
        """Have a run rest, or go on. Returns once that is durable; calls that were made already end as they would."""
        await self._commits.say(run, m.PauseRequested() if paused else m.ContinueRequested())

    async def decide(self, run: str, decided: bytes) -> None:
        """Settle what a task waits for a person for: a packed ``ReviewDecided``. Returns once it is durable."""
        await self._commits.say(run, self._find(run).decision(codec.unpack(decided)))

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

    async def kept(self, run: str, name: str, shared: bool, claimant: str) -> str | None:
        """See ``CoordinatorSide``."""
        return await self._claims.kept(self._kept_as(run, name, shared), claimant)

    async def keep(self, run: str, name: str, said: str, seconds: float, shared: bool) -> None:
        """Keep something for so many seconds."""
        await self._claims.keep(self._kept_as(run, name, shared), said, seconds)

    async def let_go(self, run: str, name: str, shared: bool, claimant: str) -> None:
        """See ``CoordinatorSide``."""
        self._claims.let_go(self._kept_as(run, name, shared), claimant)

    def _kept_as(self, run: str, name: str, shared: bool) -> str:
        return name if shared else codec.digest(codec.pack_value([self._find(run).state.request.user, name]))

    def states(self) -> Iterator[RunState]:
        """The runs at work here."""
        return (here.state for here in self._runs.values() if here.is_at_work)

    async def begun(self, run: str) -> bytes | None:
        """The packed request of a run, ``None`` when it has not begun. Nothing is taken up."""
        first = await asyncio.to_thread(self._journal.pick, run, [1])
        return first[0].body if first else None

    async def limits_money(self, user: str) -> bool:
        """Whether a limit over many runs bounds what this user's may cost: then a model without a price can't be called."""
        return any(one.limits.micros is not None for one in await self._purse.limits(user))

    def _in_hand(self) -> list[str]:
        return [name for name, run in self._runs.items() if run.is_at_work and run.joined]

    def count(self, meter: Meter) -> None:
        """Have this meter count what becomes durable."""
        self._commits.meter = meter

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

    # --- runs of a coordinator that is gone ---------------------------------------------------------------------------

    async def _join(self, own: dict[str, LiveRun]) -> None:
        """Resume these runs with what hosts still have of them; hosts that do not answer in time have lost it."""
        if own and self._pools is not None:
            await self._pools.adjust([here.state for here in own.values()], self._roster)
        if own:
            await self._roster.heard(places(own.values()), JOIN_SECONDS)
        for run, here in own.items():
            here.limits = await self._purse.limits(here.state.request.user)
            await self._commits.say(run, m.RunResumed(epoch=here.epoch), *opening(here.limits, here.state))
            await self._purse.align(here)
            self._execution.set_deadline(here)

    def _kept(self, host: str, kept: Sequence[Place]) -> None:
        """A host goes on with these attempts: it gets again the answers that it may not have got."""
        for run in {run for run, _, _ in kept}:
            if self._runs[run].state.paused:
                self._roster.hold(run, True)
            if self._runs[run].state.ledger.limited:
                self._roster.limit(run)
        for run, task, _ in kept:
            here = self._runs[run]
            if here.joined or here.state.stopping is not None:  # it came too late, or the run is ending
                self._roster.stop_task(run, task, here.state.stopping or _TOO_LATE)
            for body in here.loose[task].answers if task in here.loose else ():
                self._roster.links[host].outbox.send(run, body)

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
                body = await open_parcel(parcel, self.get_blob) if parcel.large else parcel.body
                message = codec.unpack(body)
                if not isinstance(message, _FROM_HOSTS):
                    self._hear(host, message)
                    continue
                here = self._runs.get(parcel.run)
                if here is None or link.at_work.get((parcel.run, message.task)) != message.attempt:
                    continue  # given up, and counted as lost
                if type(message) is m.PartialOutput:
                    here.pass_on(body)
                elif not here.has_heard(message.task, body):
                    items.append(Item(parcel.run, parcel.at, message, body))
            if items:
                await self._commits.put(items)
            for item in items:
                if type(item.message) is m.TaskEnded and link.at_work.get((item.run, item.message.task)) == item.message.attempt:
                    del link.at_work[item.run, item.message.task]
            link.heard = now()
            taken = link.inbox.take(unpacked)
        self._wake.set()
        return taken

    def _hear(self, host: str, message: m.Message) -> None:
        if not isinstance(message, m.CallsReported):
            raise UnknownMessage(f"a host may not say {type(message).__name__}")
        self.turnstile.hear(host, message, (here.state.request.team for here in self._runs.values() if here.is_at_work))

    # --- the end of things --------------------------------------------------------------------------------------------

    async def _lost(self, host: str, at_work: dict[tuple[str, str], int]) -> None:
        """A host is gone, and what it had at work with it."""
        log.warning("host lost", host=host, tasks=len(at_work))
        self.turnstile.lost()
        self._claims.lost(host)
        await self._lose(losses(host, at_work))

    async def _lose(self, losses: list[tuple[str, m.AttemptsLost]]) -> None:
        if losses:
            at = now()
            await self._commits.put([Item(run, at, loss, None) for run, loss in losses])

    def _finish(self, here: LiveRun) -> None:
        here.finish()
        for name in surplus(self._runs, KEPT_TASKS):
            del self._runs[name]
