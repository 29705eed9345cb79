"""Appends numbered batches to a journal for ever and prints the last durable number. Killed by its test."""

import sys

from orchestrator.journal.port import Entry
from orchestrator.journal.store import open_journal

BATCH = 7


def body(seq: int) -> bytes:
    """What entry ``seq`` must hold: different sizes, up to some pages."""
    return b"%d " % seq * (seq * 37 % 1500)


def main() -> None:
    journal = open_journal(sys.argv[1])
    epoch, seq = journal.claim("r"), 0
    while True:
        journal.append([Entry("r", seq + i, seq, "TaskEnded", body(seq + i)) for i in range(1, BATCH + 1)], {"r": epoch})
        seq += BATCH
        print(seq, flush=True)


if __name__ == "__main__":
    main()
