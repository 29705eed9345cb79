"""The purse: what one coordinator draws for its runs from limits that hold over many runs, and settles. No Ray here.

A draw is made in the store first and journalled after; room that is given back is journalled first. So what the store holds for a run
is never less than what the run may promise, whenever either of them dies.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.journal.allowances import Claim, Limit, accounts_of
from orchestrator.journal.port import Journal
from orchestrator.ledger import ALLOWANCE, Account, plus
from orchestrator.link import now
from orchestrator.live import LiveRun
from orchestrator.observe.logs import get_logger
from orchestrator.reducer.allowances import beside, is_idle, most, waits
from orchestrator.reducer.leases import comes_back
from orchestrator.reducer.state import RunState
from orchestrator.replay import replay
from protocols import messages as m
from protocols.budget import COUNTED, UNLIMITED, Amount, Limits, amount
from protocols.failures import StaleEpoch, StorageError, UnknownMessage

AGAIN_SECONDS = 0.5
"""How often a draw that waits for room is tried again."""

LOOK_SECONDS = 1.0
"""How often it is looked whether limits were set, changed or taken away."""

RENEW_SECONDS = 5.0
"""How often what runs used is settled while they work, which says also that they live."""

Say = Callable[[str, m.Message], Awaitable[None]]
"""Puts a message into a run; returns when it is durable and folded."""

T = TypeVar("T")

log = get_logger("purse")


@dataclass(slots=True)
class _Pocket:
    """One run's part. ``lock`` is held from a draw to its entry, and from an entry that gives back to the store; ``storing`` only while
    the store is at it. Nothing is stored of a run that is ``over``."""

    here: LiveRun
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    storing: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False
    drawing: asyncio.Task[None] | None = None
    joined: bool = False
    waits: str = ""

    @property
    def account(self) -> Account:
        return self.here.state.ledger.accounts[ALLOWANCE]

    @property
    def claim(self) -> Claim:
        return Claim(self.here.state.run, self.here.state.request.user, self.here.epoch)


class Purse:
    """Draws and settles for the runs of one coordinator that have an allowance; for others it does nothing."""

    def __init__(self, journal: Journal, say: Say) -> None:
        self._journal = journal
        self._say = say
        self._pockets: dict[str, _Pocket] = {}

    async def limits(self, user: str) -> tuple[Limit, ...]:
        """The limits that a run for this user is under."""
        return _its(user, await asyncio.to_thread(self._journal.limits))

    async def align(self, here: LiveRun) -> None:
        """Bring the store in line with a run that was taken up."""
        if here.is_at_work and ALLOWANCE in here.state.ledger.accounts:
            pocket = self._pocket(here)
            try:
                async with pocket.lock:
                    await self._join(pocket)
                    await self._give_back(pocket)
            except StorageError as error:
                log.warning("limits could not be brought in line", run=here.state.run, why=str(error))

    async def heed(self, runs: Callable[[], Iterable[LiveRun]]) -> None:
        """Bring runs at work under limits that were set, changed or taken away meanwhile; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            at_work = [here for here in runs() if here.is_at_work and here.joined]
            try:
                found = await asyncio.to_thread(self._journal.limits) if at_work else []
                for here in at_work:
                    its = _its(here.state.request.user, found)
                    if its != here.limits:
                        await self._change(here, its)
            except Exception:
                log.exception("it could not be seen whether limits have changed; it is tried again")

    async def _change(self, here: LiveRun, limits: tuple[Limit, ...]) -> None:
        """What was drawn and not promised goes back; what is used and promised counts, even where it is above a limit."""
        pocket = self._pocket(here)
        async with pocket.lock:
            if not here.is_at_work:
                return
            try:
                await self._say(here.state.run, *opening(limits, here.state))
                if ALLOWANCE in here.state.ledger.accounts and here.is_at_work:
                    pocket.joined = False  # what was promised while there was no limit is not drawn yet
                    await self._join(pocket)
                    await self._give_back(pocket)
            except StaleEpoch:
                pocket.joined = False  # somebody else carries the run on
            here.limits = limits
            log.info("limits have changed", run=here.state.run)

    def ask(self, here: LiveRun) -> None:
        """Draw for the run until nothing is asked any more."""
        pocket = self._pocket(here)
        if pocket.drawing is None or pocket.drawing.done():
            pocket.drawing = asyncio.create_task(self._draw(pocket), name=f"draw for {here.state.run}")

    async def finish(self, here: LiveRun) -> None:
        """The run has ended: what it used is settled, and nothing stays reserved. What a lost agent held counts as used."""
        account = here.state.ledger.accounts.get(ALLOWANCE)
        if account is None:
            return
        pocket = self._pocket(here)
        del self._pockets[here.state.run]
        try:
            await self._join(pocket)
            await self._stored(pocket, self._journal.settle, _taken(account), None, now(), ended=True)
        except StorageError as error:
            log.warning("limits could not be settled; the next coordinator does it", run=here.state.run, why=str(error))
        pocket.over = True
        if pocket.drawing is not None:
            pocket.drawing.cancel()

    async def keep(self) -> None:
        """Settle what runs have used while they work, and give back what others wait for; until cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            for pocket in list(self._pockets.values()):
                try:
                    await self._renew(pocket)
                except StaleEpoch:
                    pocket.joined = False  # somebody else carries the run on
                except Exception:
                    log.exception("limits could not be settled; it is tried again", run=pocket.here.state.run)

    async def rest(self) -> None:
        """Draw no more, and give back what is not promised: nothing is at work any more. Raises ``StorageError``."""
        await self.close()
        for pocket in list(self._pockets.values()):
            await self._renew(pocket, rests=True)

    async def close(self) -> None:
        """Draw no more."""
        tasks = [pocket.drawing for pocket in self._pockets.values() if pocket.drawing is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pocket(self, here: LiveRun) -> _Pocket:
        run = here.state.run
        pocket = self._pockets.get(run)
        if pocket is None or pocket.here is not here:  # it was read again
            if pocket is not None and pocket.drawing is not None:
                pocket.drawing.cancel()
            pocket = self._pockets[run] = _Pocket(here)
        return pocket

    async def _stored(self, pocket: _Pocket, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """What the store answers for a run. Raises ``StaleEpoch`` when the run is over: nothing of it may come after its end."""
        async with pocket.storing:
            if pocket.over:
                raise StaleEpoch(f"run {pocket.here.state.run} has ended")
            return await asyncio.to_thread(call, pocket.claim, *arguments, **named)

    async def _join(self, pocket: _Pocket) -> None:
        if not pocket.joined:
            await self._stored(pocket, self._journal.join, pocket.here.state.inherited, now(), _taken(pocket.account))
            pocket.joined = True

    async def _draw(self, pocket: _Pocket) -> None:
        here = pocket.here
        while here.is_at_work and (asked := here.state.drawing) is not None:
            try:
                if await self._is_answered(pocket, asked):
                    continue
            except StaleEpoch:
                return  # somebody else carries the run on
            except Exception:
                log.exception("nothing can be drawn; it is tried again", run=here.state.run)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _is_answered(self, pocket: _Pocket, asked: m.AllowanceAsked) -> bool:
        """Try to draw: whether the run was told what it has, or that it gets no more."""
        state, need = pocket.here.state, amount(asked.need)
        async with pocket.lock:
            await self._join(pocket)
            account, many, idle = pocket.account, most(state, asked), is_idle(state, need)
            held = beside(state, asked)
            drawn = await self._stored(pocket, self._journal.draw, account.settled, held, need, many, now(), idle=idle)
            if isinstance(drawn, Limits):
                await self._say(state.run, m.AllowanceGranted(total=drawn))
                return True
        if waits(state, asked) and (drawn.others or comes_back(state, ALLOWANCE, drawn.dimension)):
            if drawn.others and pocket.waits != str(drawn):
                pocket.waits = str(drawn)
                log.info("what is left is drawn by other runs; it is waited for", run=state.run, limit=pocket.waits)
            return False
        denied = m.AllowanceDenied(task=asked.task, attempt=asked.attempt, ask=asked.ask, limit=str(drawn))
        await self._say(state.run, denied)
        return True

    async def _renew(self, pocket: _Pocket, *, rests: bool = False) -> None:
        async with pocket.lock:
            if not pocket.here.is_at_work or not pocket.joined:
                return
            account, state = pocket.account, pocket.here.state
            others_wait = await self._stored(pocket, self._journal.settle, account.settled, None, now())
            stays = _taken(account) if rests else plus(_taken(account), account.kept)
            gives = rests or (others_wait and state.drawing is None)
            if gives and any(limit > stays[place] for place, limit in account.bounds):
                await self._say(state.run, lessened(account, stays))
                if pocket.here.is_at_work:
                    await self._give_back(pocket)

    async def _give_back(self, pocket: _Pocket) -> None:
        account = pocket.account
        bounds = dict(account.bounds)
        tokens, micros, calls, tools, turns = (bounds.get(place, taken) for place, taken in enumerate(_taken(account)))
        drawn = tokens, micros, calls, tools, turns
        await self._stored(pocket, self._journal.settle, account.settled, drawn, now())


def opening(limits: Sequence[Limit], state: RunState | None = None) -> tuple[m.AllowanceGranted, ...]:
    """The entry with which a run goes on under these limits, or with ``state`` without them; nothing is drawn yet. None where none is
    needed."""
    names = {name for one in limits for name in COUNTED if getattr(one.limits, name) is not None}
    if names:
        return (m.AllowanceGranted(total=Limits(**dict.fromkeys(names, 0))),)
    return (m.AllowanceGranted(total=UNLIMITED),) if state is not None and ALLOWANCE in state.ledger.accounts else ()


def lessened(account: Account, stays: Amount) -> m.AllowanceGranted:
    """The entry with which a run gives back what it has drawn above what ``stays``."""
    return m.AllowanceGranted(total=Limits(**{COUNTED[place]: min(limit, stays[place]) for place, limit in account.bounds}))


def _its(user: str, limits: Iterable[Limit]) -> tuple[Limit, ...]:
    return tuple(one for one in limits if one.account in accounts_of(user))


def reclaim(journal: Journal) -> None:
    """Settle the runs that ended without it, because their coordinator died at that moment. Blocks."""
    for claim, drawn in journal.drawing():
        row, used = journal.row(claim.run), drawn  # of a run that was forgotten nobody can say any more how much it used
        if row is not None and not row.ended:
            continue
        try:
            if row is not None and (account := replay(journal, claim.run).ledger.accounts.get(ALLOWANCE)):
                used = _taken(account)
            journal.settle(claim, used, None, now(), ended=True)
        except (StorageError, UnknownMessage) as error:
            log.error("what a run used could not be settled", run=claim.run, why=str(error))


def _taken(account: Account) -> Amount:
    return plus(account.settled, account.reserved)
