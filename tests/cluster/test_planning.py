"""Planners, delegation and pools, on both runtimes."""

from typing import Any

import pytest

from agents import Context, Role, ScriptedModel, call, role
from orchestrator import Team, only
from orchestrator.planner import check
from protocols.budget import Limits
from protocols.chat import ModelRequest
from protocols.failures import BadInput, Verdict
from protocols.messages import Status
from protocols.plan import Plan, Task, ref
from protocols.team import Resources
from tests.cluster.cast import counter, doubler, worker


def planner(*replies: Any) -> Role:
    return Role("chief", instructions="Plan.", input=str, output=Plan, model=ScriptedModel(list(replies), name="chief"))


GOOD = {"tasks": [{"id": "a", "role": "doubler", "input": 4}, {"id": "b", "role": "doubler", "input": {"$from": "a"}}]}
BAD = {"tasks": [{"id": "a", "role": "dubler", "input": 4}]}


def test_a_model_plans_and_what_it_got_wrong_is_sent_back_to_it(runtime: str, store: str) -> None:
    heard: list[str] = []

    def reply(request: ModelRequest) -> Any:
        heard.append(request.messages[-1].content)
        return BAD if len(request.messages) < 4 else GOOD

    chief = Role("chief", instructions="Plan.", input=str, output=Plan, model=ScriptedModel(reply, name="chief"))
    result = Team("planned", [doubler], planner=chief, merge=only()).run_sync("quadruple 4", runtime=runtime, store=store)
    assert result.output == 16
    assert result.usage.model_calls == 2
    if runtime == "inline":
        assert "did you mean 'doubler'" in heard[-1]


def test_a_model_that_never_plans_well_ends_the_run_with_a_verdict(runtime: str, store: str) -> None:
    result = Team("planned", [doubler], planner=planner(*[BAD] * 9)).run_sync("x", runtime=runtime, store=store)
    assert result.status is Status.FAILED
    assert result.failure is not None
    assert result.failure.verdict is Verdict.SCHEMA


def test_a_planner_function_that_can_plan_anew_is_asked_once_after_a_failure(runtime: str, store: str) -> None:
    def plan(goal: str, failures: Any) -> Plan:
        name = "again" if failures else "first"
        return Plan(tasks=(Task(id=name, role="worker", input={"name": name, "fail": not failures}),))

    result = Team("anew", [worker], planner=plan).run_sync("x", runtime=runtime, store=store)
    assert result.status is Status.DONE
    assert [done.name for done in result.output] == ["again"]


def test_an_output_that_can_not_be_an_input_is_refused_before_anything_runs() -> None:
    plan = Plan(tasks=(Task(id="a", role="doubler", input=1), Task(id="b", role="worker", input=ref("a"))))
    with pytest.raises(BadInput, match="takes the output of 'a', but it is integer where object is wanted"):
        Team("misfit", [doubler, worker], planner=plan)
    fits = Plan(tasks=(Task(id="a", role="worker", input={}), Task(id="n", role="counter", input=[ref("a")])))
    assert check(fits, {"worker": worker, "counter": counter}, 10) == []


@role(delegates=["doubler"])
async def boss(numbers: list[int], context: Context) -> list[int]:
    tasks = [Task(id=f"{context.task}/{number}", role="doubler", input=number) for number in numbers]
    return [outcome.output for outcome in await context.delegate(tasks)]


def test_an_agent_delegates_and_gets_the_outcomes_in_order(runtime: str, store: str) -> None:
    plan = Plan(tasks=(Task(id="boss", role="boss", input=[3, 1, 2]),))
    result = Team("delegating", [boss, doubler], planner=plan, merge=only()).run_sync(runtime=runtime, store=store)
    assert result.output == [6, 2, 4]
    assert {task.task for task in result.tasks} == {"boss", "boss/3", "boss/1", "boss/2"}


def test_a_model_delegates_through_a_tool_within_its_own_budget(runtime: str, store: str) -> None:
    def reply(request: ModelRequest) -> Any:
        last = request.messages[-1]
        if last.role == "tool":
            return "done" if "84" in last.content else f"odd: {last.content}"
        return call("delegate", tasks=[{"role": "doubler", "input": 42}])

    lead = Role(
        "lead", instructions="Lead.", output=str, strategy="react", model=ScriptedModel(reply, name="lead"), delegates=["doubler"],
        limits=Limits(turns=4, model_calls=4, seconds=30),
    )  # fmt: skip
    plan = Plan(tasks=(Task(id="lead", role="lead", input="go"),))
    result = Team("leading", [lead, doubler], planner=plan, merge=only()).run_sync(runtime=runtime, store=store)
    assert result.output == "done"


def test_roles_with_resources_get_hosts_of_their_own(cluster: None, store: str) -> None:
    heavy = Role("heavy", input=int, output=str, run=who, resources=Resources(num_cpus=1))
    light = Role("light", input=int, output=str, run=who)
    plan = Plan(tasks=(Task(id="h", role="heavy", input=1), Task(id="l", role="light", input=1)))
    result = Team("mixed", [heavy, light], planner=plan).run_sync(store=store)
    assert result.status is Status.DONE
    assert "callboard-host-pool-" in result.output[0]
    assert "callboard-host-shared#" in result.output[1]


def who(number: int) -> str:
    import ray

    return str(ray.get_runtime_context().get_actor_name())


def test_resources_that_the_cluster_lacks_are_refused_in_words(cluster: None, store: str) -> None:
    heavy = Role("heavy", input=int, output=str, run=who, resources=Resources(num_gpus=8))
    with pytest.raises(BadInput, match="asks for 8 GPU and this Ray has 0"):
        Team("mixed", [heavy]).run_sync(1, store=store)
