"""Journals after power cuts, bad disks, full disks and missing rights: everything acknowledged, or one clear sentence."""

import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import SqliteJournal
from protocols.failures import StorageError
from tests.orchestrator.journal.damage import FILE, LOG, PAGE, Sample, damages, samples, scratch


@pytest.fixture(scope="module")
def kept() -> Iterator[dict[str, Sample]]:
    with scratch() as folder:
        yield samples(folder)


def some(length: int) -> Iterator[int]:
    """Places in the last page, in the header, and in between; ``damage.py`` takes them all."""
    yield from range(length - PAGE, length, 173)
    yield from range(0, 128, 7)
    yield from range(PAGE, length - PAGE, max(length // 25, 1))


@pytest.mark.parametrize("name", ["logged", "closed"])
def test_damage_ends_in_an_error_or_leaves_a_prefix_and_is_never_handed_out(kept: dict[str, Sample], name: str) -> None:
    found = Counter((damage.file, damage.kind, kept[name].suffer(damage)) for damage in damages(kept[name], some))
    if name == "logged":
        assert found[LOG, "cut", "prefix"] > 20
        assert found[LOG, "flip", "prefix"] > 20
        assert found[LOG, "cut", "told"] == 0
    else:
        assert found[FILE, "flip", "told"] > 10
        assert found[FILE, "cut", "whole"] == found[FILE, "cut", "prefix"] == 0


def test_a_journal_that_may_not_be_written_says_so_and_works_once_it_may() -> None:
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "j.db"
        SqliteJournal(path).close()
        os.chmod(path, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        os.chmod(made, 0o555)
        try:
            if root:  # nothing is forbidden to root
                os.seteuid(65534)
            with pytest.raises(StorageError, match="check who owns the file and its folder") as caught:
                SqliteJournal(path)
            assert not caught.value.retryable
        finally:
            if root:
                os.seteuid(0)
            os.chmod(made, 0o755)
            os.chmod(path, 0o600)
        journal = SqliteJournal(path)
        journal.append([Entry("a", 1, 1, "TaskEnded", b"")], {"a": journal.claim("a")})
        journal.close()
