"""What every journal promises, in memory, in a file and in a database; then what only a file can be asked: kills, full disks."""

import os
import resource
import runpy
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.packing import packed
from orchestrator.journal.port import Entry, Journal, RunRow
from orchestrator.journal.sqlite import VERSION, SqliteJournal
from orchestrator.journal.store import open_journal
from protocols import codec
from protocols.failures import BadInput, StaleEpoch, StorageError
from protocols.messages import RunRequested, TaskEnded, Value
from protocols.team import TeamSpec
from tests.orchestrator.journal.server import Server

HERE = Path(__file__).parent
PYTHON = [sys.executable, "-c"]
ENV = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}


def entries(run: str, first: int, count: int, tag: str = "TaskEnded", size: int = 20) -> list[Entry]:
    return [Entry(run, seq, 1000 + seq, tag, f"{run}/{seq} ".encode() * size) for seq in range(first, first + count)]


def held(journal: Journal, run: str) -> list[int]:
    return [entry.seq for entry in journal.read(run)]


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "postgres":
        made = open_journal(request.getfixturevalue("postgres").emptied())
    else:
        made = open_journal("memory:" if request.param == "memory" else str(tmp_path / "j.db"))
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.db"


@pytest.fixture
def file(path: Path) -> Iterator[SqliteJournal]:
    made = SqliteJournal(path)
    yield made
    made.close()


# --- every store ------------------------------------------------------------------------------------------------------


def test_entries_come_back_in_order_as_they_were_given(journal: Journal) -> None:
    epoch = journal.claim("a")
    said = entries("a", 1, 700)
    journal.append(said[:1], {"a": epoch})
    journal.append(said[1:], {"a": epoch})
    assert list(journal.read("a")) == said
    assert list(journal.read("a", after=300)) == said[300:]
    assert list(journal.read("a", after=10, limit=300)) == said[10:310]
    assert list(journal.read("a", after=-5, limit=0)) == []
    assert list(journal.read("a", after=700)) == []
    assert list(journal.read("nobody")) == []


def test_one_append_carries_many_runs(journal: Journal) -> None:
    epochs = {run: journal.claim(run) for run in "ab"}
    a, b = entries("a", 1, 3), entries("b", 1, 3)
    journal.append([b[0], a[0], a[1], b[1], b[2], a[2]], epochs)
    assert list(journal.read("a")) == a
    assert list(journal.read("b")) == b


def test_chosen_entries_are_picked_in_order_of_number(journal: Journal) -> None:
    epochs = {run: journal.claim(run) for run in "ab"}
    a = entries("a", 1, 9)
    journal.append(a + entries("b", 1, 9), epochs)
    assert journal.pick("a", [7, 2, 2, 9]) == [a[1], a[6], a[8]]
    assert journal.pick("a", [0, -1, 10, 1 << 32, 1 << 70]) == []
    assert journal.pick("b", [-(1 << 32) + 1]) == []
    assert journal.pick("nobody", [1]) == []


def test_runs_are_told_newest_first_with_what_happened(journal: Journal) -> None:
    epochs = {run: journal.claim(run) for run in ("old", "new")}
    journal.append(entries("old", 1, 4), epochs)
    assert journal.runs() == [RunRow("new", 1, 0, 0, 0, False), RunRow("old", 1, 4, 1001, 1004, False)]
    journal.append(entries("old", 5, 2), epochs)
    assert journal.runs()[1] == RunRow("old", 1, 6, 1001, 1006, False)


def test_a_run_ends_and_a_resumed_one_has_not_ended(journal: Journal) -> None:
    epochs = {"a": journal.claim("a")}
    ended = []
    for seq, tag in enumerate(["RunRequested", "RunEnded", "ToolCalled", "RunResumed", "RunEnded"], 1):
        journal.append(entries("a", seq, 1, tag), epochs)
        ended.append(journal.runs()[0].ended)
    assert ended == [False, True, True, False, True]
    journal.append(entries("a", 6, 1, "RunResumed") + entries("a", 7, 1, "RunEnded"), epochs)
    assert journal.runs()[0].ended


