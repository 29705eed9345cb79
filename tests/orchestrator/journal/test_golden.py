"""What earlier versions wrote, read by this one; and messages that change their shape only with a new schema."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.command import commands
from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import VERSION, SqliteJournal
from orchestrator.reducer.state import Act
from orchestrator.replay import replay
from protocols import codec
from protocols.failures import UnknownMessage
from protocols.messages import MESSAGES, SCHEMA, BlobRef, RunEnded, RunResumed
from protocols.upcast import UPCASTS
from tests.orchestrator.journal.shapes import shapes, written

GOLDEN = Path(__file__).parent / "golden"
RECORDED = sorted(int(path.stem.removeprefix("schema-")) for path in GOLDEN.glob("schema-*.db"))
REPORTS = (("show", "--json"), ("trace", "--json"), ("trace", "--all"), ("journal",))


@pytest.fixture(params=RECORDED)
def schema(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def path(schema: int, tmp_path: Path) -> Path:
    """A copy: opening may bring the file's layout up to date."""
    return Path(shutil.copy(GOLDEN / f"schema-{schema}.db", tmp_path / "journal.db"))


@pytest.fixture
def told(schema: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"schema-{schema}.json").read_text())
    return found


def test_every_entry_of_an_earlier_schema_reads_and_replays_to_the_recorded_end(path: Path, schema: int, told: dict[str, Any]) -> None:
    journal = SqliteJournal(path)
    assert {row.run: (row.ended, row.owner) for row in journal.runs()} == dict.fromkeys(told, (True, ""))
    for run, then in told.items():
        entries = list(journal.read(run))
        messages = [codec.unpack(entry.body) for entry in entries]
        assert [type(message).__name__ for message in messages] == [entry.tag for entry in entries]
        ended, state = messages[-1], replay(journal, run)
        assert isinstance(ended, RunEnded)
        assert (state.act, state.status, state.output, state.failure) == (Act.ENDED, ended.status, ended.output, ended.failure)
        assert [ended.status.value, state.spent().model_dump()] == [then["status"], then["usage"]]
        assert {task.task.id: task.attempt for task in state.tasks.values() if task.attempt} == {
            task["task"]: task["attempts"] for task in then["tasks"] if task["attempts"]
        }
    journal.close()


def test_reports_of_an_earlier_schema_say_what_was_said_then(path: Path, told: dict[str, Any]) -> None:
    for run, then in told.items():
        shown = [CliRunner().invoke(commands, [command, run, "--store", str(path), *rest]) for command, *rest in REPORTS]
        assert [result.exit_code for result in shown] == [0] * len(REPORTS), [result.output for result in shown]
        report = json.loads(shown[0].stdout)
        assert hashlib.sha256(json.dumps(report["output"]).encode()).hexdigest() == then["output"]
        assert [report[name] for name in ("status", "failure", "usage")] == [then[name] for name in ("status", "failure", "usage")]
        tasks = {task["task"]: task for task in report["outcomes"]}
        assert list(tasks) == [task["task"] for task in then["tasks"]]
        for task in then["tasks"]:
            assert tasks[task["task"]].items() >= task.items()
    listed = json.loads(CliRunner().invoke(commands, ["runs", "--store", str(path), "--json"]).stdout)
    assert {one["run"]: one["status"] for one in listed["runs"]} == {run: then["status"] for run, then in told.items()}


def referred(value: Any) -> Iterator[str]:
    """The digests of all ``BlobRef`` in a message."""
    if isinstance(value, dict):
        if value.keys() == BlobRef.model_fields.keys():
            yield value["digest"]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from referred(item)


