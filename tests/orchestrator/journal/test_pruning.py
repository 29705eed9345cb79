"""``callboard prune``: what goes, what stays, and that whatever stays can still be read."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents import role
from orchestrator import Team
from orchestrator.cli import main
from orchestrator.journal import Entry, open_journal
from orchestrator.observe.history import History
from orchestrator.observe.output import output
from protocols import codec
from protocols.messages import RunResumed
from protocols.plan import Plan, Task
from tests.orchestrator.journal.server import Server

DAY = 86_400_000


@role
def pages(size: int) -> str:
    """As many letters; refuses to write none."""
    if size == 0:
        raise ValueError("nothing to write")
    return "x" * size


def books(*sizes: int) -> Team:
    return Team("books", [pages], planner=Plan(tasks=tuple(Task(id=f"p{n}", role="pages", input=size) for n, size in enumerate(sizes))))


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres").emptied())
    return str(tmp_path / "journal.db")


@pytest.fixture
def aged(request: pytest.FixtureRequest, store: str) -> Callable[..., None]:
    """Makes runs so many days older, and all blobs with them."""

    def age(*runs: str, days: int = 40) -> None:
        ms = days * DAY
        unsummed = "" if "://" in store else ", sum = -1"
        told = [f"UPDATE runs SET last = last - {ms}, began = began - {ms}{unsummed} WHERE run = '{run}'" for run in runs]
        for statement in [*told, f"UPDATE blobs SET put = put - {ms}"]:
            if "://" in store:
                server: Server = request.getfixturevalue("postgres")
                server.ask(statement, store)
            else:
                with sqlite3.connect(store) as db:
                    db.execute(statement)
                db.close()

    return age


@pytest.fixture
def pruned(store: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def prune(*arguments: str) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["prune", "--store", store, "--json", *arguments])
        out, err = capsys.readouterr()
        assert left.value.code == 0, err
        found = json.loads(out)
        found["runs"] = [run["run"] for run in found["runs"]]
        return found

    return prune


def outputs(store: str) -> dict[str, Any]:
    journal = open_journal(store)
    found = {row.run: output(journal, History(row.run).read(journal.read(row.run))) for row in journal.runs()}
    journal.close()
    return found


def test_old_runs_go_with_what_only_they_had_stored(store: str, aged: Any, pruned: Any) -> None:
    shared, alone = 20_000, 30_000
    old = books(shared, alone).run_sync(runtime="inline", store=store).run_id
    failed = books(0).run_sync(runtime="inline", store=store).run_id
    young = books(shared).run_sync(runtime="inline", store=store).run_id
    journal = open_journal(store)
    journal.claim("claimed")
    [request] = journal.pick(young, [1])
    journal.append([Entry("unfinished", 1, 1_000, request.tag, request.body)], {"unfinished": journal.claim("unfinished")})
    journal.close()
    aged(old, failed)
    before = outputs(store)

    assert pruned("--older-than", "30d", "--dry-run")["runs"] == [old, failed]
    assert pruned("--older-than", "50d")["runs"] == []
    assert pruned("--older-than", "30d", "--status", "cancelled")["runs"] == []
    assert outputs(store) == before
    assert pruned("--older-than", "30d", "--status", "failed")["runs"] == [failed]
    gone = pruned("--older-than", "30d")
    assert (gone["runs"], gone["blobs"], gone["entry_bytes"] > 0) == ([old], 1, True)
    assert alone < gone["blob_bytes"] < alone + 10
    assert outputs(store) == {run: before[run] for run in (young, "claimed", "unfinished")}
    assert pruned("--older-than", "30d", "--status", "running")["runs"] == ["unfinished"]
    assert set(outputs(store)) == {young, "claimed"}


def test_a_run_that_is_taken_up_meanwhile_is_left(store: str, aged: Any, pruned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = books(0).run_sync(runtime="inline", store=store).run_id
    aged(run)
    rival = open_journal(store)
    rows = type(rival).runs

    def taken_up_then(journal: Any) -> Any:
        found = rows(journal)
        epoch, now = rival.claim(run), time.time_ns() // 1_000_000
        rival.append([Entry(run, found[0].seq + 1, now, "RunResumed", codec.pack(RunResumed(epoch=epoch)))], {run: epoch})
        return found

    monkeypatch.setattr(type(rival), "runs", taken_up_then)
    assert pruned("--older-than", "30d")["runs"] == []
    row = rival.row(run)
    assert row is not None
    assert (row.epoch, row.ended) == (2, False)
    rival.close()


def test_what_was_just_stored_stays_whatever_the_age_asked_for(store: str, pruned: Any) -> None:
    journal = open_journal(store)
    ref = journal.put_blob(b"an entry that names it is on its way")
    assert pruned("--older-than", "2999-01-01")["blobs"] == 0
    assert journal.get_blob(ref.digest)
    journal.close()


def test_an_age_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["prune", "--older-than", "soon"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "callboard: --older-than 'soon' is no time; write it like 7d, 12h or 2026-01-31\n"
