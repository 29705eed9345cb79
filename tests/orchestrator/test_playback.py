"""Recorded runs against today's code: the same code never parts from its recording, another one does and says where; nothing is done."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import BaseModel

from agents import Context, Role, ScriptedModel, call, role, say, tool
from orchestrator import Team, reduce
from orchestrator.board import Board
from orchestrator.cli import main
from orchestrator.testing import KillHost, rehearse, replay
from protocols.budget import Limits
from protocols.chat import ModelRequest
from protocols.failures import BadInput, ModelError
from protocols.messages import ModelCalled, Status, ToolCalled
from protocols.plan import Plan, Task, ref

made: list[str] = []
"""What tools really did."""


@tool
async def look(at: str) -> str:
    """Look at something."""
    made.append(f"look {at}")
    return f"{at} is fine"


@tool(effect="write", idempotent=True)
async def change(what: str) -> str:
    """Change something."""
    made.append(f"change {what}")
    return f"changed {what}"


@tool
async def fail(why: str) -> str:
    """Fail."""
    made.append(f"fail {why}")
    raise ValueError(why)


@tool
async def count() -> int:
    """How often anything was done."""
    made.append("count")
    return len(made)


class Note(BaseModel):
    about: str
    text: str


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A journal that holds nothing yet."""
    return str(tmp_path / "journal.db")


# --- the same code ----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "c"])
TURNS = st.one_of(
    st.builds(lambda at: call("look", at=at), WORDS),
    st.builds(lambda what: call("change", what=what), WORDS),
    st.builds(lambda why: call("fail", why=why), WORDS),
    st.just(call("count")),
    st.builds(lambda one, other: [call("look", at=one), call("count"), call("look", at=other)], WORDS, WORDS),
    st.builds(lambda what: [call("look", at=what), call("change", what=what), call("fail", why=what)], WORDS),
    st.just(call("look", wrong=1)),
    st.just(call("no_such_tool")),
    st.builds(lambda to: call("delegate", tasks=[{"role": "helper", "input": to}, {"role": "helper", "input": "x"}]), WORDS),
    st.just(say("cut off", finish="length")),
    st.just(say("")),
)
SCRIPTS = st.lists(st.lists(TURNS, max_size=5), min_size=1, max_size=4)


def faulty(script: list[Any]) -> Callable[[ModelRequest], Any]:
    """A script whose provider fails now and then, in a way that trying again mends."""
    asked = [0]

    def reply(request: ModelRequest) -> Any:
        asked[0] += 1
        if asked[0] % 3 == 0:
            raise ModelError("busy", retryable=True, retry_after=0.0)
        place = sum(message.role == "assistant" for message in request.messages)
        return script[place] if place < len(script) else "done"

    return reply


def scripted(scripts: list[list[Any]]) -> Team:
    workers = [
        Role(
            f"worker{number}",
            instructions="Work.",
            tools=[look, change, fail, count],
            delegates=["helper"],
            model=ScriptedModel(faulty(script), name=f"m{number}"),
        )
        for number, script in enumerate(scripts)
    ]
    helper = Role("helper", instructions="Help.", model=ScriptedModel(lambda request: f"helped {request.messages[-1].content}", name="h"))

    @role
    def join(parts: list[str]) -> str:
        return " ".join(parts)

    tasks = [Task(id=f"t{number}", role=f"worker{number}", input="go") for number in range(len(scripts))]
    plan = Plan(tasks=(*tasks, Task(id="join", role="join", input=[ref(task.id) for task in tasks], tolerant=True)))
    return Team("scripted", [*workers, helper, join], planner=plan)


@examples(max_examples=15, deadline=None)
@given(scripts=SCRIPTS, kill=st.sampled_from([False, False, False, True]))
def test_the_same_code_never_parts_from_its_recording_and_nothing_is_done(
    tmp_path_factory: pytest.TempPathFactory, scripts: list[list[Any]], kill: bool
) -> None:
    store = str(tmp_path_factory.mktemp("played") / "journal.db")
    team = scripted(scripts)
    then = rehearse(team, store=store)
    if kill and any(one.ran and one.call.name != "delegate" for one in then.tool_calls):
        then = rehearse(scripted(scripts), store=store, chaos=[KillHost(1, "recorded")])
    done = list(made)
    found = replay(scripted(scripts), then.result.run_id, store)
    assert [str(one) for one in found.divergences] == []
    assert made == done
    assert found.tool_calls == len([one for one in then.tool_calls if not one.again])
    assert found.tasks == len(then.result.tasks)


