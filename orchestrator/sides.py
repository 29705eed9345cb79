"""Who is what to whom: the coordinator as hosts and as drivers see it, and a host as the coordinator does."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from protocols.messages import BlobRef

Place = tuple[str, str, int]
"""An attempt at work, as (run, task, attempt)."""


class Attached(NamedTuple):
    """A host that works for a coordinator: its incarnation, the number of the first parcel that it will say, and what it goes on with
    of an earlier coordinator's work, or has ended without being heard."""

    incarnation: str
    first: int = 1
    kept: tuple[Place, ...] = ()


class CoordinatorSide(Protocol):
    """The coordinator, as hosts reach it. Every method may raise ``LinkDown``."""

    async def deliver(self, host: str, batch: bytes, label: str = "") -> int:
        """Take a batch; returns, once it is durable, the number of the last parcel taken."""
        ...

    async def put_blob(self, data: bytes) -> BlobRef:
        """Store content."""
        ...

    async def get_blob(self, digest: str) -> bytes:
        """Read content."""
        ...

    async def kept(self, run: str, name: str, shared: bool, claimant: str) -> str | None:
        """What was kept under ``name`` for the run's user, or for everyone, and is not too old. A ``claimant``, if one is named, waits
        while another is making it; it has to make it itself, or to let go, when this is ``None``."""
        ...

    async def keep(self, run: str, name: str, said: str, seconds: float, shared: bool) -> None:
        """Keep something for so many seconds, and give it to those who wait for it."""
        ...

    async def let_go(self, run: str, name: str, shared: bool, claimant: str) -> None:
        """Leave it to the next who waits for it, if this one still has it."""
        ...


class HostSide(Protocol):
    """A host, as the coordinator reaches it. Every method may raise ``LinkDown``, or ``HostGone`` when it will never answer."""

    @property
    def name(self) -> str:
        """The host's name, unique in its deployment."""
        ...

    @property
    def pool(self) -> str:
        """The pool it belongs to."""
        ...

    @property
    def capacity(self) -> int:
        """How many tasks it may have at work."""
        ...

    async def attach(self, coordinator: str, side: CoordinatorSide, born: int, wanted: Sequence[Place] = ()) -> Attached:
        """Work for this coordinator from now on, and of what an earlier one gave only on ``wanted``. ``born`` is when the coordinator
        began, in milliseconds: raises ``StaleEpoch`` for one that is older than the one that is attached."""
        ...

    async def deliver(self, batch: bytes, label: str = "") -> int:
        """Take a batch; returns the number of the last parcel taken."""
        ...

    async def stop(self) -> Sequence[Place]:
        """Take no more work and stop all there is, without results; returns when what was used is told, and durable: what may still be
        at work, or has used more than was told."""
        ...

    async def ping(self) -> str:
        """The host's incarnation: another one than before means that its process was lost in between."""
        ...


class Watched(NamedTuple):
    """News of a run: stored entries as (seq, at, body), and pieces of output that are not stored, with the number to go on from."""

    entries: list[tuple[int, int, bytes]]
    partials: list[bytes]
    partial: int


class Service(Protocol):
    """A coordinator as drivers reach it (see ``Coordinator`` for what each does). Any call may raise ``LinkDown``."""

    async def begun(self, run: str) -> bytes | None: ...
    async def limits_money(self, user: str) -> bool: ...
    async def submit(self, run: str, request: bytes) -> None: ...
    async def resume(self, run: str) -> None: ...
    async def cancel(self, run: str, reason: str) -> None: ...
    async def pause(self, run: str, paused: bool) -> None: ...
    async def decide(self, run: str, decided: bytes) -> None: ...
    async def abandon(self, run: str, reason: str) -> None: ...
    async def wait(self, run: str, seconds: float) -> bool: ...
    async def watch(self, run: str, after: int, partial: int, seconds: float) -> Watched: ...
    async def outcomes(self, run: str, start: int) -> bytes: ...
    async def ended(self, run: str) -> bytes: ...
    async def put_blob(self, data: bytes) -> BlobRef: ...
    async def get_blob(self, digest: str) -> bytes: ...
