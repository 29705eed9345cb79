"""What agents hold and have not used: a limit is reached when it is used up, and not when somebody sits on it."""

import asyncio
from itertools import count
from pathlib import Path

import pytest

from agents import Context, Role, ScriptedModel, call, tool
from orchestrator import Team, collect
from protocols.budget import Limits
from protocols.chat import ModelRequest, Price, ToolCall
from protocols.messages import Status
from protocols.plan import Plan, Task

PRICE = Price(input_micros=1_000_000, output_micros=4_000_000)


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
