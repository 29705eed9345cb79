"""Effects on a receiver in a process of its own, whose hosts are killed between the announcement and the answer, on real Ray."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agents import Context, Role, ScriptedModel, Tool, call, tool
from agents.effects import Done, NotDone, Reconciled
from orchestrator import Board, Team, open_journal
from orchestrator.cli.command import commands
from orchestrator.observe.reviews import reviews
from protocols import messages as m
from protocols.chat import ModelRequest
from protocols.messages import Status
from protocols.plan import Plan, Task


class Ledger:
    """The receiver as this test sees it."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log = url, log

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    log = tmp_path / "effects.jsonl"
    command = [sys.executable, "-m", "tests.cluster.effects", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        yield Ledger(f"http://127.0.0.1:{int(process.stdout.readline())}", log)
        process.kill()


def payment(url: str, name: str, **settings: Any) -> Tool:
    def send(hold: str, context: Context) -> str:
        body = {"key": context.key, "arguments": {"hold": hold}, "hold": hold, "pid": os.getpid()}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=60) as answer:
            return str(answer.read().decode())

    return tool(name=name, effect="write", timeout=60, **settings)(send)


def team(url: str) -> Team:
    def find(key: str, hold: str) -> Reconciled:
        try:
            with urllib.request.urlopen(f"{url}/{key}", timeout=10) as answer:
                return Done(answer.read().decode())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return NotDone()
            raise

    def script(request: ModelRequest) -> Any:
        last = request.messages[-1]
        if last.role == "tool":
            return last.content
        name, hold = last.content.split(":")
        return call(name, hold=hold)

    tools = [payment(url, "keyed", idempotent=True), payment(url, "findable", reconcile=find), payment(url, "plain")]
    payer = Role("payer", input=str, output=str, tools=tools, model=ScriptedModel(script))
    return Team("payers", [payer], planner=lambda goal: Plan(tasks=tuple(Task(id=f"pay/{n}", role="payer", input=n) for n in goal)))


GOAL = [f"{name}:{hold}" for name in ("keyed", "findable", "plain") for hold in ("after", "before")]


def test_hosts_killed_in_the_middle_of_effects_cause_each_exactly_once(cluster: None, store: str, ledger: Ledger) -> None:
    async def until(count: int, kind: type[m.Message], handle: Any) -> None:
        async for envelope in handle.events():
            count -= isinstance(envelope.body, kind)
            if not count:
                return

    async def killed() -> Any:
        async with Board(runtime="ray", store=store) as board:
            handle = await board.start(team(ledger.url), GOAL)
            async with asyncio.timeout(60):
                while len(ledger.lines()) < len(GOAL):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                for process in {line["pid"] for line in ledger.lines()}:
                    os.kill(process, signal.SIGKILL)
                await until(2, m.ReviewAsked, handle)
            words = ["review", handle.run_id, "pay/plain:after", "--done", "--by", "ada", "--store", store]
            shown = await asyncio.to_thread(CliRunner().invoke, commands, words)
            assert shown.exit_code == 0, shown.output
            await handle.decide("pay/plain:before", m.Decision.NOT_DONE, user="ada")
            return await handle.result()

    result = asyncio.run(killed())
    assert result.status is Status.DONE
    run = result.run_id
    keys = {f"{run}/pay/{what}/1" for what in GOAL}
    lines = ledger.lines()
    assert Counter(line["key"] for line in lines if line["applied"]) == dict.fromkeys(keys, 1)
    assert len({(line["key"], line["arguments"]) for line in lines}) == len(keys)
    calls = Counter(line["key"].removeprefix(f"{run}/pay/").removesuffix("/1") for line in lines)
    assert calls == {what: 1 if what in ("findable:after", "plain:after") else 2 for what in GOAL}
    told = dict(zip(GOAL, result.output, strict=True))
    unknown = "plain was carried out, as ada has made sure; what it returned is not known"
    assert told == {what: f"receipt of {run}/pay/{what}/1" for what in GOAL} | {"plain:after": unknown}
    queue = reviews(open_journal(store), run)
    assert sorted((one.task, one.user) for one in queue) == [("pay/plain:after", "ada"), ("pay/plain:before", "ada")]
    assert all("was lost: its host" in one.evidence[-1] for one in queue)
    assert "nobody recorded its end" in queue[0].message