def test_a_file_of_layout_1_is_brought_up_to_date_with_all_it_holds(tmp_path: Path) -> None:
    path = Path(shutil.copy(GOLDEN / "schema-1.db", tmp_path / "journal.db"))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        runs = {number: (run, rest) for number, run, *rest in db.execute("SELECT number, run, epoch, seq, began, last, ended FROM runs")}
        entries = [
            Entry(runs[key >> 32][0], key & 0xFFFFFFFF, *rest)
            for key, *rest in db.execute("SELECT id, at, tag, body FROM entries ORDER BY id")
        ]
        blobs = {codec.digest(data) for (data,) in db.execute("SELECT data FROM blobs")}
    db.close()
    for _ in range(2):
        journal = SqliteJournal(path)
        assert journal._writer.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert [[row.run, *row[1:5], int(row.ended), row.owner] for row in journal.runs()] == [
            [run, *rest, ""] for run, rest in reversed(runs.values())
        ]
        assert [entry for run, _ in runs.values() for entry in journal.read(run)] == entries
        asked = "SELECT runs.run, lower(hex(digest)) FROM refs JOIN runs ON runs.number = refs.run"
        said = {(entry.run, digest) for entry in entries for digest in referred(codec.unpack(entry.body).model_dump())}
        assert set(journal._writer.execute(asked)) == said
        assert {digest for _, digest in said} > blobs, "the code of teams was left out of the record"
        assert all(codec.digest(journal.get_blob(digest)) == digest for digest in blobs)
        journal.close()
    journal = SqliteJournal(path)
    assert journal.claim("tree", "ada") == 2
    row = journal.row("tree")
    assert row is not None
    assert row.owner == "ada"
    journal.close()


def test_every_schema_has_its_record_and_its_way_up() -> None:
    assert list(UPCASTS) == list(range(1, SCHEMA))
    assert set(UPCASTS) <= set(RECORDED), "record a schema before it is raised: python -m tests.orchestrator.journal.record"


def test_no_message_changes_its_shape_without_a_new_schema() -> None:
    known, today = written(), shapes()
    assert set(known) == {str(number) for number in range(1, SCHEMA + 1)}, "python -m tests.orchestrator.journal.shapes writes them down"
    changed = {tag for tag in today.keys() | known[str(SCHEMA)].keys() if today.get(tag) != known[str(SCHEMA)].get(tag)}
    how = "raise SCHEMA, then python -m tests.orchestrator.journal.shapes (with --again where no release has written that schema yet)"
    assert not changed, f"these look different than in schema {SCHEMA}: {how}"


@given(
    schema=st.one_of(
        st.integers(-(1 << 60), 0),
        st.integers(SCHEMA + 1, 1 << 60),
        st.floats(max_value=0.9),
        st.none(),
        st.text(),
        st.just([1]),
        st.just(1.0),
    ),
    tag=st.sampled_from([kind.__name__ for kind in MESSAGES]),
)
def test_a_schema_that_is_not_known_is_refused_with_both_numbers(schema: Any, tag: str) -> None:
    with pytest.raises(UnknownMessage, match=f"this callboard reads 1 to {SCHEMA}"):
        codec.unpack(codec.pack_value([schema, tag, {}]))


def test_a_message_of_an_earlier_schema_goes_through_every_step_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(tag: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"epoch": fields["number"]} if tag == "RunResumed" else fields

    monkeypatch.setitem(UPCASTS, 1, renamed)  # type: ignore[arg-type]
    for later in range(2, SCHEMA):
        monkeypatch.setitem(UPCASTS, later, lambda tag, fields: fields)  # type: ignore[arg-type]
    assert codec.unpack(codec.pack_value([1, "RunResumed", {"number": 7}])) == RunResumed(epoch=7)
    with pytest.raises(UnknownMessage, match="does not fit"):
        codec.unpack(codec.pack_value([SCHEMA, "RunResumed", {"number": 7}]))


@pytest.mark.parametrize("fields", [[], None, 7, {"nobody": 1}])
def test_fields_of_an_earlier_schema_that_are_none_are_refused(fields: object) -> None:
    with pytest.raises(UnknownMessage, match="RunResumed"):
        codec.unpack(codec.pack_value([1, "RunResumed", fields]))
