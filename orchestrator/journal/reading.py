"""How what was stored is read back from any database: page by page, and nothing that is missing or damaged is passed over."""

from collections.abc import Iterator

from orchestrator.journal.port import Entry, RunRow
from protocols import codec
from protocols.failures import StorageError

_PAGE = 256  # entries fetched at a time: bounds memory, and no read holds back other work of the database while its caller thinks


class Reading:
    """``Journal.read``, ``row`` and ``get_blob`` for a store that gives what stands in its tables."""

    name: str
    """The store, as errors call it."""

    def _run(self, run: str) -> tuple[int, RunRow | None]:
        """The run's number and row; number 0 and no row when it was never claimed."""
        raise NotImplementedError

    def _page(self, run: str, number: int, after: int, until: int) -> list[Entry]:
        """The entries with ``after < seq <= until`` that are there, in order. Raises ``StorageError`` for one that is damaged."""
        raise NotImplementedError

    def _data(self, digest: bytes) -> bytes | None:
        """What is stored under ``digest``, if anything."""
        raise NotImplementedError

    def row(self, run: str) -> RunRow | None:
        """See ``Journal.row``."""
        return self._run(run)[1]

    def read(self, run: str, after: int = 0, limit: int | None = None) -> Iterator[Entry]:
        """See ``Journal.read``. It ends with the last entry that was there when iteration began."""
        number, row = self._run(run)
        after = max(after, 0)
        end = row.seq if row else 0
        if limit is not None:
            end = min(end, after + limit)
        while after < end:
            until = min(after + _PAGE, end)
            found = self._page(run, number, after, until)
            if [entry.seq for entry in found] != list(range(after + 1, until + 1)):
                raise StorageError(
                    f"{self.name}: run {run} lacks entries after {after}; was it pruned meanwhile? Else restore a copy of it"
                )
            yield from found
            after = until

    def get_blob(self, digest: str) -> bytes:
        """See ``Journal.get_blob``."""
        try:
            data = self._data(bytes.fromhex(digest))
        except ValueError:  # it is no digest, so nothing is stored under it
            data = None
        if data is None:
            raise StorageError(f"{self.name}: no blob {digest} is there; is this the journal that its run was written to?")
        if codec.digest(data) != digest:
            raise StorageError(f"{self.name}: blob {digest} is damaged; restore a copy of it")
        return data