def test_tools_that_ask_models_and_delegate_are_answered_and_their_subtasks_replay(store: str) -> None:
    @tool
    async def consult(about: str, context: Context) -> str:
        """Ask around."""
        made.append("consult")
        [ended] = await context.delegate([Task(id=f"{context.task}/asked", role="helper", input=about)])
        return f"{ended.output}, and {await context.ask(f'What of {about}?')}"

    helper = Role("helper", model=ScriptedModel(["help"], name="h"))

    def script(request: ModelRequest) -> Any:
        last = request.messages[-1]
        if last.content.startswith("What of"):
            return "an opinion"
        return last.content if last.role == "tool" else [call("consult", about="it"), call("count")]

    asker = Role("asker", tools=[consult, count], delegates=["helper"], model=ScriptedModel(script))
    plan = Plan(tasks=(Task(id="t", role="asker", input="go"),))
    team = Team("consulting", [asker, helper], planner=plan)
    then = rehearse(team, store=store)
    assert then.result.status is Status.DONE
    done = list(made)
    found = replay(team, then.result.run_id, store)
    assert (found.divergences, found.tasks, made) == ((), 2, done)


def test_a_run_that_was_stopped_is_compared_as_far_as_it_went_and_not_further(store: str) -> None:
    ran: list[str] = []

    @role
    async def later(text: str) -> str:
        ran.append(text)
        return text

    model = ScriptedModel(lambda request: call("look", at=str(len(request.messages))), latency=0.05)
    asker = Role("asker", tools=[look], model=model)
    plan = Plan(tasks=(Task(id="ask", role="asker", input="go"), Task(id="later", role="later", input=ref("ask"))))
    team = Team("stopped", [asker, later], planner=plan)

    async def stopped() -> str:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(team, budget=Limits(seconds=600))
            called = 0
            async for envelope in handle.events():
                called += isinstance(envelope.body, (ModelCalled, ToolCalled))
                if called == 4:
                    await handle.cancel()
                    await handle.result()
                    return handle.run_id
        raise AssertionError

    found = replay(team, asyncio.run(stopped()), store)
    assert (found.divergences, found.unfinished, ran) == ((), 2, [])
    assert found.model_calls >= 2


# --- another code -----------------------------------------------------------------------------------------------------


def reviewers(
    instructions: str = "Review it.",
    tools: Any = (look, change),
    glue: str = "+",
    goal: Callable[[list[str]], list[str]] = lambda files: files,
    post: str = "noted",
    **how: Any,
) -> Team:
    def script(request: ModelRequest) -> Any:
        last = request.messages[-1]
        if last.role == "tool":
            return {"about": request.messages[-3].content, "text": last.content}
        return call("look", at=last.content)

    settings = {"output": Note, "prompt": str, **how}
    reviewer = Role("reviewer", instructions=instructions, tools=list(tools), model=ScriptedModel(script), **settings)

    @role(name="post")
    def posted(note: Note) -> str:
        made.append("post")
        return f"{post} {note.about}"

    def plan(files: list[str]) -> Plan:
        tasks = []
        for name in goal(files):
            tasks += [
                Task(id=f"review/{name}", role="reviewer", input=name),
                Task(id=f"post/{name}", role="post", input=ref(f"review/{name}")),
            ]
        return Plan(tasks=tuple(tasks))

    def joined(parts: list[str]) -> str:
        return glue.join(parts)

    return Team("reviewers", [reviewer, posted], planner=plan, merge=reduce(joined))


@tool(name="look")
async def look_well(at: str) -> str:
    """Look at something closely."""
    return ""


@tool(name="look")
async def look_for(at: Literal["x"]) -> str:
    """Look at something."""
    return ""


@tool(name="look", effect="write")
async def look_and_touch(at: str) -> str:
    """Look at something."""
    return ""


