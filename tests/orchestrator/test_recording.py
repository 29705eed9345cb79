"""Runs played again from their journal: the same replies at the same places, counted the same, and nobody called."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import HttpModel, ProviderModel, Role, ScriptedModel, call, role, tool
from agents.models.embedded import EmbeddedModel
from agents.models.recorded import RecordedModel
from orchestrator import RunResult, Team
from orchestrator.cli import main
from orchestrator.code import pack, unpack
from orchestrator.journal import open_journal
from protocols import codec
from protocols.budget import Limits
from protocols.chat import ModelRequest, Price
from protocols.failures import BadInput, ModelError, Verdict
from protocols.messages import ModelCalled, RunRequested, Status
from protocols.plan import Plan, Task
from tests.agents.models.listed import listed
from tests.agents.models.wires import Answer, Fault, Said, Wire


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A journal that holds nothing yet."""
    return str(tmp_path / "journal.db")


@pytest.fixture(params=["openai", "anthropic"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    made = Wire(request.param)
    made.start()
    yield made
    made.stop()


@tool
async def double(n: int) -> int:
    """Double a number."""
    return 2 * n


def doublers(model: Any, count: int = 3) -> Team:
    doubler = Role("doubler", instructions="Double it.", input=int, output=str, tools=[double], model=model)
    plan = Plan(tasks=tuple(Task(id=f"n{number}", role="doubler", input=number) for number in range(count)))
    return Team("doublers", [doubler], planner=plan)


def calls_of(run: str, store: str) -> dict[tuple[str, int, str], list[ModelCalled]]:
    journal = open_journal(store)
    told = [codec.unpack(entry.body) for entry in journal.read(run)]
    journal.close()
    found: dict[tuple[str, int, str], list[ModelCalled]] = {}
    for one in told:
        if isinstance(one, ModelCalled):
            found.setdefault((one.task, one.step, one.request), []).append(one)
    return found


def failure(result: RunResult) -> str:
    [task] = [one for one in result.tasks if one.failure]
    assert task.failure is not None
    assert task.failure.verdict is Verdict.PROVIDER
    return task.failure.message


def test_a_providers_run_is_played_again_without_it(wire: Wire, store: str) -> None:
    def script(body: dict[str, Any]) -> Answer:
        if len(wire.requests) == 2:
            return Fault(500, (("Retry-After", "0"),))
        results = wire.results(body)
        return Said(f"it is {results[0]}") if results else Said(calls=(("double", '{"n": 21}'),), usage=len(wire.requests) > 1)

    wire.script = script
    team = doublers(wire.model(price=Price(input_micros=1_000_000, output_micros=1_000_000)))
    first = team.run_sync(runtime="inline", store=store)
    asked = len(wire.requests)
    second = team.run_sync(runtime="inline", store=store, model=f"recorded:{first.run_id}")
    third = team.run_sync(runtime="inline", store=store, model=f"recorded:{second.run_id}")
    assert first.status is Status.DONE
    assert len(wire.requests) == asked == 7
    for again in (second, third):
        assert (again.output, again.usage, again.status) == (first.output, first.usage, first.status)
        then, now = calls_of(first.run_id, store), calls_of(again.run_id, store)
        assert then.keys() == now.keys()
        for place, calls in then.items():
            assert [(one.model, one.usage, one.reply and one.reply.text) for one in calls] == [
                (one.model, one.usage, one.reply and one.reply.text) for one in now[place]
            ]


def test_the_same_question_at_several_places_gets_each_its_own_reply(runtime: str, store: str) -> None:
    said = iter(range(100))
    asker = Role("asker", input=str, output=str, model=ScriptedModel(lambda request: f"answer {next(said)}"))
    plan = Plan(tasks=tuple(Task(id=f"a{number}", role="asker", input="same") for number in range(5)))
    team = Team("askers", [asker], planner=plan)
    first = team.run_sync(runtime="inline", store=store)
    again = team.run_sync(runtime=runtime, store=store, model=f"recorded:{first.run_id}")
    assert len(set(first.output)) == 5
    assert again.output == first.output


def test_planners_and_merges_are_played_as_well(store: str) -> None:
    def plan(request: ModelRequest) -> dict[str, Any]:
        return {"tasks": [{"id": "w1", "role": "worker", "input": "x"}]}

    planner = Role("chief", instructions="Plan.", output=Plan, model=ScriptedModel(plan, name="chief"))

    @role
    def worker(item: str) -> str:
        return item.upper()

    team = Team("planned", [worker], planner=planner)
    first = team.run_sync("go", runtime="inline", store=store)
    again = team.run_sync("go", runtime="inline", store=store, model=f"recorded:{first.run_id}")
    assert first.status is Status.DONE
    assert (again.status, again.output, again.usage) == (first.status, first.output, first.usage)


def test_what_was_never_asked_ends_the_task_and_says_what_differs(store: str) -> None:
    def script(request: ModelRequest) -> Any:
        return f"it is {request.messages[-1].content}" if request.messages[-1].role == "tool" else call("double", n=2)

    model = ScriptedModel(script)
    first = doublers(model, 1).run_sync(runtime="inline", store=store)
    played = f"recorded:{first.run_id}"

    @tool(name="double")
    async def other(n: int) -> int:
        """Double a number."""
        return 3 * n

    def changed(count: int = 1, tools: Any = (double,), goal: int = 0, instructions: str = "Double it.", **settings: Any) -> str:
        doubler = Role("doubler", instructions=instructions, input=int, output=str, tools=list(tools), model=model, **settings)
        plan = Plan(tasks=tuple(Task(id=f"n{number}", role="doubler", input=goal + number) for number in range(count)))
        return failure(Team("doublers", [doubler], planner=plan).run_sync(runtime="inline", store=store, model=played))

    assert "role 'doubler' asks at step 0 of task 'n0': then it was told '0', and now '7'" in changed(goal=7)
    assert "then it was told 'Double it.'" in changed(instructions="Halve it.")
    assert "no such task" in changed(count=2)
    assert "step 2 of task 'n0'" in changed(tools=[other])
    assert "max_output_tokens" in changed(max_output_tokens=9)


def test_a_fault_that_ended_the_task_ends_it_again(store: str) -> None:
    asker = Role("asker", input=str, output=str, model=ScriptedModel([ModelError("down", charged=True)]), attempts=1)
    team = Team("askers", [asker])
    first = team.run_sync("hi", runtime="inline", store=store)
    again = team.run_sync("hi", runtime="inline", store=store, model=f"recorded:{first.run_id}")
    assert "as it was recorded" in failure(again)
    assert again.usage == first.usage
    assert first.usage.tokens > 0


def test_a_budget_holds_in_a_replay_too(store: str) -> None:
    team = doublers(ScriptedModel(lambda request: "so much"))
    first = team.run_sync(runtime="inline", store=store)
    again = team.run_sync(runtime="inline", store=store, model=f"recorded:{first.run_id}", budget=Limits(model_calls=1))
    assert again.status is Status.BUDGET
    assert again.usage.model_calls == 1


def test_where_the_model_was_reached_makes_no_difference(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire("openai")
    wire.start()
    wire.script = lambda body: Said("ok") if len(wire.requests) > 1 else Fault(500, (("Retry-After", "0"),))
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.address}/v1")
    team = Team("askers", [Role("asker", model=f"openai:{listed('openai').id}")])
    first = team.run_sync("hi", runtime="inline", store=store)
    wire.stop()
    monkeypatch.delenv("OPENAI_BASE_URL")  # its context and price are known by the list now, and it has no key
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    again = team.run_sync("hi", runtime="inline", store=store, model=f"recorded:{first.run_id}")
    assert (again.output, again.usage) == (first.output, first.usage)


def test_a_request_tells_that_its_models_are_recorded(store: str) -> None:
    team = doublers(ScriptedModel(lambda request: "so much"))
    first = team.run_sync(runtime="inline", store=store)
    again = team.run_sync(runtime="inline", store=store, model=f"recorded:{first.run_id}")
    journal = open_journal(store)
    request = codec.unpack(next(journal.read(again.run_id)).body)
    journal.close()
    assert isinstance(request, RunRequested)
    assert request.team.roles["doubler"].model == f"recorded:{first.run_id}"


def test_recorded_models_travel_to_hosts_whatever_they_play() -> None:
    for original in (ScriptedModel([]), EmbeddedModel(), ProviderModel("openai:m"), HttpModel("http://127.0.0.1:1/v1", "m")):
        team = doublers(RecordedModel("run-1", "doubler", original, []))
        model = unpack(pack(team.cast))["doubler"].model
        assert isinstance(model, RecordedModel)
        assert (model.id, model.profile, model.source) == (original.id, original.profile, "recorded:run-1")


def test_runs_that_can_not_be_played_are_refused_in_words(store: str) -> None:
    @role
    def plain(item: str) -> str:
        return item

    team = doublers(ScriptedModel(lambda request: "so much"))
    with pytest.raises(BadInput, match="there is no run 'nonesuch'"):
        team.run_sync(runtime="inline", store=store, model="recorded:nonesuch")
    bare = Team("plain", [plain]).run_sync("x", runtime="inline", store=store)
    with pytest.raises(BadInput, match="asked no model"):
        team.run_sync(runtime="inline", store=store, model=f"recorded:{bare.run_id}")
    first = team.run_sync(runtime="inline", store=store)
    with pytest.raises(BadInput, match="had the model scripted:script"):
        doublers("openai:m").run_sync(runtime="inline", store=store, model=f"recorded:{first.run_id}")


TEAM = """
from agents import Role, ScriptedModel
from orchestrator import Team

team = Team("echo", [Role("echo", instructions="Say it.", model=ScriptedModel(lambda request: "said " + request.messages[-1].content))])
"""


def test_the_command_plays_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "echoing.py").write_text(TEAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    store = ("--store", str(tmp_path / "journal.db"), "--runtime", "inline")

    def typed(*arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as left:
            main([*arguments, *store])
        return left.value.code, *capsys.readouterr()

    code, out, _ = typed("run", "echoing.py", "--goal", "hi")
    assert (code, out.strip()) == (0, "said hi")
    code, out, _ = typed("run", "echoing.py", "--goal", "hi", "--model", "recorded:last")
    assert (code, out.strip()) == (0, "said hi")
    code, _, told = typed("run", "echoing.py", "--goal", "ho", "--model", "recorded:last")
    assert code != 0
    assert "then it was told 'hi', and now 'ho'" in told
    code, _, told = typed("run", "echoing.py", "--goal", "hi", "--model", "recorded:nonesuch")
    assert code == 2
    assert "nonesuch" in told
