"""The journal in a PostgreSQL database: shared by coordinators on any machine, durable when ``append`` returns.

A run's row is locked while entries are appended to it, so that a claim and an append never cross. What a call costs is mostly round
trips and one flush of the server's log; callers that append many entries at once share both.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from orchestrator.journal.accounting import ACCOUNTS, Accounting, Ask
from orchestrator.journal.fence import advance, by_run, deletable, ended_by
from orchestrator.journal.keeping import KEPT, Keeping
from orchestrator.journal.packing import packed, unpacked
from orchestrator.journal.port import PUT_AGAIN, Entry, Post, RunRow
from orchestrator.journal.reading import Reading
from orchestrator.journal.references import digests
from orchestrator.journal.shown import shown
from protocols import codec
from protocols.failures import BadInput, CallboardError, StorageError
from protocols.messages import BlobRef

LAYOUT = 2
"""The layout of the tables, kept in one of them. An older one is brought up to it, a newer one is refused.

Layout 1 stored the bodies of all entries as they are; nothing else differs.
"""

LOCK_SECONDS = 10.0
"""How long a call waits for another process that holds the same run before it gives up."""

AGAIN_SECONDS = 10.0
"""How long an append waits for a server that is gone, as when it is restarted, before it gives up."""

LARGEST = 1_000_000_000
"""Bytes that one entry or blob may have; PostgreSQL's own limit is a little above."""

_KEY = 0x43616C6C626F6172  # the advisory lock under which tables are made
_SCHEMA = (
    "CREATE TABLE callboard_journal (layout integer NOT NULL)",
    """CREATE TABLE runs (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run text NOT NULL UNIQUE, epoch bigint NOT NULL, seq bigint NOT NULL,
        began bigint NOT NULL, last bigint NOT NULL, ended boolean NOT NULL, owner text NOT NULL)""",
    """CREATE TABLE entries (
        run bigint NOT NULL, seq bigint NOT NULL, at bigint NOT NULL, tag text NOT NULL, body bytea NOT NULL, PRIMARY KEY (run, seq))""",
    "CREATE TABLE blobs (digest bytea PRIMARY KEY, data bytea NOT NULL, put bigint NOT NULL)",
    "CREATE TABLE refs (digest bytea NOT NULL, run bigint NOT NULL, PRIMARY KEY (digest, run))",
    "CREATE INDEX refs_of_run ON refs (run)",
    "CREATE TABLE posts (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run text NOT NULL, body bytea NOT NULL)",
    *ACCOUNTS,
    *KEPT,
    f"INSERT INTO callboard_journal VALUES ({LAYOUT})",
)
_SESSION = (
    # what is acknowledged is on the disk, whatever this database's default; a stronger default stays
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
    f"SELECT set_config('lock_timeout', '{LOCK_SECONDS:.0f}s', false)",
    # an append is planned once: planning takes longer than carrying it out
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', false)",
    # the locks of a process that is cut off in the middle of a transaction are let go
    "SELECT set_config('idle_in_transaction_session_timeout', '60s', false)",
)
# One statement: one round trip and one flush. Rows are locked in the order of their numbers, so that no two appends wait for each other.
# Entries of a run that is not where it was said to be meet no row of ``moved``: then the null in place of its number undoes everything.
_APPEND = """
    WITH said AS (
        SELECT (of_run ->> 0)::int AS place, of_run ->> 1 AS run, (of_run ->> 2)::bigint AS epoch, (of_run ->> 3)::bigint AS before,
            (of_run ->> 4)::bigint AS seq, (of_run ->> 5)::bigint AS began, (of_run ->> 6)::bigint AS last, (of_run ->> 7)::boolean AS ended
        FROM json_array_elements(%s::json) AS of_run
    ), held AS MATERIALIZED (
        SELECT number, run, epoch, seq FROM runs WHERE run IN (SELECT run FROM said) ORDER BY number FOR UPDATE OF runs
    ), moved AS (
        UPDATE runs SET seq = said.seq, began = CASE WHEN said.before = 0 THEN said.began ELSE runs.began END,
            last = said.last, ended = coalesce(said.ended, runs.ended)
        FROM held JOIN said USING (run)
        WHERE runs.number = held.number AND held.epoch = said.epoch AND held.seq = said.before
        RETURNING said.place, runs.number
    ), referred AS (
        INSERT INTO refs (digest, run) SELECT decode(reference ->> 1, 'hex'), number
        FROM json_array_elements(%s::json) AS reference JOIN moved ON place = (reference ->> 0)::int ON CONFLICT DO NOTHING
    )
    INSERT INTO entries (run, seq, at, tag, body)
    SELECT number, entry.seq, at, tag, body
    FROM unnest(%b::int[], %b::bigint[], %b::bigint[], %b::text[], %b::bytea[]) AS entry (place, seq, at, tag, body)
        LEFT JOIN moved USING (place)
"""
_TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
# asked of the catalogue as a table: a look-up by name may miss what another process has just made
_IS_OURS = f"{_TABLES} AND relname = 'callboard_journal'"
_THEIRS = f"{_TABLES} AND relkind IN ('r', 'p') AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')"
_ROW = "number, run, epoch, seq, began, last, ended, owner"
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"  # the server's clock: one for all who share the journal
_NEXT = {  # the beginning of PostgreSQL's error code: (what to do, whether the same call may work then)
    "53100": ("free some space on that server's disk, then try again", True),
    "53": ("that server is out of room for more; try again, or raise its limits", True),
    "55P03": ("another process holds the run; try again when it is done", True),
    "40": ("another process was in the way; try again", True),
    "25006": ("that server only reads; give the address of the primary with --store", False),
    "42501": ("grant that user the right to make and use tables there, or use a database of its own", False),
    "22": ("PostgreSQL has no room for such a value", False),
    "XX": ("the database is damaged; restore a copy of it, or use another one with --store", False),
}


