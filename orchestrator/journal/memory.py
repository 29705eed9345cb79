"""The journal in memory: the same port and the same refusals as the durable one, gone when the process ends. For tests."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

from orchestrator.journal.fence import advance, by_run
from orchestrator.journal.port import Entry, RunRow
from protocols import codec
from protocols.failures import StorageError
from protocols.messages import BlobRef


class MemoryJournal:
    """A ``Journal`` of dictionaries, for one process; usable from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open = True
        self._rows: dict[str, RunRow] = {}  # in the order of their first claim
        self._entries: dict[str, list[Entry]] = {}
        self._blobs: dict[str, bytes] = {}
        self._posts: list[tuple[str, bytes]] = []

    def claim(self, run: str) -> int:
        """See ``Journal.claim``."""
        with self._held():
            row = self._rows.get(run) or RunRow(run, 0, 0, 0, 0, False)
            self._rows[run] = row._replace(epoch=row.epoch + 1)
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

    def put_blob(self, data: bytes) -> BlobRef:
        """See ``Journal.put_blob``."""
        name = codec.digest(data)
        with self._held():
            self._blobs[name] = data
        return BlobRef(digest=name, size=len(data))

    def get_blob(self, digest: str) -> bytes:
        """See ``Journal.get_blob``."""
        with self._held():
            data = self._blobs.get(digest)
        if data is None:
            raise StorageError(f"no blob {digest} is in this journal in memory; it was never stored here")
        return data

    def post(self, run: str, body: bytes) -> None:
        """See ``Journal.post``."""
        with self._held():
            self._posts.append((run, body))

    def take(self, runs: Sequence[str]) -> list[tuple[str, bytes]]:
        """See ``Journal.take``."""
        with self._held():
            mine = [post for post in self._posts if post[0] in runs]
            self._posts = [post for post in self._posts if post[0] not in runs]
        return mine

    def close(self) -> None:
        """Forget everything; later calls raise ``StorageError``."""
        with self._lock:
            self._open = False
            self._rows, self._entries, self._blobs = {}, {}, {}

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            if not self._open:
                raise StorageError("this journal in memory is closed, and what it held is gone; open a new one")
            yield
