"""The journal: one port, and stores in memory, in a SQLite file and in a PostgreSQL database."""

from orchestrator.journal.port import Entry, Journal, RunRow
from orchestrator.journal.shown import shown
from orchestrator.journal.store import address_of, is_shared, open_journal

__all__ = ["Entry", "Journal", "RunRow", "address_of", "is_shared", "open_journal", "shown"]