class PostgresJournal(Accounting, Keeping, Reading):
    """A ``Journal`` in the database at ``url``, whose tables are made when it is empty. A lost connection is made again by the next call.

    Usable from any thread, one call at a time for writing and one for reading; other processes may use the same database. The URL's
    password is never repeated. Raises ``BadInput`` for a URL or a database that can't be a journal, ``StorageError`` when it can't be
    reached.
    """

    def __init__(self, url: str) -> None:
        self.name = shown(url)
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:  # its text repeats parts of the URL
            raise BadInput(f"{self.name} is no PostgreSQL URL; write postgresql://USER@HOST:PORT/DATABASE") from None
        defaults = {"application_name": "callboard", "connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000}
        self._settings: dict[str, Any] = {**defaults, "client_encoding": "utf8", **given}
        self._write_lock, self._read_lock = Lock(), Lock()
        self._open = True
        self._writer: psycopg.Connection[Any] | None = None
        self._reader: psycopg.Connection[Any] | None = None
        with self._explained():
            self._writer = self._connect()
            try:
                _prepare(self._writer, self.name)
            except BaseException:
                self._writer.close()
                raise

    def __repr__(self) -> str:
        return f"PostgresJournal({self.name!r})"

    def claim(self, run: str, owner: str = "") -> int:
        """See ``Journal.claim``."""
        with self._writing() as db:
            epoch: int = _one(
                db,
                "INSERT INTO runs (run, epoch, seq, began, last, ended, owner) VALUES (%s, 1, 0, 0, 0, false, %s) "
                "ON CONFLICT (run) DO UPDATE SET epoch = runs.epoch + 1, owner = excluded.owner RETURNING epoch",
                run,
                owner,
            )[0]
        return epoch

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """See ``Journal.append``. A connection lost on the way is made again, to see whether the entries were stored, or to store them."""
        said = by_run(entries)
        if not said:
            return
        for entry in entries:
            self._fits(entry.body)
        try:
            with self._writing() as db:
                try:
                    db.execute(_APPEND, _told(said, epochs), prepare=True)
                except psycopg.errors.NotNullViolation:
                    with db.transaction():
                        _append(db, said, epochs)  # tells what is in the way
        except _Lost as lost:
            self._append_again(said, epochs, lost)

    def _append_again(self, said: Mapping[str, Sequence[Entry]], epochs: Mapping[str, int], lost: "_Lost") -> None:
        until = time.monotonic() + AGAIN_SECONDS
        while True:
            try:
                with self._changing() as db:
                    rows = _locked(db, said)  # waits until the earlier transaction is over, one way or the other
                    if not all(run in rows and _stored(db, rows[run][0], its[-1]) for run, its in said.items()):
                        _append(db, said, epochs)
                return
            except _Lost:
                if time.monotonic() > until:
                    raise lost from None
                time.sleep(0.25)

    def _run(self, run: str) -> tuple[int, RunRow | None]:
        with self._reading() as db:
            return _find(db, run)

    def _page(self, run: str, number: int, after: int, until: int) -> list[Entry]:
        with self._reading() as db:
            asked = "SELECT seq, at, tag, body FROM entries WHERE run = %s AND seq > %s AND seq <= %s ORDER BY seq"
            return [self._entry(run, found) for found in _all(db, asked, number, after, until)]

    def pick(self, run: str, seqs: Sequence[int]) -> list[Entry]:
        """See ``Journal.pick``. Numbers that the run does not hold are left out."""
        with self._reading() as db:
            number, row = _find(db, run)
            wanted = [seq for seq in set(seqs) if 0 < seq <= (row.seq if row else 0)]
            asked = "SELECT seq, at, tag, body FROM entries WHERE run = %s AND seq = ANY(%s) ORDER BY seq"
            return [self._entry(run, entry) for entry in _all(db, asked, number, wanted)] if wanted else []

    def runs(self) -> list[RunRow]:
        """See ``Journal.runs``."""
        with self._reading() as db:
            return [RunRow(*row) for _, *row in _all(db, f"SELECT {_ROW} FROM runs ORDER BY number DESC")]

    def put_blob(self, data: bytes) -> BlobRef:
        """See ``Journal.put_blob``."""
        self._fits(data)
        name = codec.digest(data)
        with self._reading() as db:
            known = _all(db, f"SELECT 1 FROM blobs WHERE digest = %s AND put >= {_NOW} - %s", bytes.fromhex(name), PUT_AGAIN)
        if not known:
            with self._writing() as db:
                db.execute(
                    f"INSERT INTO blobs (digest, data, put) VALUES (%s, %b, {_NOW}) ON CONFLICT (digest) DO UPDATE SET put = excluded.put",
                    (bytes.fromhex(name), data),
                )
        return BlobRef(digest=name, size=len(data))

    def _data(self, digest: bytes) -> bytes | None:
        with self._reading() as db:
            found = _all(db, "SELECT data FROM blobs WHERE digest = %s", digest)
        return found[0][0] if found else None

    def post(self, run: str, body: bytes) -> None:
        """See ``Journal.post``."""
        self._fits(body)
        with self._writing() as db:
            db.execute("INSERT INTO posts (run, body) VALUES (%s, %b)", (run, body))

    def posts(self, runs: Sequence[str]) -> list[Post]:
        """See ``Journal.posts``."""
        with self._reading() as db:
            return [Post(*row) for row in _all(db, "SELECT number, run, body FROM posts WHERE run = ANY(%s) ORDER BY number", list(runs))]

    def drop(self, number: int) -> None:
        """See ``Journal.drop``."""
        with self._writing() as db:
            db.execute("DELETE FROM posts WHERE number = %s", (number,))

    def forget(self, run: str, epoch: int) -> int:
        """See ``Journal.forget``."""
        with self._changing() as db:
            number, row = _locked(db, [run]).get(run, (0, None))
            deletable(run, row, epoch)
            size: int = _one(db, "SELECT coalesce(sum(length(body)), 0)::bigint FROM entries WHERE run = %s", number)[0]
            for table in ("entries", "refs"):
                db.execute(f"DELETE FROM {table} WHERE run = %s", (number,))
            db.execute("DELETE FROM posts WHERE run = %s", (run,))
            db.execute("DELETE FROM runs WHERE number = %s", (number,))
        return size

    def sweep(self, before: int) -> tuple[int, int]:
        """See ``Journal.sweep``."""
        with self._writing() as db:
            gone = _all(
                db,
                "DELETE FROM blobs WHERE put < %s AND NOT EXISTS (SELECT 1 FROM refs WHERE refs.digest = blobs.digest) "
                "RETURNING length(data)",
                before,
            )
        return len(gone), sum(size for (size,) in gone)

    def close(self) -> None:
        """See ``Journal.close``. Later calls raise ``StorageError``."""
        with self._write_lock, self._read_lock, self._explained():
            self._open = False
            for db in (self._reader, self._writer):
                if db is not None:
                    db.close()

    def _entry(self, run: str, found: tuple[Any, ...]) -> Entry:
        seq, at, tag, body = found
        try:
            return Entry(run, seq, at, tag, unpacked(body))
        except ValueError as error:
            raise StorageError(f"{self.name}: entry {seq} of {run} is damaged ({error}); restore a copy of the database") from None

    def _fits(self, data: bytes) -> None:
        if len(data) > LARGEST:
            refusal = StorageError(f"{self.name}: {len(data):,} bytes are above the limit of 1 GB for an entry or blob; store it in parts")
            refusal.retryable = False
            raise refusal

    def _connect(self) -> "psycopg.Connection[Any]":
        if not self._open:
            raise psycopg.InterfaceError("this journal is closed")
        db = psycopg.connect(**self._settings, autocommit=True)
        for statement in _SESSION:
            db.execute(statement)
        return db

    @contextmanager
    def _writing(self) -> "Iterator[psycopg.Connection[Any]]":
        """The connection for writing: each statement is a transaction of its own."""
        with self._write_lock, self._explained():
            if self._writer is None or self._writer.closed:
                self._writer = self._connect()
            db = self._writer
            try:
                yield db
            finally:
                _drop(db)

    @contextmanager
    def _changing(self) -> "Iterator[psycopg.Connection[Any]]":
        """One transaction: all of it is durable when the block ends, or none of it is there."""
        with self._writing() as db, db.transaction():
            yield db

    @contextmanager
    def _accounting(self) -> Iterator[Ask]:
        with self._changing() as db:
            db.execute("LOCK TABLE draws IN EXCLUSIVE MODE")
            yield lambda asked, values: _answer(db.execute(asked.replace("?", "%s"), values, binary=True))

    @contextmanager
    def _reading(self) -> "Iterator[psycopg.Connection[Any]]":
        with self._read_lock, self._explained():
            if self._reader is None or self._reader.closed:
                self._reader = self._connect()
            try:
                yield self._reader
            finally:
                _drop(self._reader)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what PostgreSQL raises into one sentence and the next step."""
        try:
            yield
        except CallboardError:
            raise
        except psycopg.Error as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            code = error.sqlstate or ("22" if isinstance(error, psycopg.DataError) else "")
            if not self._open:
                raise StorageError(f"{self.name}: {said[0]}; open the journal again") from error
            if code.startswith(("08", "57P")) or (not code and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)):
                step = "check that the server runs and is reached with this address, user and password, then try again"
                raise _Lost(f"{self.name}: {said[-1].strip()}; {step}") from error
            known = next((_NEXT[key] for key in (code, code[:2]) if key in _NEXT), None)
            step, passing = known or ("open the journal again and read back what it holds", False)
            refusal = StorageError(f"{self.name}: {said[0]}; {step}")
            refusal.retryable = passing
            raise refusal from error


class _Lost(StorageError):
    """The server can't be reached, or the connection to it broke."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (StorageError, (str(self),))  # elsewhere there may be no driver, and nobody needs to know this class


def _drop(db: "psycopg.Connection[Any]") -> None:
    """Close a connection that can't be used again; the next call makes another."""
    if db.info.transaction_status is not TransactionStatus.IDLE:
        db.close()


def _prepare(db: "psycopg.Connection[Any]", name: str) -> None:
    """Make an empty database ours, or refuse one that is not; nothing of a refused one is changed."""
    with db.transaction():
        if not _one(db, _IS_OURS)[0]:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (_KEY,))  # of many processes that find it empty, one makes the tables
            if not _one(db, _IS_OURS)[0]:
                if _one(db, "SELECT current_schema()")[0] is None or _one(db, _THEIRS)[0]:
                    raise BadInput(
                        f"{name} holds another program's tables; make a database for the journal (createdb) and name it with --store"
                    )
                for statement in _SCHEMA:
                    db.execute(statement)
        layout = _one(db, "SELECT max(layout) FROM callboard_journal")[0]
        if layout < LAYOUT:
            db.execute("UPDATE callboard_journal SET layout = %s WHERE layout < %s", (LAYOUT, LAYOUT))
    if layout > LAYOUT:
        raise BadInput(
            f"{name} was written by a newer callboard (journal layout {layout}, this one knows {LAYOUT}); upgrade callboard, or use "
            f"another database with --store"
        )


