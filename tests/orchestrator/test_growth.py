"""What a long conversation costs: its journal and its host's memory grow with what was said, and not with how long it has become."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable
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


def looker(turns: int, size: int, at: Callable[[int], None] = lambda n: None) -> Team:
    """A team of one agent that looks so many times; ``at`` hears the number of each turn."""

    def reply(request: Any) -> Any:
        last = next((one for one in reversed(request.messages) if one.role == "tool"), None)
        n = int(last.content.split()[0]) + 1 if last else 0
        at(n)
        return call("look", n=n, size=size) if n < turns else "seen"

    model, limits = ScriptedModel(reply, profile=SHORT), Limits(turns=turns + 1)
    return Team("looking", [Role("looker", instructions="Look.", input=str, output=str, tools=[look], model=model, limits=limits)])


def size_of(store: str, run: str) -> tuple[int, int]:
    """The bytes of a run's entries, and of what was said in them: messages, replies, arguments and results."""
    stored = told = 0
    with closing(open_journal(store)) as journal:
        for entry in journal.read(run):
            stored += len(entry.body)
            body = codec.unpack(entry.body)
            if isinstance(body, m.ToolCalled):
                told += len(body.content)
            elif isinstance(body, m.ModelCalled) and body.reply is not None:
                told += len(body.reply.text) + sum(len(one.content) for one in body.said)
                told += sum(len(str(one.arguments)) for one in body.reply.tool_calls)
    return stored, told


def test_the_journal_of_a_long_conversation_grows_with_what_was_said(tmp_path: Path) -> None:
    def grown(turns: int, size: int) -> tuple[int, int]:
        store = str(tmp_path / f"{turns} {size}.db")
        result = looker(turns, size).run_sync("go", runtime="inline", store=store)
        assert result.status is Status.DONE
        assert result.usage.tool_calls == turns
        stored, told = size_of(store, result.run_id)
        share, more = stored / told, (stored - told) // turns
        print(f"{turns} turns of {size} characters: {stored} bytes, {share:.2f} times what was said, {more} more a turn")
        return stored, told

    half, whole, large = grown(250, 1_000), grown(500, 1_000), grown(250, 4_000)
    assert 1.95 < whole[0] / half[0] < 2.05
    assert whole[0] - whole[1] < 500 * 512, "what is stored beside what was said is a few hundred bytes a turn"
    assert large[0] < 1.2 * large[1]


def test_a_resumed_conversation_is_not_stored_again(tmp_path: Path) -> None:
    store = str(tmp_path / "journal.db")

    async def twice() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(looker(300, 1_000), "go")
            called = 0
            async for envelope in handle.events():
                called += isinstance(envelope.body, m.ToolCalled)
                if called == 200:
                    break
        before = size_of(store, handle.run_id)[0]
        async with Board(runtime="inline", store=store) as board:
            result = await (await board.resume(handle.run_id)).result()
        return result, before

    result, before = asyncio.run(twice())
    stored, told = size_of(store, result.run_id)
    assert result.status is Status.DONE
    assert before < stored
    assert stored - told < 300 * 512
    assert told < 300 * 1_050


MEASURED = """
import sys, psutil
from tests.orchestrator.test_growth import looker

def at(n):
    if n in (500, 1500):
        print(psutil.Process().memory_info().rss)

looker(1500, 1000, at).run_sync("go", runtime="inline", store=sys.argv[1])
"""


def test_the_memory_of_a_host_grows_by_what_was_said_a_few_times_over(tmp_path: Path) -> None:
    words = [sys.executable, "-c", MEASURED, str(tmp_path / "journal.db")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    grown = after - before
    print(f"1,000 more turns of 1,000 characters take {grown / 1e6:.1f} MB")
    assert grown < 10_000_000