def test_a_claim_fences_out_every_earlier_writer(journal: Journal) -> None:
    first, second = journal.claim("a"), journal.claim("a")
    assert (first, second) == (1, 2)
    for epoch in (first, second + 1):
        with pytest.raises(StaleEpoch, match="run a is at epoch 2") as caught:
            journal.append(entries("a", 1, 1), {"a": epoch})
        assert not caught.value.retryable
    journal.append(entries("a", 1, 1), {"a": second})
    assert held(journal, "a") == [1]


@pytest.mark.parametrize("bad", [[2], [1, 3], [1, 1], [0], [2, 1]])
def test_a_number_that_is_not_due_stores_nothing(journal: Journal, bad: list[int]) -> None:
    epochs = {run: journal.claim(run) for run in "ab"}
    numbered = [entries("a", seq, 1)[0] for seq in bad]
    with pytest.raises(StorageError, match="is due") as caught:
        journal.append(entries("b", 1, 2) + numbered, epochs)
    assert not isinstance(caught.value, StaleEpoch)
    assert held(journal, "a") == held(journal, "b") == []
    assert [row.seq for row in journal.runs()] == [0, 0]
    journal.append(entries("b", 1, 1), epochs)


def test_one_stale_run_stores_nothing_of_the_others(journal: Journal) -> None:
    epochs = {run: journal.claim(run) for run in "ab"}
    journal.claim("b")
    with pytest.raises(StaleEpoch, match="run b"):
        journal.append(entries("a", 1, 2) + entries("b", 1, 2), epochs)
    assert held(journal, "a") == []


def test_a_run_that_was_not_claimed_is_refused(journal: Journal) -> None:
    journal.claim("a")
    for run, epochs in (("a", {}), ("b", {"b": 1})):
        with pytest.raises(StorageError, match="claim"):
            journal.append(entries(run, 1, 1), epochs)
    journal.append([], {})


def test_a_read_ends_where_the_run_ended_when_it_began(journal: Journal) -> None:
    epochs = {"a": journal.claim("a")}
    journal.append(entries("a", 1, 600), epochs)
    reading = journal.read("a")
    first = next(reading)
    journal.append(entries("a", 601, 600), epochs)
    assert [first.seq, *(entry.seq for entry in reading)] == list(range(1, 601))


def test_a_claim_says_whose_the_run_is(journal: Journal) -> None:
    assert journal.row("a") is None
    journal.claim("a", "küche/1")
    epoch = journal.claim("b")
    assert journal.row("a") == RunRow("a", 1, 0, 0, 0, False, "küche/1")
    assert journal.row("b") == RunRow("b", 1, 0, 0, 0, False, "")
    assert journal.claim("a", "theirs") == 2
    journal.append(entries("a", 1, 1) + entries("b", 1, 1), {"a": 2, "b": epoch})
    assert [(row.run, row.seq, row.owner) for row in journal.runs()] == [("b", 1, ""), ("a", 1, "theirs")]
    journal.claim("a")
    assert journal.row("a") == RunRow("a", 3, 1, 1001, 1001, False, "")


def test_a_forgotten_run_is_gone_and_nothing_of_the_others(journal: Journal) -> None:
    epochs = {run: journal.claim(run) for run in "abc"}
    for run in "abc":
        journal.append(entries(run, 1, 300), epochs)
        journal.post(run, b"please")
    reading = journal.read("c")
    next(reading)
    assert 0 < journal.forget("c", 1) <= sum(len(entry.body) for entry in entries("c", 1, 300))
    assert journal.row("c") is None
    assert held(journal, "c") == journal.pick("c", [1]) == journal.posts(["c"]) == []
    assert journal.claim("d") == 1
    journal.append(entries("d", 1, 300), {"d": 1})
    with suppress(StorageError):  # a reader elsewhere gets what it has, or an error: never another run's entries
        assert {entry.run for entry in reading} == {"c"}
    with pytest.raises(StorageError, match="claim"):
        journal.append(entries("c", 301, 1), epochs)
    assert [row.run for row in journal.runs()] == ["d", "b", "a"]
    for run in "ab":
        assert list(journal.read(run)) == entries(run, 1, 300)
    assert [post.run for post in journal.posts(list("abcd"))] == ["a", "b"]


