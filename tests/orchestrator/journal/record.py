"""Records the golden journal of today's schema, once for each: ``python -m tests.orchestrator.journal.record`` at the root of the project.

Real runs with scripted models. Beside the journal stands what each run came to as the runtime told it when it was recorded, so that
every later version has to read the same out of it. The code of the teams is left out: it is bound to the machine that packed it.
"""

import asyncio
import hashlib
import json
import runpy
import sqlite3
import sys
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from agents import Role, ScriptedModel, call, role, tool
from orchestrator import Board, RunResult, Team, synthesise
from protocols.budget import Limits
from protocols.chat import Price
from protocols.failures import ModelError
from protocols.messages import SCHEMA, TaskEnded
from protocols.plan import Plan, Task

GOLDEN = Path(__file__).parent / "golden"
SECONDS = 30.0


@tool
async def double(n: int) -> int:
    """Double a number."""
    return 2 * n


@tool(effect="write")
async def note(text: str) -> str:
    """Write a note down."""
    return f"noted: {text}"


@role
def pages(count: int) -> str:
    """As many pages; a few of them are too large for a message."""
    return "page " * count


@role
def joined(parts: list[str]) -> str:
    """All parts, one after the other."""
    return "".join(parts)


@role
async def slow(seconds: float) -> float:
    """Take that long."""
    await asyncio.sleep(seconds)
    return seconds


def teams() -> dict[str, tuple[Team, Any]]:
    """Each run's team and goal."""
    price = Price(input_micros=1_000_000, output_micros=2_000_000)
    script = ScriptedModel([[call("double", n=21), call("undo")], call("note", text="42"), "it is 42"], price=price)
    doubler = Role("doubler", instructions="Double it.", input=int, output=str, tools=[double, note], model=script)
    numbers = [("small", 3), ("large", 3_000), ("larger", 4_000)]
    plan = Plan(tasks=tuple(Task(id=name, role="pages", input=count) for name, count in numbers))
    reader = Role("reader", instructions="Read it.", input=str, output=str, model=ScriptedModel([ModelError("nobody answers")]))
    broken = Plan(tasks=(Task(id="read", role="reader", input="a.txt"), Task(id="then", role="reader", input="b.txt", after=("read",))))
    planner = runpy.run_path("examples/planner_team.py")["team"]
    return {
        "planned": (planner, "What is in this folder, and is there a guide to it?"),
        "react": (Team("doublers", [doubler], budget=Limits(micros=100_000, model_calls=20)), 21),
        "tree": (Team("book", [pages], planner=plan, merge=synthesise(joined, fan_in=2)), None),
        "failed": (Team("readers", [reader], planner=broken), None),
    }


def told(result: RunResult) -> dict[str, Any]:
    """What a run came to; its output as a digest of its JSON text."""
    fields = ("task", "role", "status", "failure", "usage", "attempts")
    tasks = [{name: getattr(task, name) for name in fields} for task in result.tasks]
    output = hashlib.sha256(json.dumps(to_jsonable_python(result.output)).encode()).hexdigest()
    found = {"status": result.status, "output": output, "failure": result.failure, "usage": result.usage, "tasks": tasks}
    plain: dict[str, Any] = to_jsonable_python(found)
    return plain


async def record(store: str) -> dict[str, Any]:
    """All runs, in one journal."""
    found = {}
    async with Board(runtime="inline", store=store) as board:
        for run, (team, goal) in teams().items():
            found[run] = told(await (await board.start(team, goal, run_id=run)).result())
        handle = await board.start(Team("slow", [slow]), SECONDS, run_id="cancelled")
        await handle.cancel("no longer wanted")
        found["cancelled"] = told(await handle.result())
        plan = Plan(tasks=(Task(id="first", role="slow", input=0.0), Task(id="then", role="slow", input=2.0, after=("first",))))
        events = (await board.start(Team("slow", [slow], planner=plan), run_id="resumed")).events()
        while not isinstance((await anext(events)).body, TaskEnded):
            pass
    async with Board(runtime="inline", store=store) as board:
        found["resumed"] = told(await (await board.resume("resumed")).result())
    return found


def main() -> None:
    """Write the journal and what to expect of it."""
    path = GOLDEN / f"schema-{SCHEMA}.db"
    if path.exists():
        sys.exit(f"{path.name} is recorded already, and a record is never changed; raise SCHEMA first")
    expected = asyncio.run(record(str(path)))
    with sqlite3.connect(path, isolation_level=None) as db:
        # the digest of a team's code stands in the run's request, under this key, and nowhere else
        for (digest,) in db.execute("SELECT digest FROM blobs").fetchall():
            begins = b"\xa4code\x82\xa6digest\xd9\x40" + digest.hex().encode()
            if db.execute("SELECT 1 FROM entries WHERE instr(body, ?)", (begins,)).fetchone():
                db.execute("DELETE FROM blobs WHERE digest = ?", (digest,))
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("VACUUM")
    db.close()
    (GOLDEN / f"schema-{SCHEMA}.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
