"""Damage to a journal's files, and what may come of it. All of it, in some minutes: ``python -m tests.orchestrator.journal.damage``.

What is promised. A log that was cut, as by a power cut, holds every append that was whole before the cut, and nothing of the one after.
Any other damage, to the log or to the file, ends in an error or leaves everything readable that was said before it. In no case does an
entry, a run's row or a blob come out other than it was stored. One thing can't be told: a file without a log that was cut to nothing
is a new one.
"""

import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from orchestrator.journal.port import Entry, RunRow
from orchestrator.journal.sqlite import SqliteJournal
from protocols import codec
from protocols.failures import BadInput, StorageError

PAGE = 4096
BLOBS = (b"a blob " * 3, b"another blob " * 1500)
FILE, LOG = "journal.db", "journal.db-wal"
COMMITS = 14


class Damage(NamedTuple):
    """What is done to the bytes of one file, from ``at`` on."""

    kind: str
    file: str
    at: int

    def done_to(self, data: bytearray) -> None:
        """Do it."""
        if self.kind == "cut":
            del data[self.at :]
        elif self.kind == "flip":
            data[self.at] ^= 1 << (self.at % 8)
        else:  # a sector that was never written
            data[self.at : self.at + 512] = bytes(len(data[self.at : self.at + 512]))


class Sample:
    """A journal at rest, with or without a log, and what it held after each append: entries by run."""

    def __init__(self, folder: Path, *, log: bool) -> None:
        self.folder, self.has_log = folder, log
        folder.mkdir()
        self.ends: list[int] = []  # of each append in the log: how long it was then
        self.said: dict[str, list[Entry]] = {"a": [], "b": []}
        self.held: list[dict[str, int]] = []
        live = folder / "live"
        live.mkdir()
        journal = SqliteJournal(live / FILE)
        for blob in BLOBS:
            journal.put_blob(blob)
        epochs = {run: journal.claim(run, f"owner of {run}") for run in self.said}
        for number in range(COMMITS):
            if number == COMMITS // 2:
                journal.close()  # what came before is in the file alone
                journal = SqliteJournal(live / FILE)
                self.checkpointed = {run: len(its) for run, its in self.said.items()}
            batch = [self._entry(run, size) for run in "ab" for size in (10, 300 * number, 5_000 * (number % 3))]
            journal.append(batch, epochs)
            self.held.append({run: len(its) for run, its in self.said.items()})
            if number >= COMMITS // 2:
                self.ends.append((live / LOG).stat().st_size)
        self.rows = journal.runs()
        if not log:
            journal.close()
        self.files = {path.name: path.read_bytes() for path in live.iterdir() if path.name in (FILE, LOG)}
        journal.close()

    def _entry(self, run: str, size: int) -> Entry:
        seq = len(self.said[run]) + 1
        body = f"{run}/{seq} {random.Random(seq).randbytes(size).hex()}".encode()[:size]  # kept at about half of that
        entry = Entry(run, seq, 1_790_000_000_000 + seq, "TaskEnded", body)
        self.said[run].append(entry)
        return entry

    def least(self, damage: Damage) -> dict[str, int]:
        """How many entries of each run must come out, unless an error does."""
        if damage.file == FILE:
            return self.held[-1]
        whole = sum(end <= damage.at for end in self.ends)
        return self.held[COMMITS // 2 + whole - 1] if whole else self.checkpointed

    def suffer(self, damage: Damage) -> str:
        """What comes of it: ``whole``, ``prefix``, ``told``, or ``new`` for a file of nothing. Raises for anything worse."""
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            for name, content in self.files.items():
                data = bytearray(content)
                if name == damage.file:
                    damage.done_to(data)
                    if data == content:
                        return "whole"
                    if not data and not self.has_log:
                        return "new"
                (Path(made) / name).write_bytes(data)
            try:
                journal = SqliteJournal(Path(made) / FILE)
            except (StorageError, BadInput):
                return "told"
            try:
                return self._look(journal, damage)
            finally:
                journal.close()

    def _look(self, journal: SqliteJournal, damage: Damage) -> str:
        told = False
        for blob in BLOBS:
            try:
                assert journal.get_blob(codec.digest(blob)) == blob, damage
            except StorageError:
                told = True
        try:
            rows: list[RunRow] | None = journal.runs()
        except StorageError:
            rows, told = None, True
        if rows is not None and not told:
            assert [row[:2] + row[6:] for row in rows] == [row[:2] + row[6:] for row in self.rows], (damage, rows)
        count = {}
        for run, its in self.said.items():
            found: list[Entry] = []
            try:
                for entry in journal.read(run):
                    found.append(entry)
                assert len(found) >= self.least(damage)[run], (damage, run, len(found))
            except StorageError:
                told = True
            assert found == its[: len(found)], damage
            count[run] = len(found)
        if told:
            assert not (damage.kind == "cut" and damage.file == LOG), damage
            return "told"
        if damage.kind == "cut" and damage.file == LOG:
            assert count == self.least(damage), damage
        assert count in (self.checkpointed, *self.held), damage
        try:
            epochs = {run: journal.claim(run) for run in self.said}
            journal.append([self.said[run][count[run] - 1]._replace(seq=count[run] + 1) for run in count], epochs)
            assert [len(list(journal.read(run))) for run in count] == [number + 1 for number in count.values()]
        except StorageError:
            return "told"
        return "whole" if count == self.held[-1] else "prefix"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of files are written there."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as made:
        yield Path(made)


def samples(folder: Path) -> dict[str, Sample]:
    """A journal whose newest half is in its log, and one that is all in its file."""
    return {"logged": Sample(folder / "logged", log=True), "closed": Sample(folder / "closed", log=False)}


def damages(sample: Sample, steps: Callable[[int], Iterator[int]]) -> Iterator[Damage]:
    """Every kind of damage to every file, at the places that ``steps`` gives for its length."""
    for name, content in sample.files.items():
        for at in steps(len(content)):
            for kind in ("cut", "flip", "blank"):
                yield Damage(kind, name, at)


def _everywhere(length: int) -> Iterator[int]:
    yield from range(max(length - PAGE, 0), length)
    yield from range(min(PAGE, length))
    yield from range(0, length, 61)


def main() -> None:
    """Every byte of the first and last 4 KiB of both files, and every 61st of the rest."""
    with scratch() as folder:
        for name, sample in samples(folder).items():
            found: Counter[tuple[str, str, str]] = Counter()
            for damage in damages(sample, _everywhere):
                found[damage.file, damage.kind, sample.suffer(damage)] += 1
            for what, count in sorted(found.items()):
                print(name, *what, f"{count:,}", flush=True)
            shutil.rmtree(sample.folder)


if __name__ == "__main__":
    sys.exit(main())
