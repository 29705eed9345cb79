"""What agents hold and have not used: a limit is reached when it is used up, and not when somebody sits on it."""

import asyncio
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from agents import Context, Role, ScriptedModel, call, tool
from orchestrator import Board, RunResult, Team, collect, open_journal
from orchestrator.assignment import assignment
from protocols import codec
from protocols import messages as m
from protocols.budget import NOTHING, Limits, Usage
from protocols.chat import ModelRequest, Price, ToolCall
from protocols.failures import Failure, ModelError, Verdict
from protocols.messages import Dispatch, Status
from protocols.plan import Plan, Task
from protocols.team import FallbackSpec, RoleSpec, Strategy, TeamSpec
from tests.orchestrator.simulation import Simulation, fan, request

PRICE = Price(input_micros=1_000_000, output_micros=4_000_000)
CALL = Usage(input_tokens=20, model_calls=1)


@tool
async def look(n: int) -> str:
    """Look at something."""
    return f"saw {n * 31}"


@pytest.mark.parametrize(("agents", "limit"), [(1, Limits(micros=16_000)), (8, Limits(micros=16_000)), (4, Limits(tokens=9_000))])
def test_a_limit_is_used_up_though_calls_cost_less_than_they_could(tmp_path: Path, agents: int, limit: Limits) -> None:
    numbers = count()

    def reply(request: ModelRequest) -> ToolCall:
        return call("look", n=next(numbers))

    greedy = Role("greedy", tools=[look], model=ScriptedModel(reply, price=PRICE), max_output_tokens=50, limits=Limits())
    plan = Plan(tasks=tuple(Task(id=f"g{number}", role="greedy", input="go") for number in range(agents)))
    team = Team("greedy", [greedy], planner=plan, merge=collect(), budget=limit)
    result = team.run_sync(runtime="inline", store=str(tmp_path / "journal.db"))
    assert result.status is Status.BUDGET
    for name in ("micros", "tokens"):
        most = getattr(limit, name)
        if most is not None:
            assert 0.9 * most < getattr(result.usage, name) <= most


def test_calls_that_an_agent_makes_at_once_share_its_lease(tmp_path: Path) -> None:
    async def asker(text: str, context: Context) -> int:
        asked = (context.ask(f"{text} {number}", str) for number in range(50))
        return sum(isinstance(one, str) for one in await asyncio.gather(*asked, return_exceptions=True))

    many = Role("many", output=int, run=asker, model=ScriptedModel(lambda request: "yes"))
    result = Team("many", [many], budget=Limits(model_calls=10)).run_sync("go", runtime="inline", store=str(tmp_path / "journal.db"))
    assert (result.output, result.usage.model_calls) == (10, 10)


@pytest.mark.parametrize("limits", [{"model_calls": 6}, {"micros": 9_000}, {"tokens": 3_000}])
def test_the_limits_of_a_role_hold_over_all_attempts(tmp_path: Path, limits: dict[str, int]) -> None:
    down = ScriptedModel(lambda request: ModelError("down", retryable=True, retry_after=0.0), price=PRICE)
    role = Role("worker", model=down, attempts=3, limits=Limits(**limits))
    result = Team("team", [role]).run_sync("go", runtime="inline", store=str(tmp_path / "journal.db"))
    (task,) = result.tasks
    assert task.failure is not None
    assert task.failure.verdict is Verdict.BUDGET
    assert 4 < result.usage.model_calls <= 6
    for name, most in limits.items():
        assert getattr(result.usage, name) <= most


def test_a_task_is_told_what_it_has_used_and_a_role_that_takes_over_begins_anew() -> None:
    cheap = FallbackSpec(verdicts=(Verdict.PROVIDER,), role="cheap")
    roles = {
        "worker": RoleSpec(name="worker", strategy=Strategy.REACT, fallbacks=(cheap,)),
        "cheap": RoleSpec(name="cheap", strategy=Strategy.REACT),
    }
    sim = Simulation(request(fan(1), TeamSpec(name="team", roles=roles), Limits(model_calls=100)))

    def told() -> tuple[Usage, int]:
        sim.dispatch()
        there = sim.state.tasks["t0"]
        assign = assignment(sim.state, Dispatch(task="t0", attempt=there.attempt, host="h1"), ())
        return assign.spent, assign.worked

    def called(began: int, ended: int) -> None:
        attempt = sim.state.tasks["t0"].attempt
        sim.say(m.ModelCalled(task="t0", attempt=attempt, step=0, model="m", request="r", usage=CALL, began=began, ended=ended))

    assert told() == (NOTHING, 0)
    sim.say(m.LeaseAsked(task="t0", attempt=1, ask=1, need=CALL))
    called(1_000, 3_000)
    called(2_000, 4_000)
    sim.say(m.AttemptsLost(host="h1", tasks=(("t0", 1),)))
    assert told() == (Usage(input_tokens=3 * 20, model_calls=3), 3_000)  # two that were told of, and one that may have been under way
    sim.finish("t0", failure=Failure(verdict=Verdict.PROVIDER, message="down"))
    assert sim.state.tasks["t0"].task.role == "cheap"
    assert told() == (NOTHING, 0)


def test_a_limit_that_was_raised_while_nobody_worked_on_a_run_holds_from_its_next_call(tmp_path: Path) -> None:
    store, there = str(tmp_path / "journal.db"), asyncio.Event()

    async def asker(text: str, context: Context) -> int:
        for number in range(20):
            await context.ask(f"{text} {number}")
            if number == 9 and context.attempt == 1:
                there.set()
                await asyncio.sleep(60)
        return 20

    many = Role("many", output=int, run=asker, model=ScriptedModel(lambda request: "yes"))

    async def begun() -> None:
        async with Board(runtime="inline", store=store) as board:
            await board.start(Team("many", [many], budget=Limits(model_calls=10)), "go", run_id="mine")
            await there.wait()

    async def resumed() -> RunResult:
        async with Board(runtime="inline", store=store) as board:
            return await (await board.resume("mine")).result()

    asyncio.run(begun())
    with closing(open_journal(store)) as journal:
        journal.post("mine", codec.pack(m.BudgetChanged(budget=Limits(model_calls=30))))
    result = asyncio.run(resumed())
    assert (result.status, result.output, result.usage.model_calls) == (Status.DONE, 20, 20)
    with closing(open_journal(store)) as journal:
        assert journal.posts(["mine"]) == []


def test_the_reserve_is_for_declared_fallbacks_before_it_is_for_agents_that_conclude_of_themselves(tmp_path: Path) -> None:
    numbers = count()
    model = ScriptedModel(lambda request: call("look", n=next(numbers)) if request.tools else "so far")
    greedy = Role("greedy", tools=[look], model=model, limits=Limits())
    cheap = Role("cheap", model=ScriptedModel(lambda request: "cheap"))
    asker = Role("asker", tools=[look], model=model, limits=Limits(), fallback={"budget": cheap})
    names = ["greedy"] * 12 + ["asker"] * 3
    plan = Plan(tasks=tuple(Task(id=f"{name}/{at}", role=name, input="go") for at, name in enumerate(names)))
    team = Team("both", [greedy, asker, cheap], planner=plan, merge=collect(), budget=Limits(model_calls=60), reserve=Limits(model_calls=3))
    result = team.run_sync(runtime="inline", store=str(tmp_path / "journal.db"))
    assert [one.role for one in result.tasks if one.status == "done"] == ["cheap"] * 3
    assert result.usage.model_calls <= 60
