"""The journal: one port, a store in memory and one in a SQLite file."""

from orchestrator.journal.port import Entry, Journal, RunRow
from orchestrator.journal.store import address_of, open_journal

__all__ = ["Entry", "Journal", "RunRow", "address_of", "open_journal"]
