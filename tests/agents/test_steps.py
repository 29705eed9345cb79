import asyncio
import subprocess
import sys

import pytest

import agents
from agents import Role, ScriptedModel, call, role, steps, tool
from protocols.budget import Limits
from protocols.chat import Profile
from protocols.failures import BadInput, Verdict
from protocols.messages import Message, TaskEnded


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def all_steps(*given: object, **settings: object) -> list[Message]:
    async def main() -> list[Message]:
        return [one async for one in steps(*given, **settings)]  # type: ignore[arg-type]

    return asyncio.run(main())


def test_each_message_is_yielded_and_at_last_the_end() -> None:
    told = all_steps(Role("a", tools=[add], model=ScriptedModel([call("add", a=1, b=2), "3"])), "go")
    assert [type(one).__name__ for one in told] == ["ModelCalled", "ToolCalled", "ModelCalled", "TaskEnded"]
    end = told[-1]
    assert isinstance(end, TaskEnded)
    assert end.output is not None
    assert end.output.inline == "3"
    assert (end.usage.model_calls, end.usage.tool_calls, end.usage.turns) == (2, 1, 2)


def test_messages_come_while_the_agent_works() -> None:
    async def main() -> str:
        async for one in steps(Role("a", tools=[add]), "go", ScriptedModel([call("add", a=1, b=2), "3"], latency=0.05)):
            return type(one).__name__
        return ""

    assert asyncio.run(main()) == "ModelCalled"


def test_failures_are_in_the_end_and_limits_hold() -> None:
    @role
    def broken(text: str) -> str:
        raise RuntimeError("no")

    (end,) = all_steps(broken, "x")
    assert isinstance(end, TaskEnded)
    assert end.failure is not None
    assert end.failure.verdict is Verdict.CODE_ERROR
    limited = all_steps(Role("a"), "go", ScriptedModel(["x"]), limits=Limits(model_calls=0))[-1]
    assert isinstance(limited, TaskEnded)
    assert limited.failure is not None
    assert limited.failure.verdict is Verdict.BUDGET


def test_a_model_that_cannot_play_the_role_is_refused_at_once() -> None:
    with pytest.raises(BadInput, match="free text"):
        all_steps(Role("a"), "go", ScriptedModel(["x"], profile=Profile(can=frozenset())))
    with pytest.raises(BadInput, match="needs a model"):
        all_steps(Role("a"), "go")
    with pytest.raises(BadInput, match="no model 'nobody:x'"):
        all_steps(Role("a", model="nobody:x"), "go")


def test_partial_text_is_heard_as_it_comes() -> None:
    heard: list[str] = []

    async def main() -> None:
        desk = agents.LocalDesk(on_text=heard.append)
        from agents.loop import work

        await work(Role("a"), "go", desk, ScriptedModel(["hello"]))

    asyncio.run(main())
    assert heard == ["hello"]


def test_importing_agents_is_quick_and_brings_neither_ray_nor_http() -> None:
    code = (
        "import pydantic, time; pydantic.BaseModel, pydantic.TypeAdapter; t = time.process_time(); import agents; "
        "took = time.process_time() - t; import sys; "
        "assert not {'ray', 'aiohttp', 'orchestrator'} & set(sys.modules), 'too much'; print(took)"
    )
    taken = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert taken < 1.0
    assert agents.HttpModel.__name__ == "HttpModel"
    assert all(hasattr(agents, name) for name in agents.__all__)
