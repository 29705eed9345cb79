"""Links: numbered, acknowledged batches of packed messages in one direction. No Ray here: a link is given a way to carry bytes.

The sender keeps every parcel until the other side has acknowledged it, and has one batch on its way at a time; what is said
meanwhile waits and makes the next batch. So batching, back-pressure and surviving a lost or doubled delivery are one mechanism.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable

from orchestrator.observe.logs import get_logger
from protocols.envelope import BATCH_BYTES, Batch, Parcel
from protocols.failures import CallboardError
from protocols.messages import BlobRef

log = get_logger("link")

LARGE = 64_000
"""A message of more bytes than this travels as a blob."""

FULL = 5_000
"""An outbox with more parcels than this asks those who fill it to wait."""

Carry = Callable[[bytes, str], Awaitable[int]]
"""Takes a packed batch and a label for people; returns the number of the last parcel that the other side has taken."""

PutBlob = Callable[[bytes], Awaitable[BlobRef]]
GetBlob = Callable[[str], Awaitable[bytes]]


class LinkDown(CallboardError):
    """The other side did not answer; the batch is sent again."""

    code = "link_down"
    retryable = True


class HostGone(LinkDown):
    """The host has ended for good."""

    code = "host_gone"


_ahead = 0.0
"""Seconds by which the clock of a rehearsal is ahead; else nothing."""


def move_clock(ahead: float) -> None:
    """Have this process's clock be ``ahead`` (seconds) of the machine's."""
    global _ahead
    _ahead = ahead


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000 + int(_ahead * 1000)


def steady() -> float:
    """Seconds on a clock that nobody sets."""
    return time.monotonic() + _ahead


class Outbox:
    """The sending side of one direction."""

    def __init__(self, sender: str, carry: Carry, put_blob: PutBlob) -> None:
        self.sender = sender
        self._carry = carry
        self._put_blob = put_blob
        self._parcels: deque[tuple[Parcel, str]] = deque()
        self._acked = 0
        self._last = 0
        self._filled = asyncio.Event()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def send(self, run: str, body: bytes, label: str = "") -> int:
        """Put a message on its way; returns its number."""
        self._parcels.append((Parcel(run, now(), body), label))
        self._last += 1
        self._filled.set()
        return self._last

    @property
    def first(self) -> int:
        """The number of the first parcel that is not acknowledged."""
        return self._acked + 1

    def unheard(self) -> list[Parcel]:
        """What is not acknowledged."""
        return [parcel for parcel, _ in self._parcels]

    async def delivered(self, number: int) -> None:
        """Return when the other side has acknowledged this parcel."""
        if number > self._acked:
            future = asyncio.get_running_loop().create_future()
            self._waiters.append((number, future))
            await future

    async def emptied(self) -> None:
        """Return when the other side has acknowledged everything."""
        await self.delivered(self._last)

    @property
    def is_full(self) -> bool:
        """Whether those who fill it should wait for ``room``."""
        return len(self._parcels) > FULL

    async def room(self) -> None:
        """Return when the outbox is not full."""
        if self.is_full:
            await self.delivered(self._last - FULL)

    async def run(self) -> None:
        """Carry batches until cancelled."""
        pause = 0.0
        while True:
            await self._filled.wait()
            try:
                batch, label = await self._next()
                taken = await self._carry(batch.pack(), label)
            except LinkDown:
                taken = 0
            except Exception:
                log.exception("a batch was refused and is sent again", first=self.first, sender=self.sender)
                taken = 0
            if taken > self._acked:
                pause = 0.0
                self._acknowledge(taken)
            else:  # down, or not ready to take anything
                pause = min(max(pause * 2, 0.02), 1.0)
                await asyncio.sleep(pause)

    async def _next(self) -> tuple[Batch, str]:
        parcels: list[Parcel] = []
        size = 0
        for index, (parcel, label) in enumerate(itertools.islice(self._parcels, 2_000)):
            if len(parcel.body) > LARGE and not parcel.large:
                ref = await self._put_blob(parcel.body)
                parcel = parcel._replace(body=ref.digest.encode(), large=True)
                self._parcels[index] = (parcel, label)
                break  # the queue may have grown meanwhile; what was gathered goes, the rest is looked at again
            size += parcel.size
            if size > BATCH_BYTES and parcels:
                break
            parcels.append(parcel)
        if not parcels:
            return await self._next()
        label = self._parcels[0][1]
        more = f" (+{len(parcels) - 1})" if len(parcels) > 1 else ""
        return Batch(self.sender, self._acked + 1, tuple(parcels)), label + more

    def _acknowledge(self, taken: int) -> None:
        while self._acked < taken and self._parcels:
            self._parcels.popleft()
            self._acked += 1
        while self._waiters and self._waiters[0][0] <= self._acked:
            _, future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
        if not self._parcels:
            self._filled.clear()


class Inbox:
    """The receiving side: tells new parcels from repeated ones."""

    def __init__(self, sender: str, taken: int = 0) -> None:
        """``taken`` is the number of the last parcel that somebody else has taken before."""
        self.sender = sender
        self.taken = taken

    def fresh(self, batch: Batch) -> tuple[Parcel, ...]:
        """The parcels not taken before. A batch that leaves a gap, or of another sender, has none."""
        if batch.sender != self.sender or batch.first > self.taken + 1:
            return ()
        return batch.parcels[self.taken + 1 - batch.first :]

    def take(self, batch: Batch) -> int:
        """Everything up to the end of ``batch`` is safe now; returns what to acknowledge."""
        if batch.sender == self.sender and batch.first <= self.taken + 1:
            self.taken = max(self.taken, batch.first + len(batch.parcels) - 1)
        return self.taken


async def open_parcel(parcel: Parcel, get_blob: GetBlob) -> bytes:
    """The packed message in a parcel, fetched if it travelled as a blob."""
    return await get_blob(parcel.body.decode()) if parcel.large else parcel.body
