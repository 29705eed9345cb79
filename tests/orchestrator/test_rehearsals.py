"""Rehearsals: faults happen where a test wants them, and what users' tools do to the outside is what they may count on."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents import Context, Role, ScriptedModel, call, role, tool
from agents.effects import Done, NotDone, Reconciled
from orchestrator import Team
from orchestrator.testing import (
    Decision,
    DelayAcknowledgement,
    DoubleReport,
    DropAcknowledgement,
    DropReport,
    Fault,
    KillHost,
    Rehearsal,
    StopCoordinator,
    rehearse,
)
from protocols.failures import BadInput, Verdict
from protocols.messages import Status, ToolIntended
from protocols.plan import Plan, Task


class Shop:
    """The world outside: what was bought, and under which keys."""

    def __init__(self) -> None:
        self.bought: list[int] = []
        self.keys: list[str] = []

    def team(self, **settings: Any) -> Team:
        """An agent that looks, buys 1, looks, buys 3."""

        @tool
        async def look(n: int) -> str:
            """Look at something."""
            return f"saw {n}"

        @tool(effect="write", **settings)
        async def buy(n: int, context: Context) -> str:
            """Buy something."""
            if context.key not in self.keys:
                self.bought.append(n)
            self.keys.append(context.key)
            return f"bought {n}"

        script = [call("look", n=0), call("buy", n=1), call("look", n=2), call("buy", n=3), "done"]
        return Team("shop", [Role("buyer", tools=[look, buy], model=ScriptedModel(script))])

    def became(self, key: str) -> Reconciled:
        """What became of a purchase."""
        return Done("bought") if key in self.keys else NotDone()


def kept(done: Rehearsal, shop: Shop) -> None:
    assert done.result.status is Status.DONE
    assert done.result.output == "done"
    assert shop.bought == [1, 3]
    assert [one.content for one in done.tool_calls if one.effect == "write"][-1].startswith("bought")


WAYS = [
    DropAcknowledgement(2),
    DropReport(2),
    DoubleReport(2),
    DelayAcknowledgement(2),
    StopCoordinator(1),
    StopCoordinator(2),
    StopCoordinator(2, "after"),
    StopCoordinator(3, "after"),
]


@pytest.mark.parametrize("fault", WAYS, ids=str)
def test_what_happens_on_the_way_changes_nothing_outside(fault: Fault) -> None:
    shop = Shop()
    done = rehearse(shop.team(), "go", chaos=[fault])
    kept(done, shop)
    assert len(shop.keys) == 2  # nothing was even asked for twice
    assert done.lost == 0


def test_a_host_that_dies_loses_its_work_and_no_effect() -> None:
    for settings in ({"idempotent": True}, {"reconcile": True}):
        shop = Shop()
        settings = {"reconcile": shop.became} if "reconcile" in settings else settings
        done = rehearse(shop.team(**settings), "go", chaos=[KillHost(2, "before"), KillHost(5, "after")])
        kept(done, shop)
        assert done.lost == 2
        assert done.reviews == []


@pytest.mark.parametrize(("when", "bought"), [("before", []), ("after", [1])])
def test_a_write_that_nobody_can_ask_about_is_put_to_a_person(when: Any, bought: list[int]) -> None:
    shop = Shop()
    ended = rehearse(shop.team(), "go", chaos=[KillHost(2, when)])
    assert ended.result.failure is not None
    assert ended.result.failure.verdict is Verdict.EFFECT_IN_DOUBT
    assert shop.bought == bought
    [asked] = ended.reviews
    assert asked.call.name == "buy"

    again = Shop()
    decided = Decision.DONE if when == "after" else Decision.NOT_DONE
    done = rehearse(again.team(), "go", chaos=[KillHost(2, when)], decide=lambda asked: decided)
    assert done.result.status is Status.DONE
    assert again.bought == [1, 3]


def test_a_recorded_result_is_never_in_doubt() -> None:
    shop = Shop()
    done = rehearse(shop.team(), "go", chaos=[KillHost(2, "recorded"), KillHost(4, "recorded")])
    kept(done, shop)
    assert done.lost == 2
    assert len(shop.keys) == len([one for one in done.messages if isinstance(one, ToolIntended)]) == 2


def test_several_hosts_and_a_recorded_model(store: str) -> None:
    shop = Shop()
    team = shop.team(idempotent=True)
    plan = Plan(tasks=tuple(Task(id=f"t{n}", role="buyer", input="go") for n in range(6)))
    many = Team("shops", team.roles, planner=plan)
    first = rehearse(many, hosts=3, chaos=[KillHost(5)], store=store)
    again = rehearse(many, hosts=2, model=f"recorded:{first.result.run_id}", store=store)
    assert first.result.output == again.result.output == ["done"] * 6
    assert first.lost >= 1
    assert sorted(shop.bought) == [1] * 12 + [3] * 12


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chaos": [KillHost(9)]}, r"KillHost\(at_tool_call=9.* never happened: the run made 4 tool calls"),
        ({"chaos": [KillHost(0)]}, "tool calls count from 1"),
        ({"hosts": 0}, "at least one host"),
        ({"model": "recorded:nonesuch"}, "there is no run 'nonesuch'"),
    ],
)
def test_a_rehearsal_that_can_not_work_says_so(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        rehearse(Shop().team(), "go", **settings)


def saying(say: Callable[[], Any], where: str) -> Team:
    """A team in which this is said in a tool, in a task that a tool begins, by the model, or in a function."""

    @tool
    def look() -> str:
        """Look."""
        return str(say())

    @tool
    async def gather() -> str:
        """Look in a task."""
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(say))
        return ""

    @role
    async def function(goal: str) -> str:
        return str(say())

    calls = {"tool": "look", "group": "gather"}
    script: Any = [call(calls[where]), "done"] if where in calls else lambda request: say()
    return Team("said", [function if where == "function" else Role("one", tools=[look, gather], model=ScriptedModel(script))])


def asserts() -> None:
    assert len("ab") == 3, "two is not three"


@pytest.mark.parametrize("where", ["tool", "group", "model", "function"])
def test_what_a_test_says_inside_of_the_work_is_its_outcome(where: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="wrong price"):
        rehearse(saying(lambda: pytest.fail("wrong price"), where), "go")
    with pytest.raises(pytest.skip.Exception, match="not today"):
        rehearse(saying(lambda: pytest.skip("not today"), where), "go")
    with pytest.raises(AssertionError, match="two is not three"):
        rehearse(saying(asserts, where), "go")


def test_an_error_of_a_program_is_the_works_and_not_the_tests() -> None:
    for error in (ValueError("no"), SystemExit("no")):
        done = rehearse(saying(partial(_raise, error), "tool"), "go")
        assert done.result.output == "done"
        assert "no" in done.tool_calls[0].content


def _raise(error: BaseException) -> None:
    raise error


PROOF = """
from agents import Role, ScriptedModel
from orchestrator import Team

team = Team("echo", [Role("echo", model=ScriptedModel(["hi"]))])


def test_it(rehearse, callboard_store):
    assert rehearse(team, "go").result.output == "hi"
    assert open(callboard_store, "rb").read(6) == b"SQLite"
"""


def test_the_plugin_gives_a_rehearsal_whose_journal_stays(tmp_path: Path) -> None:
    (tmp_path / "test_proof.py").write_text(PROOF)
    command: Sequence[str] = ("-m", "pytest", "-q", "-p", "orchestrator.pytest_plugin", "-p", "no:cacheprovider", str(tmp_path))
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
