"""The journal in one SQLite file: durable when ``append`` returns, and readable by others while it is written.

Durability is SQLite's write-ahead log with ``synchronous=FULL``: one flush of the disk a transaction. So what an append costs is
mostly the flush, and callers that append many entries at once share it.
"""

import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

from orchestrator.journal.accounting import ACCOUNTS, Accounting, Ask
from orchestrator.journal.fence import advance, by_run, deletable
from orchestrator.journal.keeping import KEPT, Keeping
from orchestrator.journal.packing import packed, unpacked
from orchestrator.journal.port import PUT_AGAIN, Entry, Post, RunRow
from orchestrator.journal.reading import Reading
from orchestrator.journal.references import MARK, digests
from protocols import codec
from protocols.failures import BadInput, StorageError
from protocols.messages import BlobRef

VERSION = 3
"""The layout of the file, kept in its ``user_version``. An older file is brought up to it, a newer one is refused."""

BUSY_SECONDS = 10.0
"""How long a call waits for another process that writes before it gives up."""

_MARK = 0x43616C6C  # the file's application_id ("Call"): tells our files from other programs'
_REFERENCES = (  # which blobs the entries of each run refer to
    "CREATE TABLE refs (digest BLOB NOT NULL, run INTEGER NOT NULL, PRIMARY KEY (digest, run)) WITHOUT ROWID",
    "CREATE INDEX refs_of_run ON refs (run)",
)
_SCHEMA = (
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
        began INTEGER NOT NULL, last INTEGER NOT NULL, ended INTEGER NOT NULL, owner TEXT NOT NULL DEFAULT '', sum INTEGER NOT NULL)""",
    # id = run number << 32 | seq: the run's name is stored once, and one tree holds a run's entries side by side, in order
    # body = as ``packing`` makes it; sum = a checksum of everything else: SQLite has one for its log, and none for what it moves from there
    # into the file
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, tag TEXT NOT NULL, body BLOB NOT NULL, sum INTEGER NOT NULL)",
    # put = when it was last stored (milliseconds), to within ``PUT_AGAIN``
    "CREATE TABLE blobs (number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, data BLOB NOT NULL, put INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE posts (number INTEGER PRIMARY KEY, run TEXT NOT NULL, body BLOB NOT NULL)",
    *_REFERENCES,
)
_ROW = "number, run, epoch, seq, began, last, ended, owner, sum"
_OPENING = Lock()  # see _create
_UNSUMMED = -1  # stands for the checksum of what layout 1 stored
_LOGGED = 1000  # pages in the log, above which they are moved to the file
_HEADER = 100  # bytes of a file that SQLite needs to know it as its own
_NEXT = {  # SQLite's primary error: (what to do, whether the same call may work then)
    "FULL": ("free some space on that disk, then try again", True),
    "IOERR": ("check that disk's space, limits and health, then try again", True),
    "BUSY": ("another process holds the file; try again when it is done, or end it if it is stopped", True),
    "CANTOPEN": ("check that its folder exists and can be written, or choose another file with --store", False),
    "READONLY": ("check who owns the file and its folder, or choose another file with --store", False),
    "NOTADB": ("it is no journal; choose another file with --store", False),
    "CORRUPT": ("keep the file, restore a copy of it, or choose another file with --store", False),
    "TOOBIG": ("one entry or blob is above SQLite's limit of 1 GB; store it in parts", False),
}


class SqliteJournal(Accounting, Keeping, Reading):
    """A ``Journal`` in the file at ``path``, which is created (readable by its owner only) when it is missing.

    Usable from any thread, one call at a time for writing and one for reading; other processes may open the same file.
    Raises ``BadInput`` for a file of a newer callboard or of another program, ``StorageError`` when it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
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

    def claim(self, run: str, owner: str = "") -> int:
        """See ``Journal.claim``."""
        with self._writing() as db:
            number, row = _find(db, run)
            row = row or RunRow(run, 0, 0, 0, 0, False)
            row = row._replace(epoch=row.epoch + 1, owner=owner)
            _keep(db, number, row)
        return row.epoch

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """See ``Journal.append``."""
        said = by_run(entries)
        if not said:
            return
        # before others are kept waiting
        kept = {run: [(entry.seq, entry.at, entry.tag, packed(entry.body)) for entry in its] for run, its in said.items()}
        with self._writing() as db:
            for run, its in said.items():
                number, row = _find(db, run)
                row = advance(row, its, epochs.get(run))
                base = number << 32
                rows = [(base | seq, at, tag, body, _sum(base | seq, at, tag, body)) for seq, at, tag, body in kept[run]]
                db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
                _refer(db, number, (entry.body for entry in its))
                _keep(db, number, row)

    def _run(self, run: str) -> tuple[int, RunRow | None]:
        with self._reading() as db:
            return _find(db, run)

    def _page(self, run: str, number: int, after: int, until: int) -> list[Entry]:
        with self._reading() as db:
            return _fetch(db, run, number, after, until)

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
        name, now = codec.digest(data), time.time_ns() // 1_000_000
        with self._reading() as db:
            known = db.execute("SELECT put FROM blobs WHERE digest = ?", (bytes.fromhex(name),)).fetchone()
        if known is None or known[0] < now - PUT_AGAIN:
            with self._writing() as db:
                db.execute(
                    "INSERT INTO blobs (digest, data, put) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET put = excluded.put",
                    (bytes.fromhex(name), data, now),
                )
        return BlobRef(digest=name, size=len(data))

    def _data(self, digest: bytes) -> bytes | None:
        with self._reading() as db:
            found = db.execute("SELECT data FROM blobs WHERE digest = ?", (digest,)).fetchone()
        return found[0] if found else None

    def post(self, run: str, body: bytes) -> None:
        """See ``Journal.post``."""
        with self._writing() as db:
            db.execute("INSERT INTO posts (run, body) VALUES (?, ?)", (run, body))

    def posts(self, runs: Sequence[str]) -> list[Post]:
        """See ``Journal.posts``."""
        with self._reading() as db:
            found = db.execute("SELECT number, run, body FROM posts ORDER BY number").fetchall()
        return [Post(*row) for row in found if row[1] in runs]

    def drop(self, number: int) -> None:
        """See ``Journal.drop``."""
        with self._writing() as db:
            db.execute("DELETE FROM posts WHERE number = ?", (number,))

    def forget(self, run: str, epoch: int) -> int:
        """See ``Journal.forget``."""
        with self._writing() as db:
            number, row = _find(db, run)
            deletable(run, row, epoch)
            its = (number << 32, number + 1 << 32)
            size: int = db.execute("SELECT coalesce(sum(length(body)), 0) FROM entries WHERE id > ? AND id < ?", its).fetchone()[0]
            db.execute("DELETE FROM entries WHERE id > ? AND id < ?", its)
            db.execute("DELETE FROM refs WHERE run = ?", (number,))
            db.execute("DELETE FROM posts WHERE run = ?", (run,))
            db.execute("DELETE FROM runs WHERE number = ?", (number,))
        return size

    def sweep(self, before: int) -> tuple[int, int]:
        """See ``Journal.sweep``. The file keeps its size: what is stored later takes the room."""
        with self._writing() as db:
            gone = db.execute(
                "DELETE FROM blobs WHERE put < ? AND NOT EXISTS (SELECT 1 FROM refs WHERE refs.digest = blobs.digest) "
                "RETURNING length(data)",
                (before,),
            ).fetchall()
        return len(gone), sum(size for (size,) in gone)

    def close(self) -> None:
        """See ``Journal.close``. Later calls raise ``StorageError``."""
        with self._write_lock, self._read_lock, self._explained():
            self._reader.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        # no implicit transactions; the locks of this class are what keeps two threads off one connection
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOGGED}")
        db.execute("PRAGMA cell_size_check = ON")  # pages that are damaged are told apart when they are read
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
                for statement in (*_SCHEMA, f"PRAGMA application_id = {_MARK}"):
                    db.execute(statement)
            elif version == 1:
                _upgrade(db)
            # what layout 2 stored is read as it is: its bodies were never compressed
            for statement in (*ACCOUNTS, *KEPT):
                db.execute(statement)
            if version < VERSION:
                db.execute(f"PRAGMA user_version = {VERSION}")
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
            except BaseException as error:
                if db.in_transaction:  # SQLite rolls back by itself after some errors
                    db.execute("ROLLBACK")
                if getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_FSYNC":
                    _void(db)
                raise

    @contextmanager
    def _accounting(self) -> Iterator[Ask]:
        with self._writing() as db:
            yield lambda asked, values: db.execute(asked, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._explained():
            yield self._reader

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite and the file system raise into one sentence and the next step."""
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError, UnicodeDecodeError) as error:
            named = "CANTOPEN" if isinstance(error, OSError) else "CORRUPT" if isinstance(error, UnicodeDecodeError) else "MISUSE"
            name: str = getattr(error, "sqlite_errorname", f"SQLITE_{named}")
            step, passing = _NEXT.get(name.split("_")[1], ("open the journal again and read back what it holds", False))
            refusal = StorageError(f"{self.path}: {error}; {step}")
            refusal.retryable = passing
            raise refusal from error


def _create(path: Path) -> None:
    """An empty file for its owner only when there is none; SQLite gives its log and index files the same mode.

    A file that exists is not touched: closing it here would drop the locks that this process's other connections have on it. One that
    was cut to nothing is told here: SQLite would take it for a new one, and throw its log away.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        size = path.stat().st_size
        with suppress(FileNotFoundError):
            if size < _HEADER and (size or path.with_name(f"{path.name}-wal").stat().st_size):
                raise _damaged("the file") from None


def _void(db: sqlite3.Connection) -> None:
    """Write over a transaction that stands whole in the log because only its flush failed: the next process would take it for good."""
    with suppress(sqlite3.Error):
        db.execute("PRAGMA wal_autocheckpoint = 0")  # nothing moves on from a log that was not flushed
        db.execute("PRAGMA synchronous = OFF")
        try:
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute(f"PRAGMA user_version = {version}")  # changes nothing, and is a transaction
        finally:
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOGGED}")