def test_a_run_that_was_taken_up_meanwhile_is_not_forgotten(journal: Journal) -> None:
    journal.append(entries("a", 1, 3), {"a": journal.claim("a")})
    journal.claim("a")
    with pytest.raises(StaleEpoch, match="left as it is"):
        journal.forget("a", 1)
    with pytest.raises(StorageError, match="not in this journal"):
        journal.forget("nobody", 1)
    assert held(journal, "a") == [1, 2, 3]


def test_blobs_go_with_the_last_run_that_refers_to_them_unless_they_were_just_stored(journal: Journal) -> None:
    blobs = {name: journal.put_blob(name.encode() * 1000) for name in ("own", "shared", "loose")}
    own, shared = (Value(blob=blobs[name]) for name in ("own", "shared"))
    said = {
        "a": [TaskEnded(task="t", attempt=1, output=own), TaskEnded(task="u", attempt=1, output=shared)],
        "b": [RunRequested(team=TeamSpec(name="t", roles={}), plan=own, code=blobs["shared"])],
    }
    for run, messages in said.items():
        made = [Entry(run, seq, 1, type(message).__name__, codec.pack(message)) for seq, message in enumerate(messages, 1)]
        journal.append(made, {run: journal.claim(run)})
    later = time.time_ns() // 1_000_000 + 60_000
    assert journal.sweep(later - 120_000) == (0, 0)
    assert journal.sweep(later) == (1, 5000)  # what is only on its way is spared by the moment alone
    journal.forget("b", 1)
    assert journal.sweep(later) == (0, 0)
    assert journal.get_blob(blobs["own"].digest) == b"own" * 1000
    journal.forget("a", 1)
    assert journal.sweep(later) == (2, 9000)
    for ref in blobs.values():
        with pytest.raises(StorageError, match="no blob"):
            journal.get_blob(ref.digest)
        assert journal.put_blob(b"own" * 1000) == blobs["own"]


def test_bodies_may_hold_any_bytes(journal: Journal) -> None:
    bodies = [b"", bytes(range(256)), b"\\x00", os.urandom(3_000_000), b"\xa6digest\xd9\x40" + b"z" * 64, "ü\x00".encode()]
    said = [Entry("a", seq, -seq if seq % 2 else (1 << 62), "TaskEnded", body) for seq, body in enumerate(bodies, 1)]
    journal.append(said, {"a": journal.claim("a")})
    assert list(journal.read("a")) == said
    for body in bodies:
        journal.post("a", body)
    assert [post.body for post in journal.posts(["a"])] == bodies


def test_blobs_are_kept_by_their_content(journal: Journal) -> None:
    for data in (b"", b"once", os.urandom(300_000)):
        ref = journal.put_blob(data)
        assert ref == journal.put_blob(data)
        assert (ref.digest, ref.size) == (codec.digest(data), len(data))
        assert journal.get_blob(ref.digest) == data
    for missing in (codec.digest(b"never"), "", "no digest", "ab"):
        with pytest.raises(StorageError, match="no blob"):
            journal.get_blob(missing)


def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.claim("a")
    journal.close()
    journal.close()
    calls: list[Callable[[], object]] = [
        lambda: journal.claim("a"),
        lambda: journal.append(entries("a", 1, 1), {"a": 1}),
        lambda: list(journal.read("a")),
        lambda: journal.pick("a", [1]),
        journal.runs,
        lambda: journal.row("a"),
        lambda: journal.forget("a", 1),
        lambda: journal.sweep(0),
        lambda: journal.put_blob(b"x"),
        lambda: journal.get_blob("00"),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="closed"):
            call()


def test_threads_may_share_a_journal(journal: Journal) -> None:
    def work(run: str) -> None:
        epoch = journal.claim(run)
        for first in range(1, 200, 10):
            journal.append(entries(run, first, 10), {run: epoch})
            assert held(journal, run)[-1] == first + 9

    threads = [threading.Thread(target=work, args=(run,)) for run in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.run: row.seq for row in journal.runs()} == dict.fromkeys("abcd", 200)


Step = tuple[str, list[str], str]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "stale", "gap", "claim"]),
        st.lists(st.sampled_from("abc"), max_size=12),
        st.sampled_from(["TaskEnded", "RunEnded", "RunResumed"]),
    ),
    max_size=15,
)


