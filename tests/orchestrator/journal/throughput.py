"""Rows a second through the SQLite journal. ``python tests/orchestrator/journal/throughput.py [FOLDER]``."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import SqliteJournal

SECONDS, SIZE, GROUPS, RUNS = 2.0, 300, (1, 20, 200, 1000), (1, 8)


def measure(folder: str | None, group: int, runs: int) -> dict[str, float]:
    """One file, ``SECONDS`` of appends of ``group`` entries spread over ``runs`` runs, then all of it read back."""
    bodies = [os.urandom(SIZE) for _ in range(group)]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        journal = SqliteJournal(Path(made) / "journal.db")
        names = [f"run-{i}" for i in range(runs)]
        epochs = {name: journal.claim(name) for name in names}
        seqs, waits, rows, start = [0] * runs, [], 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            entries = []
            for i, body in enumerate(bodies):
                which = (rows + i) % runs
                seqs[which] += 1
                entries.append(Entry(names[which], seqs[which], 1_790_000_000_000, "TaskEnded", body))
            began = time.perf_counter()
            journal.append(entries, epochs)
            waits.append(time.perf_counter() - began)
            rows += group
        began = time.perf_counter()
        assert sum(1 for name in names for _ in journal.read(name)) == rows
        reading = time.perf_counter() - began
        journal.close()
        size = os.path.getsize(journal.path)
    waits.sort()
    return {
        "append_rows_per_s": round(rows / sum(waits)),
        "p50_us": round(waits[len(waits) // 2] * 1e6),
        "p99_us": round(waits[len(waits) * 99 // 100] * 1e6),
        "read_rows_per_s": round(rows / reading),
        "bytes_per_row": round(size / rows),
    }


if __name__ == "__main__":
    for runs in RUNS:
        for group in GROUPS:
            figures = measure(sys.argv[1] if len(sys.argv) > 1 else None, group, runs)
            print(json.dumps({"runs": runs, "group": group, "body_bytes": SIZE, **figures}), flush=True)
