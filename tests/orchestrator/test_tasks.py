"""Tasks that say more than their role: narrower limits of their own, and who takes them over."""

import asyncio
from typing import Any

import pytest

from agents import Context, Role, ScriptedModel, call, role, tool
from agents.fallback import Fixed, Handover
from orchestrator import Team
from orchestrator.testing import ManualClock, rehearse
from protocols.budget import Limits, narrowed
from protocols.failures import BadInput, Verdict
from protocols.messages import ModelCalled, Status
from protocols.plan import Plan, Task, problems


@tool
def look(n: int) -> str:
    """Look at something."""
    return f"saw {n}"


def looking(**settings: Any) -> Role:
    """An agent that looks and looks."""
    return Role("looker", tools=[look], model=ScriptedModel(lambda asked: call("look", n=len(asked.messages))), **settings)


@role
def shrug(asked: Handover[str]) -> str:
    """Say why the other could not."""
    return f"{asked.input}: {asked.failure.verdict}"


@role
def number(asked: int) -> int:
    """Another kind of work."""
    return asked


def planned(*tasks: Task, **settings: Any) -> Team:
    return Team("looking", [looking(**settings), shrug, number], planner=Plan(tasks=tasks))


def test_a_task_may_use_less_than_its_role(runtime: str, store: str) -> None:
    few, all_ = Limits(turns=2, seconds=60), Limits(turns=500)
    plan = (Task(id="few", role="looker", input="x", limits=few), Task(id="all", role="looker", input="x", limits=all_))
    result = planned(*plan, limits=Limits(turns=4)).run_sync(runtime=runtime, store=store)
    used = {task.task: (task.usage.turns, task.failure and task.failure.verdict) for task in result.tasks}
    assert used == {"few": (2, Verdict.TURNS), "all": (4, Verdict.TURNS)}
    assert result.tasks[0].failure is not None
    assert "raise its limits, or those of the task" in result.tasks[0].failure.message


@pytest.mark.parametrize("limits", [Limits(tool_calls=1), Limits(model_calls=2), Limits(tokens=3_000), Limits(seconds=5)])
def test_every_limit_of_a_task_holds(limits: Limits) -> None:
    @tool(timeout=100)
    async def wait(n: int) -> str:
        """Wait for something."""
        await asyncio.sleep(3)
        return f"{n}" * 1_000

    model = ScriptedModel(lambda asked: call("wait", n=len(asked.messages)))
    slow = Role("slow", tools=[wait], model=model)
    team = Team("slow", [slow], planner=Plan(tasks=(Task(id="t", role="slow", input="x", limits=limits),)))
    (lost,) = rehearse(team, clock=ManualClock()).result.failed
    assert lost.failure is not None
    assert lost.failure.verdict is (Verdict.DEADLINE if limits.seconds else Verdict.BUDGET)
    used = lost.usage
    assert used.tool_calls <= (limits.tool_calls or 9) < 10
    assert used.model_calls <= (limits.model_calls or 9)
    assert used.tokens <= (limits.tokens or 10**9)
    assert lost.seconds < (limits.seconds or 10**6) + 1


def test_what_a_task_delegates_is_bounded_by_its_limits() -> None:
    @role(delegates=["looker"])
    async def lead(text: str, context: Context) -> str:
        child = Task(id="lead/1", role="looker", input=text, limits=Limits(turns=9))
        return str((await context.delegate([child]))[0].failure)

    plan = Plan(tasks=(Task(id="lead", role="lead", input="x", limits=Limits(model_calls=3)),))
    done = rehearse(Team("leading", [lead, looking()], planner=plan))
    (lost,) = done.result.failed
    assert lost.failure is not None
    assert (lost.task, lost.failure.limit) == ("lead/1", "model calls of task 'lead'")
    assert sum(isinstance(one, ModelCalled) for one in done.messages) == 3


def test_a_task_names_who_takes_it_over_before_its_role_does() -> None:
    limits = Limits(turns=1)
    own = Task(id="own", role="looker", input="x", limits=limits, fallback={Verdict.TURNS: "shrug"})
    rest = Task(id="rest", role="looker", input="y", limits=limits, fallback={"*": "shrug"})
    other = Task(id="other", role="looker", input="z", limits=limits, fallback={Verdict.PROVIDER: "shrug"})
    result = rehearse(planned(own, rest, other, fallback=Fixed("nothing found"))).result
    assert result.status is Status.DONE
    assert result.output == ["x: turns", "y: turns", "nothing found"]
    assert [task.role for task in result.tasks] == ["shrug", "shrug", "looker"]


def test_what_can_not_work_is_refused_before_anything_runs() -> None:
    for fallback, sentence in (
        ({"turns": "looker"}, "has it already"),
        ({"turns": "shrugg"}, "which does not exist; did you mean 'shrug'?"),
        ({"cancelled": "shrug"}, "after which nobody takes over"),
        ({"*": "number"}, "the output of 'number' can't stand in for that of 'looker'"),
    ):
        with pytest.raises(BadInput, match="does not pass the checks") as refused:
            planned(Task(id="t", role="looker", input="x", fallback=fallback))
        assert sentence in str(refused.value)
    assert problems(Plan(tasks=(Task(id="t", role="a", limits=Limits(turns=1)),)), ["a"], most_tasks=1) == []
    money = Plan(tasks=(Task(id="t", role="free", input="x", limits=Limits(micros=5)),))
    (lost,) = rehearse(Team("free", [Role("free", model=ScriptedModel(["a"], price=None))], planner=money)).result.failed
    assert lost.failure is not None
    assert "has a limit on money, and the price of scripted:script is not known" in lost.failure.message


def test_the_narrower_limit_holds_in_each_dimension() -> None:
    assert narrowed(Limits(turns=4, seconds=9), None) == Limits(turns=4, seconds=9)
    assert narrowed(Limits(turns=4, seconds=9), Limits(turns=5, tokens=7, seconds=2)) == Limits(turns=4, tokens=7, seconds=2)


def test_a_plan_without_them_is_written_as_recorded_plans_were() -> None:
    plain = {"id": "a", "role": "b", "input": 1, "after": (), "tolerant": False}
    assert Plan(tasks=(Task(id="a", role="b", input=1),)).model_dump() == {"tasks": (plain,)}
    limited = Task(id="a", role="b", input=1, limits=Limits(turns=2))
    assert Plan(tasks=(limited,)).model_dump(exclude_defaults=True)["tasks"][0]["limits"] == {"turns": 2}