def _append(db: "psycopg.Connection[Any]", said: Mapping[str, Sequence[Entry]], epochs: Mapping[str, int]) -> None:
    rows = _locked(db, said)
    for run, its in said.items():
        advance(rows.get(run, (0, None))[1], its, epochs.get(run))
    db.execute(_APPEND, _told(said, epochs))


def _told(said: Mapping[str, Sequence[Entry]], epochs: Mapping[str, int]) -> tuple[object, ...]:
    """What ``_APPEND`` asks for: the runs, what they refer to, and the entries, column by column, whose runs go by their place."""
    runs, named, rows = [], set[tuple[int, str]](), []
    for place, (run, its) in enumerate(said.items()):
        first, last = its[0], its[-1]
        in_order = [entry.seq for entry in its] == list(range(first.seq, first.seq + len(its)))
        epoch = epochs.get(run) if in_order else None
        runs.append([place, run, epoch, first.seq - 1, last.seq, first.at, last.at, ended_by(its)])
        named |= {(place, digest.hex()) for entry in its for digest in digests(entry.body)}
        rows += [(place, seq, at, tag, packed(body)) for _, seq, at, tag, body in its]
    return json.dumps(runs), json.dumps(sorted(named)), *map(list, zip(*rows, strict=True))


def _locked(db: "psycopg.Connection[Any]", runs: Any) -> dict[str, tuple[int, RunRow]]:
    """The numbers and rows of these runs, locked to the end of the transaction, always in the same order."""
    found = _all(db, f"SELECT {_ROW} FROM runs WHERE run = ANY(%s) ORDER BY number FOR UPDATE", list(runs))
    return {row[0]: (number, RunRow(*row)) for number, *row in found}


def _stored(db: "psycopg.Connection[Any]", number: int, entry: Entry) -> bool:
    found = _all(db, "SELECT at, tag, body FROM entries WHERE run = %s AND seq = %s", number, entry.seq)
    return [(at, tag, unpacked(body)) for at, tag, body in found] == [(entry.at, entry.tag, entry.body)]


def _find(db: "psycopg.Connection[Any]", run: str) -> tuple[int, RunRow | None]:
    """The run's number and row; number 0 and no row when it was never claimed."""
    found = _all(db, f"SELECT {_ROW} FROM runs WHERE run = %s", run)
    return (found[0][0], RunRow(*found[0][1:])) if found else (0, None)


def _answer(cursor: "psycopg.Cursor[Any]") -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description is not None else []


def _all(db: "psycopg.Connection[Any]", query: str, *values: object) -> list[tuple[Any, ...]]:
    return db.execute(query, values, binary=True).fetchall()


def _one(db: "psycopg.Connection[Any]", query: str, *values: object) -> tuple[Any, ...]:
    [found] = _all(db, query, *values)
    return found
