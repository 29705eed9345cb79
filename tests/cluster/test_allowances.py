"""Limits over runs of two coordinators on real Ray, with a host that is killed: not one call too many, and nothing reserved at rest.

``CALLBOARD_FLEET=64x4x3`` is agents of a run, hosts, and levels of delegation; the default is a small one.
"""

import asyncio
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agents import Context, Role, ScriptedModel, call, role, say, tool
from orchestrator import Board, Team, open_journal
from orchestrator.journal.allowances import EVERYONE, Limit, Window, of_user
from orchestrator.ledger import ALLOWANCE
from orchestrator.link import now
from orchestrator.replay import replay
from protocols import codec
from protocols import messages as m
from protocols.budget import COUNTED, ZERO, Limits
from protocols.plan import Plan, Task
from tests.cluster.cast import mark, marks
from tests.cluster.test_runs import until

AGENTS, HOSTS, LEVELS = map(int, os.environ.get("CALLBOARD_FLEET", "8x2x2").split("x"))
RUNS = 3
TURNS = 3


class Errand(BaseModel):
    """What to have done, so many levels below."""

    levels: int


@role(delegates=["lead", "reader"])
async def lead(errand: Errand, context: Context) -> int:
    below = [("lead", {"levels": errand.levels - 1})] * 2 if errand.levels > 2 else [("reader", "page")] * 2
    asked = [Task(id=f"{context.task}/{n}", role=name, input=given) for n, (name, given) in enumerate(below)]
    outcomes = await context.delegate(asked)
    return sum(outcome.failure is None for outcome in outcomes)


@tool
def look(page: str) -> str:
    """Look at a page."""
    return f"{page} is blank"


def reply(path: str, request: Any) -> Any:
    mark(path, "call")
    turns = sum(message.role == "tool" for message in request.messages)
    return call("look", page=f"p{turns}") if turns < TURNS - 1 else say("blank", input_tokens=40, output_tokens=3)


def reading(path: Path) -> Team:
    model = ScriptedModel(partial(reply, str(path)), latency=0.3)
    reader = Role("reader", instructions="Read.", input=str, output=str, tools=[look], model=model, max_output_tokens=8)
    above, name, given = (AGENTS >> LEVELS - 1, "lead", {"levels": LEVELS}) if LEVELS > 1 else (AGENTS, "reader", "page")
    plan = Plan(tasks=tuple(Task(id=f"t{n}", role=name, input=given) for n in range(above)))
    return Team("reading", [reader, lead], planner=plan)


def test_runs_of_one_user_on_several_hosts_with_one_killed_make_not_one_call_too_many(cluster: None, store: str, tmp_path: Path) -> None:
    path, most = tmp_path / "marks", RUNS * AGENTS * TURNS * 2 // 3
    journal = open_journal(store)
    everyone = Limit(EVERYONE, Window.MONTH, Limits(tokens=10**9))
    journal.set_limits([Limit(of_user("ada"), Window.TOTAL, Limits(model_calls=most, tool_calls=RUNS * AGENTS * TURNS)), everyone])

    async def killed() -> list[Any]:
        async with Board(runtime="ray", store=store, hosts=HOSTS, coordinators=2) as board:
            handles = [await board.start(reading(path), user="ada", run_id=f"run-{n}") for n in "cde"]  # one and two
            await until(lambda: len(marks(path)) >= RUNS * AGENTS // 2)
            host, _ = Counter(line.split()[1] for line in path.read_text().splitlines()).most_common(1)[0]
            os.kill(int(host), signal.SIGKILL)
            return await asyncio.gather(*(handle.result() for handle in handles))

    results = asyncio.run(killed())
    assert len({line.split()[1] for line in path.read_text().splitlines()}) >= HOSTS
    denied = [codec.unpack(entry.body) for one in results for entry in journal.read(one.run_id) if entry.tag == "AllowanceDenied"]
    assert {one.limit for one in denied if isinstance(one, m.AllowanceDenied)} == {"model calls of user ada in total"}
    settled = [replay(journal, one.run_id).ledger.accounts[ALLOWANCE] for one in results]
    assert {account.reserved for account in settled} == {ZERO}
    standings = {one.limit.account: one for one in journal.standings(now())}
    ada = standings[of_user("ada")]
    for place, name in enumerate(COUNTED):
        assert ada.used[place] == sum(account.settled[place] for account in settled), name
    assert len(marks(path)) <= ada.used[2] <= most
    assert ada.used[2] > most - RUNS * TURNS  # and what there was has been used
    assert ada.reserved == standings[EVERYONE].reserved == ZERO
    assert journal.drawing() == []
    print(f"{RUNS} runs of {AGENTS} agents, {HOSTS} hosts, {LEVELS} levels: {len(marks(path))} calls made, {ada.used[2]} of {most} counted")