def _upgrade(db: sqlite3.Connection) -> None:
    """From layout 1, which knew no owners, no checksums, and not which run refers to which blob. What it holds gets no checksum."""
    db.execute("ALTER TABLE runs ADD COLUMN owner TEXT NOT NULL DEFAULT ''")
    for table in ("runs", "entries"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN sum INTEGER NOT NULL DEFAULT {_UNSUMMED}")
    db.execute("ALTER TABLE blobs ADD COLUMN put INTEGER NOT NULL DEFAULT 0")
    for statement in _REFERENCES:
        db.execute(statement)
    for key, body in db.execute("SELECT id, body FROM entries WHERE instr(body, ?)", (MARK,)):
        _refer(db, key >> 32, [body])


def _refer(db: sqlite3.Connection, number: int, bodies: Iterable[bytes]) -> None:
    """Keep in mind what a run's entries refer to."""
    found = {digest for body in bodies for digest in digests(body)}
    if found:
        db.executemany("INSERT OR IGNORE INTO refs (digest, run) VALUES (?, ?)", [(digest, number) for digest in found])


def _keep(db: sqlite3.Connection, number: int, row: RunRow) -> None:
    """Store the row of a run; ``number`` is 0 for a new one."""
    db.execute(
        f"INSERT INTO runs ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET epoch = excluded.epoch, "
        "seq = excluded.seq, began = excluded.began, last = excluded.last, ended = excluded.ended, owner = excluded.owner, "
        "sum = excluded.sum",
        (number or None, *row, _row_sum(row)),
    )


def _sum(key: int, at: int, tag: str, body: bytes) -> int:
    """The checksum of an entry."""
    return zlib.crc32(body, zlib.crc32(f"{key} {at} {tag}".encode()))


def _row_sum(row: RunRow) -> int:
    """The checksum of a run's row."""
    return zlib.crc32(repr(tuple(row)).encode())


def _row(found: Any) -> RunRow:
    number, run, epoch, seq, began, last, ended, owner, kept = found
    row = RunRow(run, epoch, seq, began, last, bool(ended), owner)
    whole = type(number) is int and type(run) is str and type(owner) is str
    if not whole or kept not in (_UNSUMMED, _row_sum(row)):
        raise _damaged("the row of a run")
    return row


def _damaged(what: str) -> sqlite3.Error:
    """As SQLite says it of what it finds out itself."""
    error = sqlite3.DatabaseError(f"{what} is damaged")
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def _find(db: sqlite3.Connection, run: str) -> tuple[int, RunRow | None]:
    """The run's number and row; number 0 and no row when it was never claimed."""
    found = db.execute(f"SELECT {_ROW} FROM runs WHERE run = ?", (run,)).fetchone()
    if found is None and db.execute("SELECT 1 FROM runs NOT INDEXED WHERE run = ?", (run,)).fetchone():
        raise _damaged("the index of runs")
    return (found[0], _row(found)) if found else (0, None)


def _fetch(db: sqlite3.Connection, run: str, number: int, after: int, until: int) -> list[Entry]:
    """The entries with ``after < seq <= until``; none when the run was forgotten, even where another has its number by now."""
    base = number << 32
    rows = db.execute(
        "SELECT id, at, tag, body, sum FROM entries WHERE id > ? AND id <= ? AND (SELECT run FROM runs WHERE number = ?) = ? ORDER BY id",
        (base | after, base | until, number, run),
    )
    found = []
    for key, at, tag, body, kept in rows:
        whole = type(at) is int and type(tag) is str and type(body) is bytes
        if not whole or kept not in (_UNSUMMED, _sum(key, at, tag, body)):
            raise _damaged(f"entry {key - base} of {run}")
        try:
            found.append(Entry(run, key - base, at, tag, unpacked(body)))
        except ValueError:
            raise _damaged(f"entry {key - base} of {run}") from None
    return found