@pytest.fixture(scope="module")
def stores(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Journal]]:
    """One of each kind for many examples, each of which leaves them empty."""
    made = [MemoryJournal(), SqliteJournal(tmp_path_factory.mktemp("any") / "j.db"), open_journal(postgres.database())]
    yield made
    for store in made:
        store.close()


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_any_interleaving_reads_back_in_order_and_the_same_from_all_stores(stores: list[Journal], steps: list[Step]) -> None:
    said: dict[str, list[Entry]] = defaultdict(list)
    epochs = dict.fromkeys("abc", 1)
    for store in stores:
        assert {run: store.claim(run) for run in "abc"} == epochs
    for at, (kind, runs, tag) in enumerate(steps):
        if kind == "claim":
            for run in set(runs):
                epochs[run] += 1
                assert [store.claim(run) for store in stores] == [epochs[run]] * 3
            continue
        counts = {run: len(said[run]) + (kind == "gap") for run in "abc"}
        batch = []
        for run in runs:
            counts[run] += 1
            batch.append(Entry(run, counts[run], at, tag, os.urandom(at) * (at * 3)))
        held_epochs = {run: epoch - (kind == "stale") for run, epoch in epochs.items()}
        for store in stores:
            if kind == "append" or not batch:
                store.append(batch, held_epochs)
            else:
                with pytest.raises(StaleEpoch if kind == "stale" else StorageError):
                    store.append(batch, held_epochs)
        if kind == "append":
            for entry in batch:
                said[entry.run].append(entry)
    for store in stores:
        assert {run: list(store.read(run)) for run in "abc"} == {run: said[run] for run in "abc"}
    assert stores[0].runs() == stores[1].runs() == stores[2].runs()
    for run in "abc":
        sizes = [store.forget(run, epochs[run]) for store in stores]
        kept = sum(len(packed(entry.body)) for entry in said[run])
        assert sizes == [sum(len(entry.body) for entry in said[run]), kept, kept]


# --- files ------------------------------------------------------------------------------------------------------------


def test_what_was_appended_is_there_when_the_file_is_opened_again(path: Path) -> None:
    first = SqliteJournal(path)
    first.append(entries("a", 1, 5), {"a": first.claim("a")})
    ref = first.put_blob(b"kept")
    first.close()
    second = SqliteJournal(path)
    assert list(second.read("a")) == entries("a", 1, 5)
    assert second.get_blob(ref.digest) == b"kept"
    assert second.claim("a") == 2
    second.close()


def test_every_commit_is_flushed_to_a_write_ahead_log(file: SqliteJournal) -> None:
    for db in (file._writer, file._reader):
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_another_process_takes_a_run_over_and_this_one_is_refused(file: SqliteJournal) -> None:
    epoch = file.claim("a")
    file.append(entries("a", 1, 2), {"a": epoch})
    code = (
        "import sys; from orchestrator.journal.store import open_journal; from orchestrator.journal.port import Entry\n"
        "j = open_journal(sys.argv[1]); e = j.claim('a'); s = j.runs()[0].seq\n"
        "j.append([Entry('a', s + 1, 9, 'RunResumed', b'theirs')], {'a': e}); print(e, s)"
    )
    done = subprocess.run([*PYTHON, code, str(file.path)], capture_output=True, text=True, env=ENV, check=True)
    assert done.stdout.split() == ["2", "2"]
    with pytest.raises(StaleEpoch, match="nothing was written"):
        file.append(entries("a", 3, 1), {"a": epoch})
    assert [entry.body for entry in file.read("a", after=2)] == [b"theirs"]


def test_only_one_of_two_rival_writers_goes_on(path: Path) -> None:
    one, two = SqliteJournal(path), SqliteJournal(path)
    stale, newest = one.claim("a"), two.claim("a")
    with pytest.raises(StaleEpoch):
        one.append(entries("a", 1, 1), {"a": stale})
    two.append(entries("a", 1, 1), {"a": newest})
    assert held(one, "a") == [1]
    one.close()
    two.close()


