"""What only a database can be asked: lost connections, rivals on other machines, passwords, other people's tables, whole runs."""

import os
import pickle
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from agents import Role, ScriptedModel, call, tool
from orchestrator import Team
from orchestrator.cli import main
from orchestrator.journal import Entry, RunRow, is_shared, open_journal, shown
from orchestrator.journal import postgres as module
from orchestrator.journal.postgres import LARGEST, LAYOUT, PostgresJournal
from protocols import codec
from protocols.failures import BadInput, StaleEpoch, StorageError
from protocols.messages import RunRequested, Status
from protocols.team import TeamSpec
from tests.orchestrator.journal.proxy import Proxy
from tests.orchestrator.journal.server import PASSWORD, Server

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'callboard'"


def entries(first: int, count: int, run: str = "a") -> list[Entry]:
    return [Entry(run, seq, 1000 + seq, "TaskEnded", b"%d " % seq * 20) for seq in range(first, first + count)]


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
def journal(url: str) -> Iterator[PostgresJournal]:
    made = PostgresJournal(url)
    yield made
    made.close()


def callboard(*arguments: str, store: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestrator.cli", *arguments, "--store", store]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=60, check=False)


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        lambda journal: journal.claim("a"),
        lambda journal: journal.runs(),
        lambda journal: list(journal.read("a")),
        lambda journal: journal.put_blob(b"x"),
        lambda journal: journal.posts(["a"]),
    ],
)
def test_a_lost_connection_is_told_and_the_next_call_makes_another(
    journal: PostgresJournal, postgres: Server, made: Callable[[PostgresJournal], object]
) -> None:
    made(journal)
    postgres.ask(OURS)
    with pytest.raises(StorageError, match=r"check that the server runs .* try again") as caught:
        made(journal)
    elsewhere = pickle.loads(pickle.dumps(caught.value))
    assert (type(elsewhere), str(elsewhere), elsewhere.retryable) == (StorageError, str(caught.value), True)
    made(journal)


def test_an_append_makes_a_lost_connection_again_by_itself(journal: PostgresJournal, postgres: Server) -> None:
    epoch = journal.claim("a")
    for first in (1, 6):
        postgres.ask(OURS)
        journal.append(entries(first, 5), {"a": epoch})
    journal.row("a")
    assert list(journal.read("a")) == entries(1, 10)


def test_a_server_that_is_restarted_loses_nothing_and_no_append_is_stored_twice(tmp_path: Path) -> None:
    server = Server()
    try:
        writer = runpy.run_path(str(HERE / "writer.py"))
        url = server.database()
        with subprocess.Popen([sys.executable, str(HERE / "writer.py"), url], stdout=subprocess.PIPE, text=True, env=ENV) as process:
            assert process.stdout is not None
            for _ in range(30):
                process.stdout.readline()
            server.stop(signal.SIGQUIT)  # as when it crashes: nothing is written any more
            server.start()
            for _ in range(30):
                process.stdout.readline()
            told = process.stdout.readline()
            process.kill()
            durable = int([line for line in [told, *process.stdout] if line.endswith("\n")][-1])
        journal = open_journal(url)
        found = list(journal.read("r"))
        assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
        assert durable <= len(found) <= durable + writer["BATCH"]
        assert len(found) % writer["BATCH"] == 0
        assert all(entry.body == writer["body"](entry.seq) for entry in found)
        journal.close()
    finally:
        server.close()


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_answer_is_lost_is_stored_once(postgres: Server, url: str, arrives: bool) -> None:
    with Proxy(postgres.port) as proxy:
        journal = open_journal(url.replace(f":{postgres.port}/", f":{proxy.port}/"))
        epoch = journal.claim("a")
        journal.append(entries(1, 3), {"a": epoch})
        proxy.cut(b"TaskEnded", arrives=arrives)
        journal.append(entries(4, 3), {"a": epoch})
        assert proxy.cuts == 1
        journal.append(entries(7, 3), {"a": epoch})
        assert list(journal.read("a")) == entries(1, 9)
        journal.close()


