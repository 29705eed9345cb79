"""What the two ends of a link are to each other: the coordinator as a host sees it, and the host as the coordinator does."""

from typing import Protocol

from protocols.messages import BlobRef


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

    async def attach(self, coordinator: str, side: CoordinatorSide) -> str:
        """Work for this coordinator from now on, and drop what an earlier one gave; returns the host's incarnation."""
        ...

    async def deliver(self, batch: bytes, label: str = "") -> int:
        """Take a batch; returns the number of the last parcel taken."""
        ...

    async def ping(self) -> str:
        """The host's incarnation: another one than before means that its process was lost in between."""
        ...