class Longer(BaseModel):
    about: str
    text: str
    more: str = ""


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"instructions": "Review it well."}, "task review/a step 0: the request differs: the system message changed at character 9: "),
        ({"instructions": ""}, "task review/a step 0: the request differs: recorded a system message 'Review it.', now a user message 'a'"),
        ({"prompt": lambda name: f"Look at {name}"}, "the user message changed at character 0: recorded 'a', now 'Look at a'"),
        ({"tools": [look]}, "task review/a step 0: the request differs: tool 'change' is gone"),
        ({"tools": [look, change, count]}, "the request differs: tool 'count' is new"),
        ({"tools": [look_well, change]}, "tool 'look' changed in description at character 17: recorded …'at something.', now …"),
        (
            {"tools": [look_for, change]},
            "tool 'look' changed at parameters.properties.at.const: recorded nothing, now",
        ),
        ({"tools": [look_and_touch, change]}, "task review/a step 1: tool 'look' was declared to read and now to write"),
        ({"max_output_tokens": 9}, "the request differs: max_output_tokens was 512 and is 9"),
        ({"temperature": 0.5}, "the request differs: temperature was 0.0 and is 0.5"),
        ({"output": Longer}, "the request differs: the output type changed at properties.more"),
        ({"limits": Limits(turns=1)}, "task review/a step 2: recorded is a model call more, which today's code does not make"),
        (
            {"examples": [("x", Note(about="x", text="y"))]},
            "the user message changed at character 0: recorded 'a', now 'x'",
        ),
        (
            {"check": lambda asked, note: ["it is too short"]},
            "step 3: today's code asks its model, with 'Your answer does not",
        ),
        ({"glue": "-"}, "task merge/1/0: the output differs: at character 7: recorded 'noted a+noted b', now 'noted a-noted b'"),
        ({"post": "seen"}, ": the output differs: at character 0: recorded 'noted "),  # of whichever of the two ends first
        ({"goal": lambda files: files[:1]}, "task plan/1: the output differs: at tasks: recorded 4 items, now 2"),
        ({"goal": lambda files: [*files, "c"]}, "task plan/1: the output differs: at tasks: recorded 4 items, now 6"),
        ({"goal": lambda files: files[::-1]}, "task plan/1: the output differs: in tasks[0].id at character 7: recorded 'review/a', now"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_change_is_told_where_it_first_shows(store: str, changed: dict[str, Any], sentence: str) -> None:
    then = reviewers().run_sync(["a", "b"], runtime="inline", store=store)
    assert then.status is Status.DONE
    done = [one for one in made if one != "post"]
    found = replay(reviewers(**changed), then.run_id, store)
    assert sentence in str(found.divergences[0])
    assert [one for one in made if one != "post"] == done


def test_a_role_that_does_more_than_compute_can_be_skipped(store: str) -> None:
    then = rehearse(reviewers(), ["a", "b"], store=store)
    done = list(made)
    found = replay(reviewers(post="other"), then.result.run_id, store, skipped=["post"])
    assert (found.divergences, made) == ((), done)
    found = replay(reviewers(instructions="?"), then.result.run_id, store, skipped=["reviewer", "post"])
    assert (found.divergences, made) == ((), done)
    with pytest.raises(BadInput, match="has no role 'nobody'"):
        replay(reviewers(), then.result.run_id, store, skipped=["nobody"])


def test_turns_that_ran_out_run_out_again_and_more_of_them_are_told(store: str) -> None:
    def asking(turns: int) -> Team:
        model = ScriptedModel(lambda request: call("look", at=str(len(request.messages))))
        return Team("asking", [Role("asker", tools=[look], model=model, limits=Limits(turns=turns))])

    then = rehearse(asking(3), "go", store=store)
    assert replay(asking(3), then.result.run_id, store).divergences == ()
    [more, *_] = replay(asking(4), then.result.run_id, store).divergences
    assert "step 6: today's code asks its model, with 'go'; recorded are 3 model calls" in str(more)


def test_a_model_that_only_the_run_was_given_is_found_in_its_code(store: str) -> None:
    def asking(model: str) -> Team:
        return Team("asking", [Role("asker", instructions="Say.", model=model)])

    given = ScriptedModel(["ok"], name="given")
    then = asking("embedded").run_sync("go", runtime="inline", store=store, model=given)
    found = replay(asking("embedded"), then.run_id, store)
    assert found.divergences == ()
    assert found.notes == ("role 'asker' had the model scripted:given and now has embedded; what was recorded was played",)
    bare = rehearse(asking("embedded"), "go", store=store, model=given)  # no code is kept of a rehearsal
    with pytest.raises(BadInput, match="had the model scripted:given in run"):
        replay(asking("embedded"), bare.result.run_id, store)


def test_a_rules_call_that_was_never_made_is_not_made_now(store: str) -> None:
    def steps(to: str) -> Team:
        def plan(text: str) -> list[Any]:
            return [call("look", at="a"), call("change", what=to)]

        worker = Role("worker", tools=[look, change], strategy="sequential", plan=plan, model=ScriptedModel(["so much"]))
        return Team("rules", [worker])

    then = rehearse(steps("a"), "go", store=store)
    done = list(made)
    found = replay(steps("b"), then.result.run_id, store)
    assert "step 1: tool 'change' is called as it never was: in what at character 0: recorded 'a', now 'b'" in str(found.divergences[0])
    assert made == done


TEAM = """
from agents import Role, ScriptedModel
from orchestrator import Team

team = Team("t", [Role("r", instructions="{}", model=ScriptedModel(["ok"]))])
"""


def test_the_command_says_it_in_one_line_and_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "then_team.py").write_text(TEAM.format("Be brief."))
    (tmp_path / "now_team.py").write_text(TEAM.format("Be long."))

    def typed(*arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--store", "j.db"])
        return left.value.code, *capsys.readouterr()

    typed("run", "then_team.py", "--goal", "hi", "--runtime", "inline", "--run-id", "one")
    assert typed("replay", "last")[:2] == (0, "one is the same with today's code: 1 task, 1 model call, 0 tool calls\n")
    exit_code, said, _ = typed("replay", "one", "now_team.py")
    differs = "the system message changed at character 3: recorded 'Be brief.', now 'Be long.'"
    assert (exit_code, said.splitlines()[0]) == (1, f"task r step 0: the request differs: {differs} (entry 4 of one)")
    exit_code, said, _ = typed("replay", "one", "now_team.py", "--json")
    found = json.loads(said)
    assert (exit_code, found["same"], found["divergences"][0]["step"], found["exit_code"]) == (1, False, 0, 1)
    assert typed("runs", "--json")[1].count('"run": "') == 1  # nothing was stored
    exit_code, _, told = typed("replay", "nonesuch")
    assert (exit_code, told.count("\n")) == (2, 1)
