"""The command line: what goes to which stream, which exit code, and that no bad input ends in a traceback."""

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.cli import amounts, main
from orchestrator.journal import Entry, open_journal
from protocols import codec
from protocols.failures import BadInput
from protocols.messages import TasksAdded
from protocols.plan import Task
from tests.orchestrator.conftest import Story

ROOT = Path(__file__).parents[2]
PIECES = """
from typing import Any
from agents.role import Role
from orchestrator.team import Team
from protocols.plan import Plan, Task


def work(item: Any) -> str:
    print("a print of the work goes to standard error")
    if item == "bad":
        raise ValueError("this one is bad")
    return f"worked on {item}"


def plan(goal: Any) -> Plan:
    items = goal if isinstance(goal, list) else [goal]
    return Plan(tasks=tuple(Task(id=f"work:{number}", role="work", input=item) for number, item in enumerate(items)))


print("a print at import goes to standard error")
team = Team(name="workers", roles=[Role(name="work", input=Any, run=work, attempts=1)], planner=plan)
alone = Team(name="alone", roles=[Role(name="work", input=Any, run=work, attempts=1)])
not_a_team = 7
"""
SLEEPER = """
import time
from typing import Any
from agents.role import Role
from orchestrator.team import Team


async def sleep(item: Any) -> str:
    import asyncio

    await asyncio.sleep(60)
    return "slept"


team = Team(name="sleepers", roles=[Role(name="sleep", input=Any, run=sleep)])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with jobs in it, where commands are typed; journals go there too."""
    (tmp_path / "job.py").write_text(PIECES)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*arguments, stdin=None, timeout=60):
    """A command line in a process of its own."""
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=timeout, check=False)