def test_an_append_that_was_lost_is_refused_once_another_took_the_run_over(postgres: Server, url: str) -> None:
    with Proxy(postgres.port) as proxy:
        journal, other = open_journal(url.replace(f":{postgres.port}/", f":{proxy.port}/")), open_journal(url)
        epoch = journal.claim("a")
        proxy.cut(b"TaskEnded", arrives=False, then=lambda: other.append(entries(1, 1), {"a": other.claim("a")}))
        with pytest.raises(StaleEpoch, match="nothing was written"):
            journal.append(entries(1, 3), {"a": epoch})
        assert list(other.read("a")) == entries(1, 1)
        journal.close()
        other.close()


def test_a_server_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.3)
    server = Server()
    journal = open_journal(server.database())
    epoch = journal.claim("a")
    server.stop()
    try:
        for made in (lambda: journal.append(entries(1, 1), {"a": epoch}), journal.runs):
            with pytest.raises(StorageError, match="try again") as caught:
                made()
            assert caught.value.retryable
        server.start()
        journal.append(entries(1, 1), {"a": epoch})
        assert list(journal.read("a")) == entries(1, 1)
    finally:
        journal.close()
        server.close()


# --- rivals -----------------------------------------------------------------------------------------------------------


def test_a_claim_waits_for_an_append_and_an_append_for_a_claim(journal: PostgresJournal, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = journal.claim("a")
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM runs WHERE run = 'a' FOR UPDATE")
        waiting = [threading.Thread(target=journal.claim, args=("a",)), threading.Thread(target=journal.row, args=("a",))]
        for thread in waiting:
            thread.start()
        waiting[1].join(10)
        assert waiting[0].is_alive()
        assert not waiting[1].is_alive(), "who only reads waits for nobody"
        other.commit()
        waiting[0].join(10)
    with pytest.raises(StaleEpoch, match="epoch 2"):
        journal.append(entries(1, 1), {"a": epoch})
    monkeypatch.setattr(module, "_SESSION", (*module._SESSION, "SET lock_timeout = '100ms'"))
    impatient = open_journal(url)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM runs WHERE run = 'a' FOR UPDATE")
        with pytest.raises(StorageError, match="another process holds the run; try again") as caught:
            impatient.append(entries(1, 1), {"a": 2})
        assert caught.value.retryable
    impatient.append(entries(1, 1), {"a": 2})
    impatient.close()


def test_rivals_that_append_to_the_same_runs_in_any_order_never_lock_each_other_out(journal: PostgresJournal, url: str) -> None:
    epochs = {run: journal.claim(run) for run in "abcd"}
    other = open_journal(url)
    both = [journal, other]
    stored, errors = [], []

    def append(mine: int) -> None:
        order = "abcd" if mine else "dcba"
        for _ in range(60):
            seq = (both[mine].row("a") or RunRow("", 0, 0, 0, 0, False)).seq + 1
            try:
                both[mine].append([entry for run in order for entry in entries(seq, 2, run)], epochs)
                stored.append(seq)
            except StorageError as error:
                if "is due, not" not in str(error):  # the other was first
                    errors.append(str(error))

    threads = [threading.Thread(target=append, args=(mine,)) for mine in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [list(journal.read(run)) for run in "abcd"] == [entries(1, 2 * len(stored), run) for run in "abcd"]
    other.close()


def test_many_processes_may_open_an_empty_database_at_once(url: str) -> None:
    code = (
        "import sys; from orchestrator.journal import open_journal; import psycopg; print('ready', flush=True); sys.stdin.readline()\n"
        "j = open_journal(sys.argv[1]); print(j.claim('a')); j.close()"
    )
    command = [sys.executable, "-c", code, url]
    rivals = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV) for _ in range(4)]
    for rival in rivals:
        assert rival.stdout is not None
        rival.stdout.readline()
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    assert sorted(int(rival.communicate(timeout=30)[0]) for rival in rivals) == [1, 2, 3, 4]


