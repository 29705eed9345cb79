"""Programs that tools run: what they give back, and that nothing of them is left, however the call ends."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agents import Context, tool
from agents.process import Finished, run
from protocols.failures import Verdict

TWO = 'sleep 1000 & echo "$!" > "$0"; echo "$$" >> "$0"; wait'
"""A shell that starts a program, writes down who they are, and waits."""

STUBBORN = "trap '' TERM; " + TWO


def at_work(file: Path) -> list[int]:
    found = []
    for line in file.read_text().split() if file.exists() else ():
        if psutil.pid_exists(int(line)) and psutil.Process(int(line)).status() != psutil.STATUS_ZOMBIE:
            found.append(int(line))
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_a_program_gives_its_exit_code_and_what_it_wrote(tmp_path: Path) -> None:
    script = 'cat; echo "in $PWD with $A" >&2; exit 3'
    done = asyncio.run(run("sh", "-c", script, input="naïve\n" * 3, cwd=tmp_path, env={**os.environ, "A": "a"}))
    assert done == Finished(3, "naïve\n" * 3, f"in {tmp_path} with a\n")
    assert asyncio.run(run("sh", "-c", "kill -9 $$")).exit_code == -signal.SIGKILL
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        asyncio.run(run("no-such-program"))


def test_long_output_is_cut_and_says_so() -> None:
    done = asyncio.run(run(sys.executable, "-c", "print('x' * 3_000_000, end='')", max_bytes=10))
    assert done == Finished(0, "xxxxxxxxxx\n[cut: 10 of 3000000 bytes shown]", "")


def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    done = asyncio.run(run("sh", "-c", 'sleep 1000 & echo "$!" > "$0"; echo begun', tmp_path / "pids", timeout=60))
    assert done.stdout == "begun\n"
    assert (tmp_path / "pids").exists()
    asyncio.run(until(lambda: not at_work(tmp_path / "pids")))


@pytest.mark.parametrize("script", [TWO, STUBBORN])
def test_a_call_that_is_cancelled_or_too_slow_ends_the_whole_group(tmp_path: Path, script: str) -> None:
    async def cancelled() -> None:
        calling = asyncio.create_task(run("sh", "-c", script, file))
        await until(lambda: len(at_work(file)) == 2)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await until(lambda: not at_work(file))
        with pytest.raises(TimeoutError, match=r"sh did not end in 0.5 s"):
            await run("sh", "-c", script, late, timeout=0.5)
        await until(lambda: late.exists() and not at_work(late))

    file, late = tmp_path / "pids", tmp_path / "late"
    asyncio.run(cancelled())


def test_a_tool_that_is_too_slow_leaves_no_program_and_its_write_is_in_doubt(tmp_path: Path) -> None:
    @tool(effect="write", timeout=0.5)
    async def push(file: str) -> str:
        """Push."""
        return (await run("sh", "-c", TWO, file)).stdout

    file = tmp_path / "pids"
    made = asyncio.run(push.run({"file": str(file)}, Context("run", "task", "role", 1)))
    assert made.in_doubt
    assert not made.going_on
    assert made.failure is not None
    assert made.failure.verdict is Verdict.TOOL_ERROR
    asyncio.run(until(lambda: file.exists() and not at_work(file)))


def test_a_killed_process_takes_its_programs_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    program = "import asyncio, sys; from agents.process import run; asyncio.run(run('sh', '-c', *sys.argv[1:]))"
    with subprocess.Popen([sys.executable, "-c", program, STUBBORN, str(file)], cwd=Path(__file__).parents[2]) as host:
        asyncio.run(until(lambda: len(at_work(file)) == 2))
        host.kill()
    asyncio.run(until(lambda: not at_work(file)))


def test_who_kills_the_children_of_a_process_before_it_ends_leaves_no_program_either(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    program = "import asyncio, sys; from agents.process import run; asyncio.run(run('sh', '-c', *sys.argv[1:]))"
    with subprocess.Popen([sys.executable, "-c", program, STUBBORN, str(file)], cwd=Path(__file__).parents[2]) as host:
        asyncio.run(until(lambda: len(at_work(file)) == 2))
        children = psutil.Process(host.pid).children()
        host.send_signal(signal.SIGSTOP)
        for child in children:
            child.kill()
        host.kill()
    asyncio.run(until(lambda: not at_work(file)))
