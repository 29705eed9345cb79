"""Blocking calls: their results and errors come back, and those that hang hold nobody up."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agents import threads
from agents.threads import in_thread

who: contextvars.ContextVar[str] = contextvars.ContextVar("who")


def test_results_errors_and_context_come_back_from_a_thread() -> None:
    async def calls() -> None:
        who.set("ada")
        assert await in_thread(who.get) == "ada"
        assert await in_thread(int, "f", base=16) == 15
        with pytest.raises(ValueError, match="invalid literal"):
            await in_thread(int, "x")
        with pytest.raises(RuntimeError, match="StopIteration"):
            await in_thread(next, iter(()))

    asyncio.run(calls())


def test_calls_that_hang_after_they_were_cancelled_keep_no_place() -> None:
    async def hung() -> int:
        calls = [asyncio.ensure_future(in_thread(held.wait, 60)) for _ in range(threads.MOST)]
        waiting = asyncio.ensure_future(in_thread(len, "done"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        for call in calls:
            call.cancel()
        return await asyncio.wait_for(waiting, 10)

    held = threading.Event()
    try:
        assert asyncio.run(hung()) == 4
    finally:
        held.set()


def test_a_process_ends_while_a_thread_hangs() -> None:
    program = """
import asyncio, time
from agents.threads import in_thread
async def hung():
    try:
        await asyncio.wait_for(in_thread(time.sleep, 600), 0.2)
    except TimeoutError:
        print("over")
asyncio.run(hung())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
