"""Disks that fail to flush: ``fsync`` and ``fdatasync`` of a real process return an error while a file is there."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.journal.sqlite import SqliteJournal

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands between a process and its disk; see ``flush.c``."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler here, or no way to put a library before the system's")
    made = tmp_path_factory.mktemp("library") / "flush.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(HERE / "flush.c"), "-ldl"], check=True)
    return made


@pytest.fixture
def disk(library: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose disk fails while the file ``fails`` is there. Each failure adds a byte to that file."""
    (tmp_path / "job.py").write_text(JOB)
    paths = {"LD_PRELOAD": library, "PYTHONPATH": HERE.parents[2], "DISK_FAILS": tmp_path / "fails", "MARKS": tmp_path / "marks"}
    return os.environ | {name: str(path) for name, path in paths.items()} | {"STORE": str(tmp_path / "j.db")}


WRITER = """
import os, random, signal, sys
from pathlib import Path
from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import SqliteJournal
from protocols.failures import StorageError

fails, some = Path(os.environ["DISK_FAILS"]), random.Random(7)
fails.touch()
try:
    SqliteJournal(Path(os.environ["STORE"]))
    raise SystemExit("a file that can't be flushed was made")
except StorageError:
    fails.unlink()
journal = SqliteJournal(Path(os.environ["STORE"]))
epochs, refused = {"a": journal.claim("a")}, 0
for number in range(1, 161):  # as many bytes as several checkpoints take
    if some.random() < 0.3 or number == 160:
        fails.touch()
    entry = Entry("a", journal.row("a").seq + 1, number, "TaskEnded", some.randbytes(some.choice([10, 300, 100_000])))
    try:
        journal.append([entry], epochs)
        print(entry.at, flush=True)
    except StorageError as error:
        assert error.retryable and "check that disk" in str(error), error
        refused += fails.stat().st_size > 0
        try:
            journal.claim("b")
            raise SystemExit("a claim that can't be flushed was given")
        except StorageError:
            pass
    if number < 160:
        fails.unlink(missing_ok=True)
print("refused", refused, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_durable_that_could_not_be_flushed_and_nothing_is_lost_that_was(disk: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER], env=disk, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *told, last = done.stdout.splitlines()
    assert int(last.split()[1]) > 20, "nothing stood between the process and its disk"
    journal = SqliteJournal(Path(disk["STORE"]))
    assert [str(entry.at) for entry in journal.read("a")] == told
    assert journal.row("b") is None
    journal.close()


JOB = """
import os
from pathlib import Path
from agents import Role, ScriptedModel, call, tool
from agents.effects import Done, NotDone
from orchestrator import Team

FAILS, MARKS = Path(os.environ["DISK_FAILS"]), Path(os.environ["MARKS"])

def look(key: str, n: int) -> Done | NotDone:
    return Done(f"marked {n}") if str(n) in MARKS.read_text().split() else NotDone()

@tool(effect="write", reconcile=look)
async def mark(n: int) -> str:
    "Leave a mark."
    with MARKS.open("a") as file:
        file.write(f"{n}\\n")
    return f"marked {n}"

def reply(request):
    n = sum(one.role == "tool" for one in request.messages)
    if n == 3 and not MARKS.with_name("failed").exists():
        MARKS.with_name("failed").touch()
        FAILS.touch()
    return call("mark", n=n) if n < 6 else "all marked"

team = Team("markers", [Role("marker", instructions="Mark.", input=str, output=str, tools=[mark], model=ScriptedModel(reply))])
"""

BOARD = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, os.path.dirname(os.environ["MARKS"]))
from job import FAILS, MARKS, team
from orchestrator import Board
from protocols.failures import StorageError

async def main():
    async with Board(runtime="inline", store=os.environ["STORE"]) as board:
        handle = await board.start(team, "go")
        try:
            sys.exit(f"the run ended: {await handle.result()}")
        except StorageError as error:
            print(error.code, FAILS.stat().st_size, *MARKS.read_text().split(), flush=True)
        FAILS.unlink()
        while True:
            try:
                print((await handle.result()).output)
                return
            except StorageError:
                await asyncio.sleep(0.1)

asyncio.run(main())
"""


def test_a_run_stops_before_the_next_effect_and_goes_on_by_itself_when_its_disk_works(disk: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", BOARD], env=disk, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    stopped, output = done.stdout.splitlines()
    code, failures, *marks = stopped.split()
    assert int(failures) > 0, "nothing stood between the process and its disk"
    assert (code, marks, output) == ("storage", ["0", "1", "2"], "all marked")
    assert Path(disk["MARKS"]).read_text().split() == list("012345")


def test_a_command_says_that_the_disk_failed_and_resume_does_the_rest_once(disk: dict[str, str]) -> None:
    def callboard(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "orchestrator.cli", *words, "--store", disk["STORE"]]
        return subprocess.run(command, env=disk, capture_output=True, text=True, timeout=60)

    job = Path(disk["MARKS"]).with_name("job.py")
    stopped = callboard("run", f"{job}:team", "--goal", "go", "--runtime", "inline", "--quiet")
    assert (stopped.returncode, stopped.stdout) == (6, "")
    assert stopped.stderr.splitlines()[0].endswith("disk I/O error; check that disk's space, limits and health, then try again")
    assert Path(disk["DISK_FAILS"]).stat().st_size > 0, "nothing stood between the process and its disk"
    before = Path(disk["MARKS"]).read_text().split()
    told = [json.loads(line) for line in callboard("journal", "last", "--json").stdout.splitlines()]
    intended = [str(one["body"]["call"]["arguments"]["n"]) for one in told if one["tag"] == "ToolIntended"]
    assert before == intended == ["0", "1", "2"]
    Path(disk["DISK_FAILS"]).unlink()
    resumed = callboard("resume", "last", "--runtime", "inline", "--quiet")
    assert (resumed.returncode, resumed.stdout) == (0, "all marked\n"), resumed.stderr
    assert Path(disk["MARKS"]).read_text().split() == list("012345")
