"""Runs that rest: nothing is started and no call made until they go on, whoever carries them by then."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from agents import Role, ScriptedModel, call, tool
from orchestrator import Board, RunHandle, Team, open_journal
from orchestrator.observe.history import summarize
from orchestrator.observe.summary import PAUSED
from protocols.messages import Status
from protocols.plan import Plan, Task

made: list[str] = []


@tool
async def look(n: int) -> int:
    """Look."""
    made.append(f"look {n}")
    await asyncio.sleep(0.05)
    return n


def reply(request: Any) -> Any:
    made.append("model")
    seen = sum(message.role == "tool" for message in request.messages)
    return call("look", n=seen) if seen < 6 else "seen"


def team() -> Team:
    looker = Role("looker", instructions="Look.", input=str, output=str, tools=[look], model=ScriptedModel(reply, latency=0.02))
    return Team("looking", [looker], planner=Plan(tasks=tuple(Task(id=f"t{n}", role="looker", input="x") for n in range(3))))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it took too long")


async def rests(handle: RunHandle) -> int:
    """Pause, let what is on its way end, and return how many calls were made by then; no more are made."""
    await handle.pause()
    await asyncio.sleep(0.3)
    calls = len(made)
    await asyncio.sleep(0.3)
    assert len(made) == calls
    return calls


def test_a_paused_run_makes_no_calls_until_it_goes_on_whoever_carries_it(tmp_path: Path) -> None:
    store = str(tmp_path / "journal.db")

    def calls() -> int:
        with closing(open_journal(store)) as journal:
            run = summarize(journal, "mine")
        assert run.standing == PAUSED
        return run.usage.model_calls + run.usage.tool_calls

    async def first() -> int:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(team(), run_id="mine")
            await until(lambda: len(made) > 5)
            await rests(handle)
            return calls()

    async def second() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.resume("mine")
            await asyncio.sleep(0.3)
            assert calls() == before
            told = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "orchestrator.cli", "continue", "last", "--store", store, stderr=subprocess.PIPE
            )
            result = await handle.result()
            assert b"mine goes on" in (await told.communicate())[1]
            return result

    made.clear()
    before = asyncio.run(first())
    result = asyncio.run(second())
    assert result.status is Status.DONE
    assert before < result.usage.model_calls + result.usage.tool_calls == 3 * (7 + 6)


def test_a_paused_run_can_be_cancelled(tmp_path: Path) -> None:
    async def run() -> Any:
        async with Board(runtime="inline", store=str(tmp_path / "journal.db")) as board:
            handle = await board.start(team())
            await until(lambda: len(made) > 2)
            await rests(handle)
            await handle.cancel()
            return await handle.result()

    made.clear()
    assert asyncio.run(run()).status is Status.CANCELLED
