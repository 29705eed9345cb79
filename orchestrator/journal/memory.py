"""The journal in memory: the same port and the same refusals as the durable one, gone when the process ends. For tests."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

from orchestrator.journal.accounting import ACCOUNTS, Accounting, Ask
from orchestrator.journal.fence import advance, by_run, deletable
from orchestrator.journal.keeping import KEPT, Keeping
from orchestrator.journal.port import Entry, Post, RunRow
from orchestrator.journal.references import digests
from protocols import codec
from protocols.failures import StorageError
from protocols.messages import BlobRef


class MemoryJournal(Accounting, Keeping):
    """A ``Journal`` of dictionaries, for one process; usable from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open = True
        self._rows: dict[str, RunRow] = {}  # in the order of their first claim
        self._entries: dict[str, list[Entry]] = {}
        self._blobs: dict[str, tuple[bytes, int]] = {}  # and when it was last stored (milliseconds)
        self._posts: dict[int, Post] = {}
        self._posted = 0
        self._accounts = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)  # the lock keeps threads apart
        for statement in (*ACCOUNTS, *KEPT):
            self._accounts.execute(statement)

    def claim(self, run: str, owner: str = "") -> int:
        """See ``Journal.claim``."""
        with self._held():
            row = self._rows.get(run) or RunRow(run, 0, 0, 0, 0, False)
            self._rows[run] = row._replace(epoch=row.epoch + 1, owner=owner)
            self._entries.setdefault(run, [])
            return row.epoch + 1

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """See ``Journal.append``."""
        with self._held():
            said = by_run(entries)
            # every run is checked before the first is changed: all of the call or nothing
            rows = {run: advance(self._rows.get(run), its, epochs.get(run)) for run, its in said.items()}
            self._rows.update(rows)
            for run, its in said.items():
                self._entries[run].extend(its)

    def read(self, run: str, after: int = 0, limit: int | None = None) -> Iterator[Entry]:
        """See ``Journal.read``. It ends with the last entry that was there when iteration began."""
        with self._held():
            found = self._entries.get(run, [])[max(after, 0) :]
        yield from found if limit is None else found[: max(limit, 0)]

    def pick(self, run: str, seqs: Sequence[int]) -> list[Entry]:
        """See ``Journal.pick``. Numbers that the run does not hold are left out."""
        with self._held():
            found = self._entries.get(run, [])
            return [found[seq - 1] for seq in sorted(set(seqs)) if 0 < seq <= len(found)]

    def runs(self) -> list[RunRow]:
        """See ``Journal.runs``."""
        with self._held():
            return list(reversed(self._rows.values()))

    def row(self, run: str) -> RunRow | None:
        """See ``Journal.row``."""
        with self._held():
            return self._rows.get(run)

    def put_blob(self, data: bytes) -> BlobRef:
        """See ``Journal.put_blob``."""
        name = codec.digest(data)
        with self._held():
            self._blobs[name] = (data, time.time_ns() // 1_000_000)
        return BlobRef(digest=name, size=len(data))

    def get_blob(self, digest: str) -> bytes:
        """See ``Journal.get_blob``."""
        with self._held():
            found = self._blobs.get(digest)
        if found is None:
            raise StorageError(f"no blob {digest} is in this journal in memory; it was never stored here")
        return found[0]

    def post(self, run: str, body: bytes) -> None:
        """See ``Journal.post``."""
        with self._held():
            self._posted += 1
            self._posts[self._posted] = Post(self._posted, run, body)

    def posts(self, runs: Sequence[str]) -> list[Post]:
        """See ``Journal.posts``."""
        with self._held():
            return [post for post in self._posts.values() if post.run in runs]

    def drop(self, number: int) -> None:
        """See ``Journal.drop``."""
        with self._held():
            self._posts.pop(number, None)

    def forget(self, run: str, epoch: int) -> int:
        """See ``Journal.forget``."""
        with self._held():
            deletable(run, self._rows.get(run), epoch)
            del self._rows[run]
            self._posts = {number: post for number, post in self._posts.items() if post.run != run}
            return sum(len(entry.body) for entry in self._entries.pop(run))

    def sweep(self, before: int) -> tuple[int, int]:
        """See ``Journal.sweep``."""
        with self._held():
            named = {digest.hex() for its in self._entries.values() for entry in its for digest in digests(entry.body)}
            gone = [len(data) for name, (data, put) in self._blobs.items() if put < before and name not in named]
            self._blobs = {name: kept for name, kept in self._blobs.items() if kept[1] >= before or name in named}
        return len(gone), sum(gone)

    def close(self) -> None:
        """Forget everything; later calls raise ``StorageError``."""
        with self._lock:
            self._open = False
            self._rows, self._entries, self._blobs = {}, {}, {}
            self._accounts.close()

    @contextmanager
    def _accounting(self) -> Iterator[Ask]:
        with self._held(), self._accounts as db:
            db.execute("BEGIN")
            yield lambda asked, values: db.execute(asked, values).fetchall()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            if not self._open:
                raise StorageError("this journal in memory is closed, and what it held is gone; open a new one")
            yield