# --- databases --------------------------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_on_the_disk_whatever_the_database_says(postgres: Server, url: str) -> None:
    for setting, kept in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgres.ask(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = {setting}")
        journal = PostgresJournal(url)
        journal.runs()
        for db in (journal._writer, journal._reader):
            assert db is not None
            assert db.execute("SHOW synchronous_commit").fetchone() == (kept,)
        journal.close()


def test_a_database_that_is_not_ours_is_refused_and_left_as_it_is(postgres: Server, url: str) -> None:
    postgres.ask("CREATE TABLE theirs (x int)", url)
    with pytest.raises(BadInput, match=r"another program's tables.*createdb"):
        PostgresJournal(url)
    assert postgres.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", url) == [("theirs",)]
    newer = postgres.database()
    PostgresJournal(newer).close()
    postgres.ask(f"UPDATE callboard_journal SET layout = {LAYOUT + 1}", newer)
    with pytest.raises(BadInput, match=r"newer callboard.*upgrade"):
        PostgresJournal(newer)
    postgres.ask("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with pytest.raises(StorageError, match="grant that user") as caught:
        PostgresJournal(postgres.database().replace(f"callboard:{PASSWORD}", "guest:guest"))
    assert not caught.value.retryable


def test_damage_is_told_and_never_handed_out(journal: PostgresJournal, postgres: Server, url: str) -> None:
    ref = journal.put_blob(b"genuine")
    journal.append(entries(1, 9), {"a": journal.claim("a")})
    postgres.ask("UPDATE blobs SET data = 'forged'", url)
    postgres.ask("DELETE FROM entries WHERE seq = 4", url)
    with pytest.raises(StorageError, match="damaged"):
        journal.get_blob(ref.digest)
    with pytest.raises(StorageError, match="lacks entries"):
        list(journal.read("a"))
    long = Entry("b", 1, 1, "TaskEnded", b"it goes on " * 50)
    journal.append([long], {"b": journal.claim("b")})
    assert journal.pick("b", [1]) == [long]
    postgres.ask("UPDATE entries SET body = overlay(body PLACING 'x' FROM length(body) - 9)", url)
    with pytest.raises(StorageError, match="entry 1 of b is damaged"):
        list(journal.read("b"))


def test_a_database_of_layout_1_is_brought_up_to_date_and_no_older_callboard_takes_it_for_its_own(postgres: Server, url: str) -> None:
    first = PostgresJournal(url)
    first.claim("a")
    first.close()
    said = entries(1, 1)[0]._replace(body=codec.pack(RunRequested(team=TeamSpec(name="t", roles={}), goal="it goes on " * 50)))
    postgres.ask(
        f"UPDATE callboard_journal SET layout = 1; UPDATE runs SET seq = 1; INSERT INTO entries SELECT number, 1, {said.at}, "
        f"'{said.tag}', '\\x{said.body.hex()}' FROM runs",
        url,
    )
    journal = PostgresJournal(url)
    journal.append([said._replace(seq=2)], {"a": 1})
    assert list(journal.read("a")) == [said, said._replace(seq=2)]
    assert postgres.ask("SELECT layout FROM callboard_journal", url) == [(LAYOUT,)]
    [(plain,), (kept,)] = postgres.ask("SELECT length(body) FROM entries ORDER BY seq", url)
    assert plain == len(said.body) > 2 * kept
    journal.close()


def test_what_is_too_large_is_told_before_it_is_sent(journal: PostgresJournal) -> None:
    epoch, large = journal.claim("a"), bytes(LARGEST + 1)
    for made in (lambda: journal.put_blob(large), lambda: journal.append([Entry("a", 1, 1, "TaskEnded", large)], {"a": epoch})):
        with pytest.raises(StorageError, match="store it in parts") as caught:
            made()
        assert not caught.value.retryable


def test_text_that_a_database_has_no_room_for_is_one_sentence(journal: PostgresJournal) -> None:
    with pytest.raises(StorageError, match="no room for such a value"):
        journal.claim("a\0b")
    assert journal.claim("a") == 1


# --- passwords --------------------------------------------------------------------------------------------------------


def test_no_error_and_no_text_repeats_a_password(postgres: Server, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "hidden-word"
    wrong = url.replace(PASSWORD, secret)
    bad = [wrong, wrong.replace(f":{postgres.port}", ":1"), wrong.replace("127.0.0.1", "no-such-host.invalid"), wrong + "?nothing=1"]
    bad += [
        wrong.replace("@", "@@"),
        wrong.replace(secret, f"a/{secret}"),
        wrong.replace(secret, f"%zz{secret}"),
        f"{url}0?password={secret}",
    ]
    for one in bad:
        with pytest.raises((StorageError, BadInput)) as caught:
            open_journal(one)
        for said in (str(caught.value), *traceback.format_exception(caught.value)):
            assert not any(word in said for word in (secret, PASSWORD, "s:cret")), said
        with pytest.raises(SystemExit) as left:
            main(["runs", "--json", "--store", one])
        out, err = capsys.readouterr()
        assert left.value.code in (2, 6)
        assert err.startswith("callboard: ")
        assert len(err.splitlines()) == 1
        assert secret not in out + err
    journal = open_journal(url)
    assert repr(journal) == f"PostgresJournal({shown(url)!r})"
    assert "***" in repr(journal)
    journal.close()


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("postgresql://me:word@host:5432/db?sslmode=require", "postgresql://me:***@host:5432/db?sslmode=require"),
        ("postgresql://me:wo@rd@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?user=me&password=word&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql:///db", "postgresql:///db"),
        ("/some/journal.db", "/some/journal.db"),
    ],
)
def test_addresses_are_shown_without_their_password(address: str, seen: str) -> None:
    assert shown(address) == seen
    assert is_shared(address) is address.startswith("postgresql")


def test_without_the_driver_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['psycopg'] = None; from orchestrator.cli import main; main(['runs', '--store', 'postgres://h/d'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=False)
    assert (done.returncode, done.stderr) == (2, "callboard: a journal in PostgreSQL needs psycopg; install callboard[postgres]\n")


# --- whole runs -------------------------------------------------------------------------------------------------------


@tool
async def double(n: int) -> int:
    """Double a number."""
    return 2 * n


def test_a_whole_run_lives_in_a_database_and_the_commands_read_it(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedModel([call("double", n=21), "42"])
    team = Team("doublers", [Role("doubler", instructions="Double it.", input=int, output=str, tools=[double], model=model)])
    result = team.run_sync(21, runtime="inline", store=url)
    assert (result.status, result.output) == (Status.DONE, "42")
    shown_by = {}
    for command in ("runs --json", "show last --output", "trace last", "journal last", "cancel last"):
        with pytest.raises(SystemExit) as left:
            main([*command.split(), "--store", url])
        assert left.value.code == 0
        shown_by[command.split()[0]] = "".join(capsys.readouterr())
    assert f'"run": "{result.run_id}"' in shown_by["runs"]
    assert shown_by["show"] == "42\n"
    assert "double" in shown_by["trace"]
    assert "RunEnded" in shown_by["journal"]
    assert "had ended already (done)" in shown_by["cancel"]
    again = team.run_sync(21, runtime="inline", store=url, model=f"recorded:{result.run_id}")
    assert again.output == "42"


def test_a_killed_run_is_resumed_from_the_database(url: str, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    command = [sys.executable, "-m", "orchestrator.cli", "run", f"{tmp_path}/job.py:team", "--runtime", "inline", "--store", url, "-q"]
    marks = tmp_path / "marks"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**ENV, "MARKS": str(marks)}) as process:
        until = time.monotonic() + 60
        while not (marks.exists() and marks.read_text().count("\n") >= 2):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.kill()
    marks.with_name("go").touch()
    done = subprocess.run(
        [*command[:3], "resume", "last", "--runtime", "inline", "--store", url],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENV | {"MARKS": str(marks)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[", '"first",', '"second"', "]"]
    assert marks.read_text().split() == ["first", "second", "second"]
    assert PASSWORD not in done.stderr
    assert "--store 'postgresql://callboard:***@" in done.stderr


JOB = """
import asyncio, os
from pathlib import Path
from agents import Role
from orchestrator import Team
from protocols.plan import Plan, Task

MARKS = Path(os.environ["MARKS"])

async def work(name: str) -> str:
    with MARKS.open("a") as file:
        file.write(name + "\\n")
    while name == "second" and not MARKS.with_name("go").exists():
        await asyncio.sleep(0.05)
    return name

plan = Plan(tasks=(Task(id="first", role="work", input="first"), Task(id="second", role="work", input="second", after=("first",))))
team = Team(name="two", roles=[Role("work", input=str, output=str, run=work)], planner=plan)
"""


def test_a_submitted_job_never_carries_a_password(tmp_path: Path, url: str) -> None:
    (tmp_path / "job.py").write_text(JOB)
    done = callboard("submit", f"{tmp_path}/job.py:team", "--address", "http://127.0.0.1:1", store=url)
    assert done.returncode == 2
    assert "holds a password" in done.stderr
    assert PASSWORD not in done.stderr
