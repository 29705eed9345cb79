"""Where journals are: from what ``--store`` says to an open journal."""

import os
import re
from pathlib import Path

from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.port import Journal
from orchestrator.journal.sqlite import SqliteJournal
from protocols.failures import BadInput, StorageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)  # two characters or more: C:\ is a path
_KNOWN = "a path, sqlite:///PATH or memory:"


def open_journal(url: str | None = None) -> Journal:
    """The journal at ``url``; files and folders that are missing are created for their owner only.

    ``None`` is ``journal.db`` in ``$CALLBOARD_HOME``, else in ``~/.callboard``. A plain path and ``sqlite:///PATH`` are a file
    (``sqlite:////PATH``, with a fourth slash, from the root); ``memory:`` is a new journal that dies with the process.
    Raises ``BadInput`` for anything else and for a file that is no journal of ours, ``StorageError`` when it can't be opened.
    """
    name = address_of(url)
    return MemoryJournal() if name is None else _open_file(Path(name))


def address_of(url: str | None) -> str | None:
    """The absolute path of the journal at ``url``, which means the same in every process of this machine; ``None`` for one in memory.

    Raises ``BadInput`` as ``open_journal`` does; nothing is opened.
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
    if scheme in ("postgres", "postgresql"):
        # the URL may hold a password: it is not repeated
        raise BadInput(f"journals in PostgreSQL are not available yet; use {_KNOWN}")
    raise BadInput(f"no journal is called {scheme}:; use {_KNOWN} (a path with a colon as ./PATH)")


def _absolute(name: str) -> str:
    if not name.strip() or name == ":memory:":
        raise BadInput(f"{name!r} names no journal; use {_KNOWN}")
    try:
        return os.path.abspath(Path(name).expanduser())  # a later chdir must not move it
    except RuntimeError:
        raise BadInput(f"the home folder in {name!r} can't be found; set CALLBOARD_HOME, or name a file with --store") from None


def _open_file(path: Path) -> SqliteJournal:
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a file in it")
    try:
        for folder in reversed(path.parents):  # one by one: mkdir's mode is for the last folder only
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: its folder can't be made ({error.strerror}); choose another file with --store") from error
    return SqliteJournal(path)
