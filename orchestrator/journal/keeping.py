"""What is kept of replies and results until it is too old, in a table beside a journal's own: one set of statements for every store."""

from contextlib import AbstractContextManager
from typing import Any

from orchestrator.journal.accounting import Ask

KEPT = (
    "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, until BIGINT NOT NULL, said TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS kept_until ON kept (until)",
)
"""The table. ``until`` is in milliseconds (UTC)."""


class Keeping:
    """``Journal.keep`` and ``Journal.kept`` for a store that gives ``_accounting``."""

    def _accounting(self) -> AbstractContextManager[Ask]:
        """A transaction, alone among those that this gives."""
        raise NotImplementedError

    def kept(self, name: str, at: int) -> str | None:
        """See ``Journal.kept``."""
        with self._accounting() as ask:
            found: list[tuple[Any, ...]] = ask("SELECT said FROM kept WHERE name = ? AND until > ?", (name, at))
        return str(found[0][0]) if found else None

    def keep(self, name: str, said: str, at: int, until: int) -> None:
        """See ``Journal.keep``."""
        with self._accounting() as ask:
            ask("DELETE FROM kept WHERE until <= ? OR name = ?", (at, name))
            ask("INSERT INTO kept (name, until, said) VALUES (?, ?, ?)", (name, until, said))