@pytest.fixture
def called(capsys):
    """A command line in this process: its exit code, standard output and standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        streams = capsys.readouterr()
        return left.value.code, streams.out, streams.err

    return call


# --- starting fast ----------------------------------------------------------------------------------------------------


def test_help_and_runs_answer_at_once_and_load_no_ray(folder):
    for arguments in (["--help"], ["runs"]):
        code = f"import sys; sys.argv[1:] = {arguments}\nfrom orchestrator.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        code += "print('ray' in sys.modules or 'aiohttp' in sys.modules, file=sys.stderr)"
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert time.monotonic() - began < 3  # about 0.2 s when nothing else runs
        assert done.stderr.splitlines()[-1] == "False"


def test_help_documents_the_exit_codes(called):
    code, out, _ = called("--help")
    assert code == 0
    for line in ("2    bad input", "3    a budget", "5    partial", "130  interrupted"):
        assert line in out


@pytest.mark.parametrize("command", ["run", "runs", "show", "trace", "journal", "resume", "cancel", "model"])
def test_every_command_has_help(called, command):
    code, out, _ = called(command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: callboard {command}")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dance"], "there is no command 'dance'"),
        (["run"], "Missing argument 'TARGET'"),
        (["run", "nowhere.py"], "there is no file nowhere.py"),
        (["run", "job.py:nobody"], "job.py has no 'nobody'; write job.py:team or job.py:alone"),
        (["run", "job.py:not_a_team"], "'not_a_team' in job.py is a int, not a Team"),
        (["run", "no_such_module"], "there is no module 'no_such_module'"),
        (["run", "job.py", "--budget-usd", "lots"], "--budget-usd 'lots' is no amount of money"),
        (["run", "job.py", "--budget-usd", "0.0000001"], "finer than a millionth"),
        (["run", "job.py", "--budget-usd", "-1"], "is no amount of money"),
        (["run", "job.py", "--budget-tokens", "-1"], "--budget-tokens -1 is below zero"),
        (["run", "job.py", "--budget-calls", "9" * 20], f"--budget-calls {'9' * 20} is more than 1,000,000,000,000,000"),
        (["run", "job.py", "--budget-tool-calls", "-1"], "--budget-tool-calls -1 is below zero"),
        (["run", "job.py", "--user", ""], "--user '' can't name a user; give a name like ada"),
        (["run", "job.py", "--budget-calls", "many"], "'many' is not a valid integer"),
        (["run", "job.py", "--timeout", "0"], "--timeout 0.0 is no time to work in"),
        (["run", "job.py", "--timeout", "inf"], "--timeout inf is no time to work in"),
        (["run", "job.py", "--goal", "x", "--input", "y"], "--goal and --input both give the goal"),
        (["run", "job.py", "--input", "nowhere.json"], "there is no file nowhere.json"),
        (["run", "job.py", "--input", "."], "can't be read (Is a directory)"),
        (["run", "job.py", "--runtime", "thread"], "'thread' is not one of 'ray', 'inline'"),
        (["run", "job.py", "--runtime", "inline", "--goal", "x", "--store", "mysql:x"], "no journal is called mysql:"),
        (["run", "job.py", "--runtime", "inline", "--hosts", "0"], "0 is not in the range"),
        (["show", "last"], "this journal holds no runs yet"),
        (["trace", "run-x"], "this journal holds no runs yet"),
        (["resume", "last"], "this journal holds no runs yet"),
        (["cancel", "last"], "this journal holds no runs yet"),
        (["journal", "last", "--after", "-1"], "-1 is not in the range"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(folder, called, arguments, sentence):
    code, out, err = called(*arguments)
    assert code == 2
    assert out == ""
    assert sentence in err
    assert "Traceback" not in err


def test_bad_input_with_json_is_one_object(folder):
    done = typed("run", "job.py:nobody", "--json")
    assert done.returncode == 2
    said = json.loads(done.stdout)
    assert said["error"]["code"] == "bad_input"
    assert said["exit_code"] == 2
    assert "job.py has no 'nobody'" in said["error"]["message"]
    assert "Traceback" not in done.stderr


def test_a_broken_file_or_storage_is_no_traceback(folder):
    (folder / "broken.py").write_text("def broken(:\n")
    done = typed("run", "broken.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("callboard: broken.py is not valid Python: ")
    (folder / "text.db").write_text("this is no database, " * 1000)
    done = typed("runs", "--store", "text.db")
    assert done.returncode == 2
    assert done.stderr.startswith("callboard: ")
    assert "Traceback" not in done.stderr


def test_what_nobody_expected_is_one_sentence_and_debug_tells_more(folder, called, monkeypatch):
    monkeypatch.setattr("orchestrator.journal.open_journal", lambda url, **more: 1 / 0)
    code, out, err = called("runs")
    assert (code, out) == (1, "")
    assert err == (
        "callboard: something unexpected went wrong (ZeroDivisionError: division by zero); run it again with --debug for the details\n"
    )
    assert "Traceback" in called("runs", "--debug")[2]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "micros"),
    [("0", 0), ("1", 1_000_000), ("0.1", 100_000), ("$2.50", 2_500_000), (".000001", 1), ("3.", 3_000_000), ("0.1000000", 100_000)],
)
def test_money_is_read_exactly(text, micros):
    assert amounts.micros(text) == micros


@pytest.mark.parametrize("text", ["", ".", "1e3", "nan", "1,5", "0.0000001", "-0.1", "1" * 13, "٣"])
def test_what_is_no_money_is_refused(text):
    with pytest.raises(BadInput):
        amounts.micros(text)


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("do it", "do it"),
        ('{"a": [1]}', {"a": [1]}),
        ("[1, 2]", [1, 2]),
        ("42", 42),
        ('"quoted"', '"quoted"'),
        ("true", "true"),
        ("null", "null"),
        ("NaN", "NaN"),
    ],
)
def test_goals_are_json_when_they_look_like_it(text, goal):
    assert amounts.goal(text, None) == goal


@pytest.mark.parametrize("text", ['["a"', '{"a": 1', " [NaN]", "[" * 100_000])
def test_a_goal_that_begins_like_json_and_is_broken_is_refused(text):
    with pytest.raises(BadInput, match="--goal begins like JSON and is broken"):
        amounts.goal(text, None)


def test_goals_are_read_from_files(folder):
    (folder / "goal.txt").write_text("do it\n")
    (folder / "goal.json").write_text('"only text"')
    (folder / "bad.json").write_text("{")
    (folder / "bytes.txt").write_bytes(b"\xff")
    assert amounts.goal(None, "goal.txt") == "do it"
    assert amounts.goal(None, "goal.json") == "only text"
    for name in ("bad.json", "bytes.txt"):
        with pytest.raises(BadInput, match=name):
            amounts.goal(None, name)


# --- reading a journal ------------------------------------------------------------------------------------------------


def test_runs_lists_the_newest_first(called, store):
    code, out, _ = called("runs", "--store", store)
    assert code == 0
    head, wide, audit = out.splitlines()
    assert head.split() == ["run", "team", "status", "tasks", "cost", "time", "began", "goal"]
    assert wide.startswith("run-1abcdeg-bbbbb  wide   partial  990/1,000  $0.00")
    assert audit.startswith("run-1abcdef-aaaaa  audit  partial  2/4        $0.00015")
    said = json.loads(called("runs", "--store", store, "--json")[1])
    assert [run["run"] for run in said["runs"]] == ["run-1abcdeg-bbbbb", "run-1abcdef-aaaaa"]


def test_a_run_is_named_by_id_unique_beginning_or_last(called, store):
    for name in ("run-1abcdeg-bbbbb", "run-1abcdeg", "1abcdeg", "last"):
        assert called("show", name, "--store", store)[1].startswith("run-1abcdeg-bbbbb")
    code, _, err = called("show", "run-1", "--store", store)
    assert code == 2
    assert "begins 2 runs (run-1abcdeg-bbbbb, run-1abcdef-aaaaa)" in err
    assert called("show", "run-9", "--store", store)[0] == 2
    assert called("show", "", "--store", store)[0] == 2


def test_show_tells_status_costs_failures_and_output(called, store):
    code, out, _ = called("show", "run-1abcdef", "--store", store)
    assert code == 0
    for piece in ("audit · partial", "scripted:careful: 5 calls, 600 tokens, $0.00015", "file:c · code_error", "# Report all of it"):
        assert piece in out
    assert called("show", "run-1abcdef", "--store", store, "--output")[1] == "# Report\nall of it\n"
    said = json.loads(called("show", "run-1abcdef", "--store", store, "--json")[1])
    assert (said["status"], said["exit_code"], said["cost_micros"]) == ("partial", 5, 150)
    assert said["output"] == "# Report\nall of it"
    assert said["tasks"] == {"total": 7, "done": 5, "failed": 2, "running": 0, "in_review": 0, "waiting": 0}
    assert json.loads(called("show", "last", "--store", store, "--output")[1])[:3] == [0, 1, 2]


def test_show_counts_what_has_not_ended_as_such_and_continue_says_that_nothing_was_paused(called, tmp_path):
    store = str(tmp_path / "unfinished.db")
    journal = open_journal(store)
    story = Story(journal).request().say(TasksAdded(tasks=tuple(Task(id=name, role="clerk") for name in "abcd")))
    story.give("a", "b", "c").end("a", 1)
    journal.close()
    said = json.loads(called("show", "last", "--store", store, "--json")[1])
    assert said["tasks"] == {"total": 4, "done": 1, "failed": 0, "running": 2, "in_review": 0, "waiting": 1}
    assert called("continue", "last", "--store", store) == (0, "", f"{story.run} was not paused\n")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["runs"], ["cost"], ["failures"], ["reviews"], ["prune", "--older-than", "1d"], ["budget", "show"], ["resume", "--all"]),
        *([name, "last"] for name in ("show", "trace", "journal", "replay", "cancel", "pause", "continue", "resume")),
    ],
    ids=" ".join,
)
def test_reading_makes_no_journal(folder, called, arguments):
    code, out, err = called(*arguments, "--store", "mistyped.db")
    assert (code, out) == (2, "")
    assert err == f"callboard: there is no journal at {folder}/mistyped.db; check --store, or leave it out for the default one\n"
    called(*arguments)
    assert not (folder / "mistyped.db").exists()
    assert not (folder / "home").exists()


def test_a_run_that_was_claimed_and_never_began_is_no_run(called, tmp_path):
    store = str(tmp_path / "claimed.db")
    with closing(open_journal(store)) as journal:
        journal.claim("r1")
    assert called("runs", "--store", store)[1:] == ("", "no runs yet; start one with `callboard run TARGET`\n")
    for command in ("resume", "show", "cancel", "trace"):
        code, out, err = called(command, "r1", "--store", store)
        assert (code, out, "this journal holds no runs yet" in err) == (2, "", True)


def test_one_run_that_can_not_be_read_stops_no_other(folder, called):
    (folder / "pieces.py").write_text(PIECES)
    store = str(folder / "several.db")
    assert called("run", "pieces.py", "--goal", '["a"]', "--run-id", "good", "--runtime", "inline", "--store", store)[0] == 0
    newer, garbage = codec.pack_value([99, "RunRequested", {}]), b"what is this"
    with closing(open_journal(store)) as journal:
        began = [entry.body for entry in journal.pick("good", [1, 2])]
        for run, bodies in {"damaged": [*began, garbage], "begun": began, "newer": [newer]}.items():
            entries = [
                Entry(run, at, 1, codec.unpack_value(body)[1] if body != garbage else "TaskEnded", body)
                for at, body in enumerate(bodies, 1)
            ]
            journal.append(entries, {run: journal.claim(run)})
    code, _, err = called("resume", "--all", "--runtime", "inline", "--store", store)
    assert code == 6
    assert "begun has ended: done" in err
    assert "damaged is left out: these 12 bytes are no message" in err
    assert "newer is left out: entry 1 of newer can't be read" in err
    code, out, err = called("runs", "--store", store)
    assert (code, [line.split()[0] for line in out.splitlines()]) == (6, ["run", "begun", "good"])
    for command in (["failures"], ["reviews"], ["prune", "--older-than", "2020-01-01", "--status", "running"]):
        assert "Traceback" not in called(*command, "--store", store)[2]


def test_a_goal_that_does_not_fit_is_refused_before_the_run_begins(folder, called):
    (folder / "listed.py").write_text(PIECES.replace("def plan(goal: Any)", "def plan(goal: list[str])"))
    for given, why in (["--goal", "42"], "the goal does not fit (Input should be a valid list)"), ([], "there is no goal"):
        code, out, err = called("run", "listed.py", "--runtime", "inline", *given)
        assert (code, out) == (2, "")
        assert f"{why}: the planner takes list[str]; give it with --goal or --input, as JSON like" in err
    assert called("runs")[2] == "no runs yet; start one with `callboard run TARGET`\n"


def test_output_that_can_not_be_written_is_still_in_the_journal(store, folder):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "orchestrator.cli", "show", "last", "--output", "--store", store]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("callboard: the output can't be written (No space left on device)")
    assert "`callboard show RUN --output`" in done.stderr


def test_trace_draws_a_tree_or_gives_one_object_of_spans(called, store):
    code, out, _ = called("trace", "run-1abcdef", "--store", store)
    assert code == 0
    assert "tool read_file" in out
    assert called("trace", "run-1abcdef", "--store", store, "--task", "read:a")[1].count("plan/1") == 0
    assert "… 999 more clerk" in called("trace", "last", "--store", store, "--slowest", "1")[1]
    said = json.loads(called("trace", "run-1abcdef", "--store", store, "--json")[1])
    assert said["run"] == "run-1abcdef-aaaaa"
    assert {"chat careful", "invoke_agent reader"} <= {span["name"] for span in said["spans"]}
    wide = json.loads(called("trace", "last", "--store", store, "--json")[1])
    assert sum(span["name"] == "invoke_agent clerk" for span in wide["spans"]) == 1000
    assert called("trace", "last", "--store", store, "--task", "x")[0] == 2
    assert called("trace", "last", "--store", store, "--task", "x", "--slowest", "1")[0] == 2


def test_journal_gives_one_json_line_an_entry(called, store):
    code, out, _ = called("journal", "run-1abcdef", "--store", store, "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert set(lines[0]) == {"seq", "at", "tag", "body"}
    assert lines[0]["tag"] == "RunRequested"
    assert lines[0]["at"] == "2025-10-09T08:53:20.010Z"
    assert lines[0]["body"]["goal"] == "audit everything"
    assert len(called("journal", "run-1abcdef", "--store", store, "--after", "5")[1].splitlines()) == len(lines) - 5
    assert "and none after 99,999" in called("journal", "run-1abcdef", "--store", store, "--after", "99999")[2]


def test_models_are_listed_and_unknown_ones_refused(folder, called):
    code, out, _ = called("model", "list")
    assert code == 0
    assert "embedded:smollm2-135m" in out
    assert "not fetched yet" in out
    said = json.loads(called("model", "list", "--json")[1])
    assert said["default"] == "smollm2-135m"
    assert {model["path"] for model in said["models"]} == {None}
    code, out, err = called("model", "pull", "no-such-model")
    assert (code, out) == (2, "")
    assert "No embedded model is called 'no-such-model'" in err


def test_a_model_file_that_is_here_is_not_fetched_again(folder, called):
    (folder / "mine.gguf").write_bytes(b"GGUF and more")
    assert called("model", "pull", "./mine.gguf")[:2] == (0, f"{folder}/mine.gguf\n")


def test_a_reader_that_stops_reading_is_no_error(store, folder):
    command = f"{sys.executable} -m orchestrator.cli journal last --store {store} --json | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout)["seq"] == 1


def test_an_entry_of_a_newer_callboard_is_storage(called, tmp_path):
    from orchestrator.journal.port import Entry

    journal = open_journal(str(tmp_path / "newer.db"))
    epoch = journal.claim("run-1")
    journal.append([Entry("run-1", 1, 1, "RunRequested", b"\x93\x02\xa3New\x80")], {"run-1": epoch})
    journal.close()
    code, _, err = called("show", "last", "--store", str(tmp_path / "newer.db"))
    assert code == 6
    assert "entry 1 of run-1 can't be read" in err


# --- running ----------------------------------------------------------------------------------------------------------


def test_the_output_goes_to_stdout_and_all_else_to_stderr(folder):
    done = typed("run", "job.py:alone", "--goal", "it", "--runtime", "inline")
    assert (done.returncode, done.stdout) == (0, "worked on it\n")
    assert "a print at import" in done.stderr
    assert "done · 1 task done" in done.stderr
    assert "callboard trace run-" in done.stderr


def test_json_is_one_object_and_the_journal_tells_the_same(folder, called):
    done = typed("run", "job.py", "--goal", '["a", "b"]', "--runtime", "inline", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert (said["status"], said["output"], said["cost_micros"]) == ("done", ["worked on a", "worked on b"], 0)
    shown = json.loads(called("show", "last", "--json")[1])
    assert [shown[name] for name in ("run", "status", "output", "usage")] == [said[name] for name in ("run", "status", "output", "usage")]


def test_quiet_says_nothing_but_the_output(folder):
    done = typed("run", "job.py:alone", "--input", "-", "--runtime", "inline", "--quiet", stdin="it\n")
    assert (done.returncode, done.stdout) == (0, "worked on it\n")
    assert [line for line in done.stderr.splitlines() if not line.startswith("a print")] == []


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (["job.py", "--goal", '["a", "bad"]'], 5, "partial"),
        (["job.py", "--goal", '["bad"]'], 1, "failed"),
        (["sleeper.py", "--goal", "1", "--timeout", "0.5"], 3, "budget"),
    ],
)
def test_exit_codes_say_how_the_run_ended(folder, arguments, code, status):
    done = typed("run", *arguments, "--runtime", "inline", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["status"], said["exit_code"]) == (code, status, code)


def test_a_failure_of_the_run_is_told_by_its_verdict(folder):
    done = typed("run", "job.py", "--goal", '["bad"]', "--runtime", "inline")
    assert done.returncode == 1
    assert "code_error: " in done.stderr
    assert "this one is bad" in done.stderr


def test_what_a_failure_quotes_does_not_steer_the_terminal(folder, called):
    odd = PIECES.replace("this one is bad", "\\x1b[31mred\\x1b[0m\\x00 \\x9b2J\\nand on")
    (folder / "odd.py").write_text(odd)
    code, _, told = called("run", "odd.py:alone", "--goal", "bad", "--runtime", "inline", "--quiet")
    assert code == 1
    assert "ValueError: red 2J\nand on" in told
    assert not set(told) & {"\x1b", "\x00", "\x9b"}


def _started(*arguments):
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _at_work(folder):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if (folder / "home" / "journal.db").exists():
            journal = open_journal()
            try:
                for row in journal.runs():
                    if any(entry.tag == "Dispatched" for entry in journal.read(row.run)):
                        return row.run
            finally:
                journal.close()
        time.sleep(0.1)
    raise AssertionError("nothing was dispatched")


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_an_interrupted_run_stays_resumable_and_says_how(folder, called, number, code):
    process = _started("run", "sleeper.py", "--goal", "1", "--runtime", "inline")
    run = _at_work(folder)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert f"go on with `callboard resume {run}`" in err
    assert "Traceback" not in err
    assert "unfinished" in called("runs")[1]


def test_cancel_reaches_the_process_that_works_on_the_run(folder, called):
    process = _started("run", "sleeper.py", "--goal", "1", "--runtime", "inline", "--json")
    run = _at_work(folder)
    code, _, err = called("cancel", "last", "--reason", "enough")
    assert (code, err) == (0, f"{run} was cancelled (cancelled)\n")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 4
    assert json.loads(out)["failure"]["message"] == "enough"
    assert called("cancel", "last") == (0, "", f"{run} had ended already (cancelled)\n")


def test_cancel_closes_a_run_that_nobody_works_on(folder, called):
    process = _started("run", "sleeper.py", "--goal", "1", "--runtime", "inline")
    run = _at_work(folder)
    process.kill()
    process.communicate()
    code, _, err = called("cancel", run)
    assert code == 0
    assert f"nothing is working on {run}" in err
    assert "(cancelled)" in err


def test_a_killed_run_is_resumed_and_an_ended_one_gives_its_output_again(folder, called):
    (folder / "slow.py").write_text(SLEEPER.replace("asyncio.sleep(60)", "asyncio.sleep(1)"))
    process = _started("run", "slow.py", "--goal", "1", "--runtime", "inline")
    _at_work(folder)
    process.kill()
    process.communicate()
    done = typed("resume", "last", "--runtime", "inline", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["output"] == "slept"
    again = typed("resume", "last", "--runtime", "inline")
    assert (again.returncode, again.stdout) == (0, "slept\n")
    assert "has ended already" in again.stderr
