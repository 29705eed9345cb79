"""The journal in one SQLite file: durable when ``append`` returns, and readable by others while it is written.

Durability is SQLite's write-ahead log with ``synchronous=FULL``: one flush of the disk a transaction. So what an append costs is
mostly the flush, and callers that append many entries at once share it.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

from orchestrator.journal.fence import advance, by_run
from orchestrator.journal.port import Entry, RunRow
from protocols import codec
from protocols.failures import BadInput, StorageError
from protocols.messages import BlobRef

VERSION = 1
"""The layout of the file, kept in its ``user_version``. A newer file is refused."""

BUSY_SECONDS = 10.0
"""How long a call waits for another process that writes before it gives up."""

_MARK = 0x43616C6C  # the file's application_id ("Call"): tells our files from other programs'
_SCHEMA = (
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
        began INTEGER NOT NULL, last INTEGER NOT NULL, ended INTEGER NOT NULL)""",
    # id = run number << 32 | seq: the run's name is stored once, and one tree holds a run's entries side by side, in order
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, tag TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE blobs (number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, data BLOB NOT NULL)",
    "CREATE TABLE posts (number INTEGER PRIMARY KEY, run TEXT NOT NULL, body BLOB NOT NULL)",
)
_ROW = "number, run, epoch, seq, began, last, ended"
_OPENING = Lock()  # see _create
_PAGE = 256  # entries fetched at a time: bounds memory, and no read holds back the log's recycling while its caller thinks
_NEXT = {  # SQLite's primary error: (what to do, whether the same call may work then)
    "FULL": ("free some space on that disk, then try again", True),
    "IOERR": ("check that disk's space, limits and health, then try again", True),
    "BUSY": ("another process holds the file; try again when it is done", True),
    "CANTOPEN": ("check that its folder exists and can be written, or choose another file with --store", False),
    "READONLY": ("check who owns the file and its folder, or choose another file with --store", False),
    "NOTADB": ("it is no journal; choose another file with --store", False),
    "CORRUPT": ("keep the file, restore a copy of it, or choose another file with --store", False),
    "TOOBIG": ("one entry or blob is above SQLite's limit of 1 GB; store it in parts", False),
}


