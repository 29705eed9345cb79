"""Where journals are: from what ``--store`` says to an open journal."""

import os
import re
from pathlib import Path

from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.port import Journal
from orchestrator.journal.sqlite import SqliteJournal
from protocols.failures import BadInput, StorageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)  # two characters or more: C:\ is a path
_POSTGRES = ("postgres", "postgresql")
_KNOWN = "a path, sqlite:///PATH, postgresql://HOST/DATABASE or memory:"


def open_journal(url: str | None = None, *, must_exist: bool = False) -> Journal:
    """The journal at ``url``; files and folders that are missing are created for their owner only, or refused where they ``must_exist``.

    ``None`` is ``journal.db`` in ``$CALLBOARD_HOME``, else in ``~/.callboard``. A plain path and ``sqlite:///PATH`` are a file
    (``sqlite:////PATH``, with a fourth slash, from the root); ``postgresql://USER@HOST:PORT/DATABASE`` a database, with all that a URL of
    PostgreSQL may say; ``memory:`` is a new journal that dies with the process.
    Raises ``BadInput`` for anything else and for a file or database that is no journal of ours, ``StorageError`` when it can't be opened.
    """
    name = address_of(url)
    if name is None:
        return MemoryJournal()
    return _open_database(name) if is_shared(name) else _open_file(Path(name), must_exist)


def address_of(url: str | None) -> str | None:
    """The absolute path of the journal at ``url``, which means the same in every process of this machine; ``None`` for one in memory.

    The address of a database is its URL as it is. Raises ``BadInput`` as ``open_journal`` does; nothing is opened.
    """
    if url is None:
        return _absolute(os.path.join(os.environ.get("CALLBOARD_HOME") or "~/.callboard", "journal.db"))
    match = _SCHEME.fullmatch(url)
    if not match:
        return _absolute(url)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "memory" and not rest.strip("/"):
        return None
    if scheme == "sqlite":
        if not rest.startswith("///"):
            raise BadInput(f"{url!r} names no file; write sqlite:///PATH (sqlite:////PATH from the root)")
        return _absolute(rest[3:])
    if scheme in _POSTGRES:
        authority, _, rest = rest.removeprefix("//").partition("/")
        if match[2][:2] != "//" or authority.count("@") > 1 or "@" in rest.partition("?")[0]:
            # it may hold a password somewhere: it is not repeated
            raise BadInput("this is no PostgreSQL URL; write postgresql://USER@HOST:PORT/DATABASE (@ and / in a password as %40 and %2F)")
        return f"{scheme}{url[len(scheme) :]}"
    raise BadInput(f"no journal is called {scheme}:; use {_KNOWN} (a path with a colon as ./PATH)")


def is_shared(address: str) -> bool:
    """Whether ``address`` means the same on every machine: a database's does, a file's does not."""
    return address.startswith(tuple(f"{scheme}:" for scheme in _POSTGRES))


def _open_database(url: str) -> Journal:
    try:
        from orchestrator.journal.postgres import PostgresJournal
    except ImportError:
        raise BadInput("a journal in PostgreSQL needs psycopg; install callboard[postgres]") from None
    return PostgresJournal(url)


def _absolute(name: str) -> str:
    if not name.strip() or name == ":memory:":
        raise BadInput(f"{name!r} names no journal; use {_KNOWN}")
    try:
        return os.path.abspath(Path(name).expanduser())  # a later chdir must not move it
    except RuntimeError:
        raise BadInput(f"the home folder in {name!r} can't be found; set CALLBOARD_HOME, or name a file with --store") from None


def _open_file(path: Path, must_exist: bool) -> SqliteJournal:
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a file in it")
    if must_exist and not path.exists():
        raise BadInput(f"there is no journal at {path}; check --store, or leave it out for the default one")
    try:
        for folder in reversed(path.parents):  # one by one: mkdir's mode is for the last folder only
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: its folder can't be made ({error.strerror}); choose another file with --store") from error
    try:
        return SqliteJournal(path)
    except StorageError as error:
        if getattr(error.__cause__, "sqlite_errorname", "") == "SQLITE_NOTADB":
            raise BadInput(str(error)) from error.__cause__
        raise
