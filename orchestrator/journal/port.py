"""The journal port: durable, ordered, fenced storage of what was said in every run. Calls block; run them off the event loop."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from orchestrator.journal.allowances import Allowances
from protocols.messages import BlobRef


class Entry(NamedTuple):
    """One stored message: ``seq`` counts from 1 in its run, ``at`` is in milliseconds (UTC), ``body`` is packed by ``protocols.codec``."""

    run: str
    seq: int
    at: int
    tag: str
    body: bytes


class RunRow(NamedTuple):
    """One run as the journal knows it: its epoch, last seq, when its first and last entries were said, and whether it has ended.

    ``owner`` names whose coordinator may carry the run on by itself; empty when somebody has to ask for it.
    """

    run: str
    epoch: int
    seq: int
    began: int
    last: int
    ended: bool
    owner: str = ""


PUT_AGAIN = 3_600_000
"""Milliseconds after which storing a blob again is noted, so that ``Journal.sweep`` spares it."""


class Post(NamedTuple):
    """What another process asks of a run: a packed message, and the number to drop it by."""

    number: int
    run: str
    body: bytes


class Journal(Allowances, Protocol):
    """Append-only entries by run, content-addressed blobs, an epoch that fences out earlier writers, and limits over all runs."""

    def claim(self, run: str, owner: str = "") -> int:
        """Become the only writer of ``run`` (known or new): the new epoch, 1 for a new run. Earlier epochs can append no more.

        The run's owner is ``owner`` from now on, whoever had it.
        """
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

    def row(self, run: str) -> RunRow | None:
        """One run; ``None`` when nobody ever claimed it."""
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

    def posts(self, runs: Sequence[str]) -> list[Post]:
        """What was left for these runs, oldest first. It stays until it is dropped, so that nothing is lost on the way into an entry."""
        ...

    def drop(self, number: int) -> None:
        """Forget a post: it is heard, and what follows from it is durable."""
        ...

    def forget(self, run: str, epoch: int) -> int:
        """Delete a run: its entries and what was left for it. Returns how many bytes its entries took. Its blobs stay until ``sweep``.

        Raises ``StaleEpoch`` when the run is not at ``epoch``: somebody took it up since.
        """
        ...

    def sweep(self, before: int) -> tuple[int, int]:
        """Delete the blobs that no run refers to and that were last stored before this moment (milliseconds): how many, and their bytes.

        The moment lies at least a day back: what was stored just now may be referred to by an entry that is still on its way.
        """
        ...

    def keep(self, name: str, said: str, at: int, until: int) -> None:
        """Keep ``said`` under ``name``, in place of what was there, ``until`` a moment (milliseconds); what is too old ``at`` now goes."""
        ...

    def kept(self, name: str, at: int) -> str | None:
        """What was kept under ``name`` and is not too old ``at`` this moment."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