def test_a_second_opening_leaves_the_locks_of_the_first_in_place(path: Path) -> None:
    # closing any handle of a file drops all POSIX locks that the process has on it; without them another process that closes
    # the file would take itself for the last one and throw the log away
    one, two = SqliteJournal(path), SqliteJournal(path)
    code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=0); db.execute('PRAGMA journal_mode = DELETE')"
    other = subprocess.run([*PYTHON, code, str(path)], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr
    one.close()
    two.close()


def test_a_killed_writer_loses_nothing_that_it_was_told_is_durable(tmp_path: Path) -> None:
    writer = runpy.run_path(str(HERE / "writer.py"))
    batch, body = writer["BATCH"], writer["body"]
    for lines in (1, 40, 300):
        path = tmp_path / f"{lines}.db"
        command = [sys.executable, str(HERE / "writer.py"), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(lines)]
            os.kill(process.pid, signal.SIGKILL)
            told += process.stdout.readlines()
        durable = int([line for line in told if line.endswith("\n")][-1])
        journal = SqliteJournal(path)
        found = list(journal.read("r"))
        assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
        assert durable <= len(found) <= durable + batch
        assert len(found) % batch == 0, "a batch was half stored"
        assert all(entry.body == body(entry.seq) for entry in found)
        journal.append([Entry("r", len(found) + 1, 0, "RunResumed", b"")], {"r": journal.claim("r")})
        journal.close()


def test_readers_elsewhere_see_whole_appends_while_it_is_written(file: SqliteJournal) -> None:
    code = (
        "import sys; from orchestrator.journal.store import open_journal\n"
        "j = open_journal(sys.argv[1]); print('ready', flush=True); seen = looks = 0\n"
        "while seen < 6000:\n"
        "    found = [e.seq for e in j.read('a')]; looks += 1\n"
        "    assert found == list(range(1, len(found) + 1)) and len(found) % 20 == 0 and len(found) >= seen, found[-1:]\n"
        "    seen = len(found)\n"
        "print(looks)"
    )
    epochs = {"a": file.claim("a")}
    command = [*PYTHON, code, str(file.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for first in range(1, 6001, 20):
            file.append(entries("a", first, 20), epochs)
        assert int(reader.stdout.readline()) > 1
    assert reader.returncode == 0


def test_many_processes_may_open_a_new_file_at_once(path: Path) -> None:
    code = (
        "import sys; from orchestrator.journal.store import open_journal; print('ready', flush=True); sys.stdin.readline()\n"
        "j = open_journal(sys.argv[1]); print(j.claim('a')); j.close()"
    )
    command = [*PYTHON, code, str(path)]
    rivals = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV) for _ in range(4)]
    for rival in rivals:
        assert rival.stdout is not None
        rival.stdout.readline()
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    assert sorted(int(rival.communicate(timeout=30)[0]) for rival in rivals) == [1, 2, 3, 4]


def test_a_full_disk_stores_nothing_of_the_append_and_goes_on_when_there_is_room(file: SqliteJournal) -> None:
    epochs = {run: file.claim(run) for run in "ab"}
    file.append(entries("a", 1, 10), epochs)
    pages = file._writer.execute("PRAGMA page_count").fetchone()[0]
    file._writer.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(StorageError, match=r"j\.db: .*full; free some space") as caught:
        file.append(entries("b", 1, 5) + entries("a", 11, 500), epochs)
    assert caught.value.retryable
    with pytest.raises(StorageError, match="full"):
        file.put_blob(os.urandom(100_000))
    assert (held(file, "a"), held(file, "b")) == (list(range(1, 11)), [])
    file._writer.execute("PRAGMA max_page_count = 1000000")
    file.append(entries("b", 1, 5) + entries("a", 11, 500), epochs)
    assert len(held(file, "a")) == 510


def test_a_write_that_fails_half_way_stores_nothing(file: SqliteJournal) -> None:
    epochs = {"a": file.claim("a")}
    file.append(entries("a", 1, 10), epochs)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = os.path.getsize(f"{file.path}-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log + 50_000, limits[1]))  # as a quota would: some pages fit, the rest do not
    try:
        with pytest.raises(StorageError, match="try again"):
            file.append(entries("a", 11, 2000), epochs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert held(file, "a") == list(range(1, 11))
    file.append(entries("a", 11, 2000), epochs)
    file.close()
    again = SqliteJournal(file.path)
    assert list(again.read("a")) == entries("a", 1, 2010)
    again.close()


def test_a_damaged_blob_is_never_handed_out(file: SqliteJournal) -> None:
    ref = file.put_blob(b"genuine")
    file._writer.execute("UPDATE blobs SET data = ?", (b"forged",))
    with pytest.raises(StorageError, match="damaged"):
        file.get_blob(ref.digest)


def test_a_missing_entry_is_told_not_skipped(file: SqliteJournal) -> None:
    file.append(entries("a", 1, 9), {"a": file.claim("a")})
    file._writer.execute("DELETE FROM entries WHERE id & 0xffffffff = 4")
    with pytest.raises(StorageError, match="lacks entries"):
        held(file, "a")


def test_a_file_of_a_newer_callboard_is_refused_and_untouched(path: Path) -> None:
    SqliteJournal(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"newer callboard.*upgrade"):
        SqliteJournal(path)
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_refused_and_untouched(path: Path, tmp_path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BadInput, match="another program"):
        SqliteJournal(path)
    assert path.read_bytes() == before
    text = tmp_path / "notes.txt"
    text.write_text("no database at all " * 100)
    with pytest.raises(StorageError, match=r"notes\.txt.*choose another file"):
        SqliteJournal(text)


def test_a_file_that_is_locked_for_long_is_an_error_that_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.journal.sqlite.BUSY_SECONDS", 0.05)
    journal, other = SqliteJournal(path), sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked; another process") as caught:
        journal.claim("a")
    assert caught.value.retryable
    assert journal.runs() == []
    other.execute("ROLLBACK")
    assert journal.claim("a") == 1
    other.close()
    journal.close()


# --- where journals are -----------------------------------------------------------------------------------------------


def test_the_default_is_in_the_home_folder_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path / "deep" / "home"))
    open_journal(None).close()
    assert (tmp_path / "deep/home/journal.db").stat().st_mode & 0o777 == 0o600
    for folder in ("deep", "deep/home"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("CALLBOARD_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    open_journal().close()
    assert (tmp_path / ".callboard/journal.db").is_file()


def test_a_file_is_named_by_path_or_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, name in (("a.db", "a.db"), ("sqlite:///x/b.db", "x/b.db"), (f"sqlite:///{tmp_path}/c.db", "c.db"), ("./d:e", "d:e")):
        journal = open_journal(url)
        journal.close()
        assert (tmp_path / name).is_file()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql:me:secret", "no PostgreSQL URL"),
        ("postgresql://me:sec/secret@host/db", "%40 and %2F"),
        ("postgres://me:secret@secret@host/db", "%40 and %2F"),
        ("postgresql://me:secret@host/db?nothing=1", "no PostgreSQL URL"),
        ("redis://host", "no journal is called redis:"),
        ("sqlite://j.db", "names no file"),
        ("sqlite:///", "names no journal"),
        ("", "names no journal"),
        (":memory:", "memory:"),
        ("/", "is a folder"),
    ],
)
def test_what_is_no_journal_is_one_clear_sentence(url: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        open_journal(url)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="choose another"):
        open_journal(str(tmp_path / "file" / "j.db"))


def test_what_is_posted_for_a_run_stays_until_it_is_dropped(journal: Journal) -> None:
    journal.post("a", b"1")
    journal.post("b", b"2")
    journal.post("a", b"3")
    assert journal.posts(["nobody"]) == []
    first, second = journal.posts(["a", "c"])
    assert [(post.run, post.body) for post in (first, second)] == [("a", b"1"), ("a", b"3")]
    journal.drop(first.number)
    journal.drop(first.number)
    assert [post.body for post in journal.posts(["a", "b"])] == [b"2", b"3"]


def test_what_is_kept_is_replaced_and_goes_when_it_is_too_old(journal: Journal) -> None:
    journal.keep("a", '"one"', 1_000, 2_000)
    journal.keep("a", '"two \\u0000"', 1_500, 3_000)
    journal.keep("b", "1", 1_500, 1_600)
    assert (journal.kept("a", 2_999), journal.kept("a", 3_000), journal.kept("c", 0)) == ('"two \\u0000"', None, None)
    journal.keep("c", "2", 1_600, 9_000)
    assert journal.kept("b", 0) is None  # it is gone, whatever the time
