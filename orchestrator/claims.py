"""Claims: of those who want the same at the same moment one makes it, and the others wait until it is kept. No Ray here."""

import asyncio
import secrets

from orchestrator.journal.port import Journal
from orchestrator.link import now

CLAIM_SECONDS = 30.0
"""Who has neither kept nor let go by then what it claimed has lost its claim to the next: its host may be gone."""
MOST_WAITING = 5_000
"""So many wait at one coordinator; who comes then makes it for itself. An actor may have only so many calls open."""


class _Claim:
    __slots__ = ("holder", "timer", "waiting")

    def __init__(self) -> None:
        self.holder = ""
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: dict[str, asyncio.Future[str | None]] = {}


class Claims:
    """What is kept in the journal's store, and who is making what is not."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._claims: dict[str, _Claim] = {}
        self._waiting = 0

    async def kept(self, key: str, claimant: str = "") -> str | None:
        """What is kept under ``key`` and not too old. A ``claimant`` waits while another is making it, and has to make it itself, or to
        let go, when this is ``None``."""
        claim = self._claims.get(key)
        if not claimant or (claim is not None and self._waiting >= MOST_WAITING):
            return await self._read(key)
        if claim is not None:
            return await self._wait(claim, claimant)
        self._give(key, _Claim(), claimant)
        try:
            said = await self._read(key)
        except BaseException:
            self.let_go(key, claimant)
            raise
        if said is not None:
            self._settle(key, said)
        return said

    async def keep(self, key: str, said: str, seconds: float) -> None:
        """Keep something for so many seconds, and give it to those who wait for it, even where it can't be stored."""
        at = now()
        try:
            await asyncio.to_thread(self._journal.keep, key, said, at, at + round(seconds * 1000))
        finally:
            self._settle(key, said)

    def lost(self, host: str) -> None:
        """A host is gone: what its agents were making is others' now, and nobody of it waits any more."""
        for key, claim in list(self._claims.items()):
            for name in [name for name in claim.waiting if _is_of(name, host)]:
                _answer(claim.waiting.pop(name), None)
            if _is_of(claim.holder, host):
                self.let_go(key, claim.holder)

    def let_go(self, key: str, claimant: str) -> None:
        """Leave it to the next who waits for it, if this one still has it."""
        claim = self._claims.get(key)
        if claim is None or claim.holder != claimant:
            return
        for name in list(claim.waiting):
            future = claim.waiting.pop(name)
            if not future.done():
                self._give(key, claim, name)
                future.set_result(None)
                return
        self._drop(key)

    async def _read(self, key: str) -> str | None:
        return await asyncio.to_thread(self._journal.kept, key, now())

    async def _wait(self, claim: _Claim, claimant: str) -> str | None:
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        claim.waiting[claimant] = future
        self._waiting += 1
        try:
            return await future
        finally:
            self._waiting -= 1

    def _give(self, key: str, claim: _Claim, holder: str) -> None:
        self._claims[key] = claim
        claim.holder = holder
        if claim.timer is not None:
            claim.timer.cancel()
        claim.timer = asyncio.get_running_loop().call_later(CLAIM_SECONDS, self.let_go, key, holder)

    def _settle(self, key: str, said: str) -> None:
        for future in self._drop(key):
            _answer(future, said)

    def _drop(self, key: str) -> list["asyncio.Future[str | None]"]:
        claim = self._claims.pop(key, None)
        if claim is None:
            return []
        if claim.timer is not None:
            claim.timer.cancel()
        return list(claim.waiting.values())


def claimant_at(host: str) -> str:
    """A name of its own for somebody on this host."""
    return f"{host} {secrets.token_hex(8)}"


def _answer(future: "asyncio.Future[str | None]", said: str | None) -> None:
    if not future.done():
        future.set_result(said)


def _is_of(name: str, host: str) -> bool:
    return name.rpartition(" ")[0] == host
