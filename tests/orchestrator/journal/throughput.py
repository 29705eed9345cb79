"""Rows a second through the journals in files and databases, side by side. ``python -m tests.orchestrator.journal.throughput [FOLDER]``.

The two take turns, so that what else the machine does meets both: of the figures the ratios are what lasts. The database is a server of
its own in the same folder, on the loopback of this machine; a network adds its round trips.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from orchestrator.journal import Entry, Journal, open_journal
from protocols import codec
from protocols.chat import ToolCall
from protocols.messages import ToolCalled
from tests.orchestrator.journal.server import Server

SECONDS, TURNS, SIZE, GROUPS, RUNS = 1.0, 3, 300, (1, 20, 200, 1000), (1, 8)


class Load:
    """Appends to one journal, ``group`` entries at a time over ``runs`` runs, in as many turns as it is given."""

    def __init__(self, url: str, group: int, runs: int) -> None:
        self.journal: Journal = open_journal(url)
        self.bodies = [_body() for _ in range(group)]
        self.names = [f"run-{i}" for i in range(runs)]
        self.epochs = {name: self.journal.claim(name) for name in self.names}
        self.seqs, self.waits, self.rows = [0] * runs, list[float](), 0

    def turn(self) -> None:
        """``SECONDS`` of appends."""
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            entries = []
            for i, body in enumerate(self.bodies):
                which = (self.rows + i) % len(self.names)
                self.seqs[which] += 1
                entries.append(Entry(self.names[which], self.seqs[which], 1_790_000_000_000, "ToolCalled", body))
            began = time.perf_counter()
            self.journal.append(entries, self.epochs)
            self.waits.append(time.perf_counter() - began)
            self.rows += len(entries)

    def end(self) -> dict[str, float]:
        """Read everything back, and what came out."""
        began = time.perf_counter()
        assert sum(1 for name in self.names for _ in self.journal.read(name)) == self.rows
        reading = time.perf_counter() - began
        self.journal.close()
        self.waits.sort()
        return {
            "append_rows_per_s": round(self.rows / sum(self.waits)),
            "p50_us": round(self.waits[len(self.waits) // 2] * 1e6),
            "p99_us": round(self.waits[len(self.waits) * 99 // 100] * 1e6),
            "read_rows_per_s": round(self.rows / reading),
        }


def _body() -> bytes:
    """A call of a tool, of about ``SIZE`` bytes of which a half was never said before."""
    said = ToolCalled(task="reader", attempt=1, step=3, call=ToolCall(id="call-2-0", name="read", arguments={"n": 3}), began=1, ended=2)
    return codec.pack(said.model_copy(update={"content": os.urandom((SIZE - len(codec.pack(said))) // 2).hex()}))


def measure(places: dict[str, str], group: int, runs: int) -> dict[str, Any]:
    """Both journals, turn by turn, and how they compare."""
    loads = {name: Load(url, group, runs) for name, url in places.items()}
    for _ in range(TURNS):
        for load in loads.values():
            load.turn()
    figures: dict[str, Any] = {name: load.end() for name, load in loads.items()}
    ratio = {key: round(figures["postgres"][key] / figures["sqlite"][key], 2) for key in ("append_rows_per_s", "read_rows_per_s", "p50_us")}
    return figures | {"postgres_to_sqlite": ratio}


def main(folder: str | None) -> None:
    """All sizes of groups, for one run and for some at once."""
    server = Server(flush=True, folder=folder)
    try:
        for runs in RUNS:
            for group in GROUPS:
                with tempfile.TemporaryDirectory(dir=folder) as made:
                    places = {"sqlite": str(Path(made) / "journal.db"), "postgres": server.database()}
                    print(json.dumps({"runs": runs, "group": group, "body_bytes": SIZE} | measure(places, group, runs)), flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
