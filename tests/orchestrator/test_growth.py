"""What a long conversation costs: its journal and its host's memory grow with what was said, and not with how long it has become."""

import asyncio
import gc
import os
import random
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

from agents import Role, ScriptedModel, call, tool
from agents.models.scripted import EVERYTHING
from orchestrator import Board, Team, open_journal
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.messages import Status

SHORT = EVERYTHING.model_copy(update={"context_tokens": 16_000})
"""So that most of the conversation has to be left out of each request."""


@tool(max_chars=10_000)
def look(n: int, size: int) -> str:
    """Something of so many characters that was not seen before."""
    return f"{n} {random.Random(n).randbytes(size // 2).hex()}"


@tool(effect="write")
def weigh(n: int) -> str:
    """Print the bytes in use. A write begins when all that was said before it is stored, so nothing is on its way to the journal."""
    gc.collect()
    print(tracemalloc.get_traced_memory()[0])
    return f"{n} weighed"


def looker(turns: int, size: int, *weighed: int, gate: Path | None = None) -> Team:
    """A team of one agent that looks so many times, at turns that are ``weighed`` at its memory; it gets stuck halfway without ``gate``."""

    async def reply(request: Any) -> Any:
        last = next((one for one in reversed(request.messages) if one.role == "tool"), None)
        n = int(last.content.split()[0]) + 1 if last else 0
        if gate is not None and n == turns // 2 and not gate.exists():
            await asyncio.Event().wait()
        looks = call("weigh", n=n) if n in weighed else call("look", n=n, size=size)
        return looks if n < turns else "seen"

    model, limits = ScriptedModel(reply, profile=SHORT), Limits(turns=turns + 2)
    return Team("looking", [Role("looker", instructions="Look.", input=str, output=str, tools=[look, weigh], model=model, limits=limits)])


def size_of(store: str, run: str) -> tuple[int, int]:
    """The bytes of a run's entries as they are stored, and of what was said in them: messages, replies, arguments and results."""
    told = 0
    with closing(open_journal(store)) as journal:
        for entry in journal.read(run):
            body = codec.unpack(entry.body)
            if isinstance(body, m.ToolCalled):
                told += len(body.content)
            elif isinstance(body, m.ModelCalled) and body.reply is not None:
                told += len(body.reply.text) + sum(len(one.content) for one in body.said)
                told += sum(len(str(one.arguments)) for one in body.reply.tool_calls)
    with closing(sqlite3.connect(store)) as db:
        stored: int = db.execute("SELECT sum(length(body)) FROM entries").fetchone()[0]
    return stored, told


def test_the_journal_of_a_long_conversation_grows_with_what_was_said(tmp_path: Path) -> None:
    def grown(turns: int, size: int) -> tuple[int, int, int]:
        store = str(tmp_path / f"{turns} {size}.db")
        result = looker(turns, size).run_sync("go", runtime="inline", store=store)
        assert result.status is Status.DONE
        assert result.usage.tool_calls == turns
        stored, told = size_of(store, result.run_id)
        file = os.path.getsize(store)  # the log was moved into it when it was closed
        print(f"{turns} turns of {size} characters: {told} said, {stored / told:.2f} times that stored, {file / told:.2f} in the file")
        return stored, file, told

    half, whole, small = grown(250, 1_000), grown(500, 1_000), grown(500, 300)
    assert 1.95 < whole[0] / half[0] < 2.05
    assert whole[0] < 1.2 * whole[2]
    assert whole[1] - half[1] < 1.2 * (whole[2] - half[2]), "with all that the file holds beside"
    assert small[0] < 1.5 * small[2]


def test_a_resumed_conversation_is_not_stored_again(tmp_path: Path) -> None:
    store, gate = str(tmp_path / "journal.db"), tmp_path / "gate"

    async def twice() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(looker(300, 1_000, gate=gate), "go")
            called = 0
            async for envelope in handle.events():
                called += isinstance(envelope.body, m.ToolCalled)
                if called == 150:
                    break
        before = size_of(store, handle.run_id)[0]
        gate.touch()
        async with Board(runtime="inline", store=store) as board:
            result = await (await board.resume(handle.run_id)).result()
        return result, before

    result, before = asyncio.run(twice())
    stored, told = size_of(store, result.run_id)
    assert result.status is Status.DONE
    assert before < stored
    assert stored < 1.2 * told
    assert told < 300 * 1_050


MEASURED = """
import sys, tracemalloc
from tests.orchestrator.test_growth import looker

tracemalloc.start()
looker(801, 4000, 200, 800).run_sync("go", runtime="inline", store=sys.argv[1])
"""


def test_what_is_no_longer_shown_takes_no_memory(tmp_path: Path) -> None:
    words = [sys.executable, "-c", MEASURED, str(tmp_path / "journal.db")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    grown = after - before
    print(f"after 600 more turns of 4,000 characters {grown} more bytes are in use")
    assert grown < 900_000, "what guards and coordinator know of each turn is under a kilobyte, and its words are let go"
