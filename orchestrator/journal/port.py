"""The journal port: durable, ordered, fenced storage of what was said in every run. Calls block; run them off the event loop."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from protocols.messages import BlobRef


class Entry(NamedTuple):
    """One stored message: ``seq`` counts from 1 in its run, ``at`` is in milliseconds (UTC), ``body`` is packed by ``protocols.codec``."""

    run: str
    seq: int
    at: int
    tag: str
    body: bytes


class RunRow(NamedTuple):
    """One run as the journal knows it: its epoch, last seq, when its first and last entries were said, and whether it has ended."""

    run: str
    epoch: int
    seq: int
    began: int
    last: int
    ended: bool


class Journal(Protocol):
    """Append-only entries by run, content-addressed blobs, and an epoch that fences out earlier writers."""

    def claim(self, run: str) -> int:
        """Become the only writer of ``run`` (known or new): the new epoch, 1 for a new run. Earlier epochs can append no more."""
        ...

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """Store ``entries`` (of any number of runs) in one transaction; durable on return.

        Raises ``StaleEpoch`` when a run's epoch in ``epochs`` is not its newest, ``StorageError`` when anything else fails;
        then nothing of this call is stored. A seq that exists already, or leaves a gap, is a ``StorageError``.
        """
        ...

    def read(self, run: str, after: int = 0, limit: int | None = None) -> Iterator[Entry]:
        """The entries of ``run`` with ``seq > after``, in order."""
        ...

    def pick(self, run: str, seqs: Sequence[int]) -> list[Entry]:
        """The entries of ``run`` with these numbers, in order of number."""
        ...

    def runs(self) -> list[RunRow]:
        """Every run, newest first."""
        ...

    def put_blob(self, data: bytes) -> BlobRef:
        """Store content under its digest, durable on return; storing it again is free."""
        ...

    def get_blob(self, digest: str) -> bytes:
        """The content with this digest; raises ``StorageError`` when it is not there or does not match its digest."""
        ...

    def post(self, run: str, body: bytes) -> None:
        """Leave a packed message for the coordinator that works on ``run``: how another process asks it for something."""
        ...

    def take(self, runs: Sequence[str]) -> list[tuple[str, bytes]]:
        """Take away what was left for these runs, oldest first, as (run, packed message)."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
