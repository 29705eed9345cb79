"""Each way in which an agent goes wrong and its guards end it, on both runtimes: one run in which a scripted agent does each."""

from typing import Any, Literal

from pydantic import BaseModel

from agents import Role, ScriptedModel, call, tool
from orchestrator import Team, only
from orchestrator.journal import open_journal
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.chat import ModelReply, ModelRequest, ToolCall
from protocols.failures import Verdict
from protocols.messages import Status
from protocols.plan import Plan, Task


@tool
async def look(place: str, most: int = 3, kind: Literal["street", "house"] = "house") -> str:
    """Look for a place."""
    return "nothing found"


@tool
async def page(number: int) -> str:
    """Read a page."""
    return f"page {number}"


@tool(repeatable=True)
async def poll(job: int) -> str:
    """Ask how a job is doing."""
    return "still waiting"


class Sum(BaseModel):
    total: int


def turn(request: ModelRequest) -> int:
    """How many replies the model has given."""
    return sum(one.role == "assistant" for one in request.messages)


def spelled(request: ModelRequest) -> Any:
    return call("look", place=["King Street", "king  street", " 'KING STREET'"][turn(request) % 3])


def in_turn(request: ModelRequest) -> Any:
    return call("look", place=f"{turn(request) % 2}")


def musing(request: ModelRequest) -> Any:
    asked = ToolCall(id=f"c{turn(request)}", name="look", arguments={"place": f"{turn(request)}"})
    return ModelReply(text="I wonder.", tool_calls=(asked,))


SCRIPTS: dict[str, tuple[Verdict, Any]] = {
    "same": (Verdict.LOOP, lambda r: call("look", place="here")),
    "spelled": (Verdict.LOOP, spelled),
    "in-turn": (Verdict.LOOP, in_turn),
    "musing": (Verdict.LOOP, musing),
    "no-news": (Verdict.LOOP, lambda r: call("look", place=f"place {turn(r)}")),
    "polling": (Verdict.LOOP, lambda r: call("poll", job=1)),
    "unknown": (Verdict.HALLUCINATED_TOOL, lambda r: call("find", place="here")),
    "written": (Verdict.HALLUCINATED_TOOL, lambda r: '<tool_call>{"name": "look", "arguments": {"place": "here"}}</tool_call>'),
    "missing": (Verdict.BAD_ARGUMENTS, lambda r: call("look")),
    "extra": (Verdict.BAD_ARGUMENTS, lambda r: call("look", place="here", colour="red")),
    "wrong-type": (Verdict.BAD_ARGUMENTS, lambda r: call("look", place="here", most="3")),
    "wrong-enum": (Verdict.BAD_ARGUMENTS, lambda r: call("look", place="here", kind="tower")),
    "no-json": (Verdict.BAD_ARGUMENTS, lambda r: call("look").model_copy(update={"arguments": '{"place": "he'})),
    "endless": (Verdict.TURNS, lambda r: call("page", number=turn(r))),
    "talkative": (Verdict.SCHEMA, lambda r: "I would say three."),
}


def agent(name: str) -> Role:
    settings: dict[str, Any] = {"output": Sum} if name == "talkative" else {}
    return Role(name, "Do your best.", tools=[look, page, poll], model=ScriptedModel(SCRIPTS[name][1], name=name), **settings)


def hands_on(role: str, *, insists: bool) -> ScriptedModel:
    """Hands its task on as it is: again and again, or until it has heard what became of that."""

    def script(request: ModelRequest) -> Any:
        heard = [one.content for one in request.messages if one.role == "tool"]
        return heard[0] if heard and not insists else call("delegate", tasks=[{"role": role, "input": "the whole goal"}])

    return ScriptedModel(script, name=role)


LEFT = Role("left", delegates=["right"], model=hands_on("right", insists=False))
RIGHT = Role("right", delegates=["left"], model=hands_on("left", insists=True))


def test_each_failure_mode_ends_in_its_own_verdict_within_default_limits(runtime: str, store: str) -> None:
    roles = [agent(name) for name in SCRIPTS]
    tasks = [Task(id=name, role=name, input="go") for name in SCRIPTS]
    short = Role("short", tools=[page], limits=Limits(tool_calls=3), model=ScriptedModel(SCRIPTS["endless"][1], name="short"))
    slow = Role("slow", limits=Limits(seconds=0.2), model=ScriptedModel(["late"], name="slow", latency=30.0))
    tasks += [Task(id="short", role="short", input="go"), Task(id="slow", role="slow", input="go")]
    team = Team("modes", [*roles, short, slow], planner=Plan(tasks=tuple(tasks)))
    result = team.run_sync(runtime=runtime, store=store)
    wanted = {name: verdict for name, (verdict, _) in SCRIPTS.items()} | {"short": Verdict.BUDGET, "slow": Verdict.DEADLINE}
    assert {task.task: task.failure.verdict for task in result.tasks if task.failure is not None} == wanted
    assert result.status is Status.FAILED
    assert max(task.usage.turns for task in result.tasks) == 40


def test_agents_that_hand_their_work_to_each_other_are_told_and_then_stopped(runtime: str, store: str) -> None:
    plan = Plan(tasks=(Task(id="t", role="left", input="the whole goal"),))
    result = Team("hands", [LEFT, RIGHT], planner=plan, merge=only()).run_sync(runtime=runtime, store=store)
    assert "role 'left' was given this very input in 't', which waits for it" in result.output
    said = [codec.unpack(entry.body) for entry in open_journal(store).read(result.run_id)]
    told = [one for one in said if isinstance(one, m.ToolCalled) and one.task == "t/1.0"]
    assert [one.failure.verdict for one in told if one.failure is not None] == [Verdict.TOOL_ERROR, Verdict.PING_PONG]
    (ended,) = [one for one in said if isinstance(one, m.TaskEnded) and one.task == "t/1.0"]
    assert ended.failure is not None
    assert (ended.failure.verdict, ended.failure.evidence) == (Verdict.PING_PONG, ("t",))
