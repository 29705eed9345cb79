"""The purse: what one coordinator draws for its runs from limits that hold over many runs, and settles. No Ray here.

A draw is made in the store first and journalled after; room that is given back is journalled first. So what the store holds for a run
is never less than what the run may promise, whenever either of them dies.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from orchestrator.journal.allowances import Claim, accounts_of
from orchestrator.journal.port import Journal
from orchestrator.ledger import ALLOWANCE, Account, plus
from orchestrator.link import now
from orchestrator.live import LiveRun
from orchestrator.observe.logs import get_logger
from orchestrator.reducer.allowances import is_idle, most, waits
from orchestrator.reducer.leases import comes_back
from orchestrator.reducer.state import RunState
from orchestrator.replay import replay
from protocols import messages as m
from protocols.budget import COUNTED, UNLIMITED, Amount, Limits, amount
from protocols.failures import StaleEpoch, StorageError, UnknownMessage

AGAIN_SECONDS = 0.5
"""How often a draw that waits for room is tried again."""

RENEW_SECONDS = 5.0
"""How often what runs used is settled while they work, which says also that they live."""

Say = Callable[[str, m.Message], Awaitable[None]]
"""Puts a message into a run; returns when it is durable and folded."""

log = get_logger("purse")


@dataclass(slots=True)
class _Pocket:
    """One run's part. ``lock`` is held from a draw to its entry, and from an entry that gives back to the store."""

    here: LiveRun
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
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

    async def opening(self, user: str) -> tuple[m.AllowanceGranted, ...]:
        """The entry with which a run begins, or goes on, under limits; none where there are none. Nothing is drawn yet."""
        found = await asyncio.to_thread(self._journal.limits)
        its = [one.limits for one in found if one.account in accounts_of(user)]
        names = {name for limits in its for name in COUNTED if getattr(limits, name) is not None}
        return (m.AllowanceGranted(total=Limits(**dict.fromkeys(names, 0))),) if names else ()

    async def reopening(self, state: RunState) -> tuple[m.AllowanceGranted, ...]:
        """The same for a run that is taken up: what was drawn and not promised goes back."""
        opening = await self.opening(state.request.user)
        return opening or ((m.AllowanceGranted(total=UNLIMITED),) if ALLOWANCE in state.ledger.accounts else ())

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
        if pocket.drawing is not None:
            pocket.drawing.cancel()
        try:
            await asyncio.to_thread(self._journal.settle, pocket.claim, _taken(account), None, now(), ended=True)
        except StorageError as error:
            log.warning("limits could not be settled; the next coordinator does it", run=here.state.run, why=str(error))

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

    async def _join(self, pocket: _Pocket) -> None:
        if not pocket.joined:
            await asyncio.to_thread(self._journal.join, pocket.claim, _taken(pocket.account), now())
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
            drawn = await asyncio.to_thread(
                self._journal.draw, pocket.claim, account.settled, account.reserved, need, many, now(), idle=idle
            )
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
            others_wait = await asyncio.to_thread(self._journal.settle, pocket.claim, account.settled, None, now())
            taken = _taken(account)
            gives = rests or (others_wait and state.drawing is None)
            if gives and any(limit > taken[place] for place, limit in account.bounds):
                less = m.AllowanceGranted(total=Limits(**{COUNTED[place]: 0 for place, _ in account.bounds}))
                await self._say(state.run, less)
                if pocket.here.is_at_work:
                    await self._give_back(pocket)

    async def _give_back(self, pocket: _Pocket) -> None:
        account = pocket.account
        bounds = dict(account.bounds)
        tokens, micros, calls, tools, turns = (bounds.get(place, taken) for place, taken in enumerate(_taken(account)))
        drawn = tokens, micros, calls, tools, turns
        await asyncio.to_thread(self._journal.settle, pocket.claim, account.settled, drawn, now())


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