class SqliteJournal:
    """A ``Journal`` in the file at ``path``, which is created (readable by its owner only) when it is missing.

    Usable from any thread, one call at a time for writing and one for reading; other processes may open the same file.
    Raises ``BadInput`` for a file of a newer callboard or of another program, ``StorageError`` when it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._write_lock, self._read_lock = Lock(), Lock()
        with _OPENING, self._explained():
            _create(path)
            self._writer = self._connect()
            try:
                self._prepare()
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise

    def claim(self, run: str) -> int:
        """See ``Journal.claim``."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO runs (run, epoch, seq, began, last, ended) VALUES (?, 1, 0, 0, 0, 0) "
                "ON CONFLICT (run) DO UPDATE SET epoch = epoch + 1",
                (run,),
            )
            epoch: int = db.execute("SELECT epoch FROM runs WHERE run = ?", (run,)).fetchone()[0]
        return epoch

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """See ``Journal.append``."""
        said = by_run(entries)
        if not said:
            return
        with self._writing() as db:
            for run, its in said.items():
                number, row = _find(db, run)
                row = advance(row, its, epochs.get(run))
                base = number << 32
                db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", [(base | seq, *rest) for _, seq, *rest in its])
                db.execute(
                    "UPDATE runs SET seq = ?, began = ?, last = ?, ended = ? WHERE number = ?",
                    (row.seq, row.began, row.last, row.ended, number),
                )

    def read(self, run: str, after: int = 0, limit: int | None = None) -> Iterator[Entry]:
        """See ``Journal.read``. It ends with the last entry that was there when iteration began."""
        with self._reading() as db:
            number, row = _find(db, run)
        after = max(after, 0)
        end = row.seq if row else 0
        if limit is not None:
            end = min(end, after + limit)
        while after < end:
            until = min(after + _PAGE, end)
            with self._reading() as db:
                found = _fetch(db, run, number, after, until)
            if len(found) != until - after:
                raise StorageError(f"{self.path}: run {run} lacks entries after {after}; restore a copy of the file")
            yield from found
            after = until

    def pick(self, run: str, seqs: Sequence[int]) -> list[Entry]:
        """See ``Journal.pick``. Numbers that the run does not hold are left out."""
        with self._reading() as db:
            number, row = _find(db, run)
            end = row.seq if row else 0
            wanted = (seq for seq in sorted(set(seqs)) if 0 < seq <= end)
            return [entry for seq in wanted for entry in _fetch(db, run, number, seq - 1, seq)]

    def runs(self) -> list[RunRow]:
        """See ``Journal.runs``."""
        with self._reading() as db:
            return [_row(found) for found in db.execute(f"SELECT {_ROW} FROM runs ORDER BY number DESC")]

    def put_blob(self, data: bytes) -> BlobRef:
        """See ``Journal.put_blob``."""
        name = codec.digest(data)
        with self._reading() as db:
            known = db.execute("SELECT 1 FROM blobs WHERE digest = ?", (_key(name),)).fetchone()
        if known is None:
            with self._writing() as db:
                db.execute("INSERT OR IGNORE INTO blobs (digest, data) VALUES (?, ?)", (_key(name), data))
        return BlobRef(digest=name, size=len(data))

    def get_blob(self, digest: str) -> bytes:
        """See ``Journal.get_blob``."""
        with self._reading() as db:
            found = db.execute("SELECT data FROM blobs WHERE digest = ?", (_key(digest),)).fetchone()
        if found is None:
            raise StorageError(f"{self.path}: no blob {digest} is there; is this the journal that its run was written to?")
        data: bytes = found[0]
        if codec.digest(data) != digest:
            raise StorageError(f"{self.path}: blob {digest} is damaged; restore a copy of the file")
        return data

    def post(self, run: str, body: bytes) -> None:
        """See ``Journal.post``."""
        with self._writing() as db:
            db.execute("INSERT INTO posts (run, body) VALUES (?, ?)", (run, body))

    def take(self, runs: Sequence[str]) -> list[tuple[str, bytes]]:
        """See ``Journal.take``."""
        with self._reading() as db:
            found = db.execute("SELECT number, run, body FROM posts ORDER BY number").fetchall()
        mine = [row for row in found if row[1] in runs]
        if mine:
            with self._writing() as db:
                db.executemany("DELETE FROM posts WHERE number = ?", [(number,) for number, _, _ in mine])
        return [(run, body) for _, run, body in mine]

    def close(self) -> None:
        """See ``Journal.close``. Later calls raise ``StorageError``."""
        with self._write_lock, self._read_lock, self._explained():
            self._reader.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        # no implicit transactions; the locks of this class are what keeps two threads off one connection
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # macOS: a plain flush there stops at the drive's cache
        return db

    def _prepare(self) -> None:
        """Make a new file ours, or refuse one that is not; nothing of a refused file is changed."""
        with self._writing() as db:
            asked = ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
            version, mark, tables = (db.execute(question).fetchone()[0] for question in asked)
            if mark != _MARK and (mark or version or tables):
                raise BadInput(f"{self.path} is another program's SQLite file; choose another file with --store")
            if version > VERSION:
                raise BadInput(
                    f"{self.path} was written by a newer callboard (journal layout {version}, this one knows {VERSION}); "
                    f"upgrade callboard, or choose another file with --store"
                )
            if not version:
                for statement in (*_SCHEMA, f"PRAGMA application_id = {_MARK}", f"PRAGMA user_version = {VERSION}"):
                    db.execute(statement)
        mode: str = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StorageError(f"{self.path}: no write-ahead log can be kept there ({mode}); choose a file on a local disk")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is durable when the block ends, or none of it is there."""
        with self._write_lock, self._explained():
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite rolls back by itself after some errors
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._explained():
            yield self._reader

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite and the file system raise into one sentence and the next step."""
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError) as error:
            name: str = getattr(error, "sqlite_errorname", "SQLITE_CANTOPEN" if isinstance(error, OSError) else "SQLITE_MISUSE")
            step, passing = _NEXT.get(name.split("_")[1], ("open the journal again and read back what it holds", False))
            refusal = StorageError(f"{self.path}: {error}; {step}")
            refusal.retryable = passing
            raise refusal from error


def _create(path: Path) -> None:
    """An empty file for its owner only when there is none; SQLite gives its log and index files the same mode.

    A file that exists is not touched: closing it here would drop the locks that this process's other connections have on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _key(digest: str) -> bytes:
    """The digest as it is stored; what is no digest finds nothing."""
    try:
        return bytes.fromhex(digest)
    except ValueError:
        return b""


def _row(found: Any) -> RunRow:
    _, run, epoch, seq, began, last, ended = found
    return RunRow(run, epoch, seq, began, last, bool(ended))


def _find(db: sqlite3.Connection, run: str) -> tuple[int, RunRow | None]:
    """The run's number and row; number 0 and no row when it was never claimed."""
    found = db.execute(f"SELECT {_ROW} FROM runs WHERE run = ?", (run,)).fetchone()
    return (found[0], _row(found)) if found else (0, None)


def _fetch(db: sqlite3.Connection, run: str, number: int, after: int, until: int) -> list[Entry]:
    """The entries with ``after < seq <= until``."""
    base = number << 32
    found = db.execute("SELECT id, at, tag, body FROM entries WHERE id > ? AND id <= ? ORDER BY id", (base | after, base | until))
    return [Entry(run, key - base, at, tag, body) for key, at, tag, body in found]
