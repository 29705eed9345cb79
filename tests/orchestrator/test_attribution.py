"""Who is to blame: judges name a step that somebody took, with a confidence; the same for annotated failures and for our own journals."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import Role, ScriptedModel, call, tool
from orchestrator import Team
from orchestrator.attribution.asking import Asking
from orchestrator.attribution.case import cases
from orchestrator.attribution.heuristic import ALONE, WEIGHTS, Heuristic
from orchestrator.attribution.signals import SIGNALS
from orchestrator.attribution.trajectory import Actor, Attribution, Cause, Judge, Step, Trajectory
from orchestrator.cli import main
from protocols.budget import Limits
from protocols.chat import Price, ToolCall
from protocols.failures import BadInput, Failed, Verdict
from protocols.plan import Plan, Task, ref
from tests.orchestrator.annotated import WHERE, annotated
from tests.orchestrator.attribution_accuracy import judged, same

STORY = Trajectory(
    goal="how many people live there?",
    steps=(
        Step(who="planner", actor=Actor.AGENT, text="First find the number, then check it."),
        Step(who="finder", actor=Actor.AGENT, text="I look it up.", calls=(ToolCall(id="1", name="search", arguments={"q": "people"}),)),
        Step(who="search", actor=Actor.TOOL, text="nothing found"),
        Step(
            who="finder", actor=Actor.AGENT, text="Let's assume simulated sample data: 12,345 in 2020, 12,400 in 2021 and 12,500 in 2022."
        ),
        Step(who="checker", actor=Actor.AGENT, text="That is right."),
    ),
    failure="the answer is wrong",
)


def asked(judge: Judge, trajectory: Trajectory) -> Attribution:
    return asyncio.run(judge.judge(trajectory))


def test_the_heuristic_points_at_made_up_numbers_and_says_why() -> None:
    found = asked(Heuristic(), STORY)
    assert (found.who, found.step) == ("finder", 3)
    assert found.because == "it works with assumed or made-up data and it brings numbers that nothing before it has"


steps = st.builds(
    Step,
    who=st.sampled_from(["a", "b", "c"]),
    actor=st.sampled_from(Actor),
    text=st.text("x1 \nü?", max_size=30),
    calls=st.lists(st.builds(ToolCall, id=st.just(""), name=st.just("look"), arguments=st.just("{")), max_size=1).map(tuple),
    failed=st.booleans(),
)


@given(st.lists(steps, max_size=12))
def test_the_heuristic_always_names_a_step_that_somebody_took_and_says_the_same_again(told: list[Step]) -> None:
    trajectory = Trajectory(steps=tuple(told))
    if all(step.actor is Actor.TOOL for step in told):
        with pytest.raises(BadInput, match="nobody took a step"):
            asked(Heuristic(), trajectory)
        return
    found = asked(Heuristic(), trajectory)
    assert told[found.step].actor is not Actor.TOOL
    assert told[found.step].who == found.who
    assert 0 < found.confidence <= 1
    assert found == asked(Heuristic(), trajectory)
    if len({step.who for step in told if step.actor is not Actor.TOOL}) == 1:
        assert found.confidence <= ALONE


def test_a_recorded_verdict_goes_before_a_guess_and_nobody_is_blamed_for_being_alone() -> None:
    acts = Step(who="pay/1", actor=Actor.AGENT, calls=(ToolCall(id="1", name="pay", arguments={}),))
    late = Step(who="pay", actor=Actor.TOOL, failed=True, verdict=Verdict.TOOL_ERROR, text="it took longer than 1 s")
    later = Step(who="pay/1", actor=Actor.AGENT, text="I give up.")
    found = asked(Heuristic(), Trajectory(steps=(acts, late, later), task="pay/1", verdict=Verdict.TOOL_ERROR))
    assert (found.step, found.cause) == (0, Cause.SYSTEM)
    assert found.confidence <= ALONE
    assert found.because == "what it called there (pay) failed, and the task is recorded as tool_error"
    unread = late.model_copy(update={"verdict": Verdict.BAD_ARGUMENTS})
    wrong = asked(Heuristic(), Trajectory(steps=(acts, unread), task="pay/1", verdict=Verdict.BAD_ARGUMENTS))
    assert wrong.cause is Cause.INVOCATION


def test_every_signal_has_a_weight() -> None:
    assert set(WEIGHTS) == set(SIGNALS)


def opinion(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "cause": Cause.INVENTION.value, "confidence": 0.8, "because": "it made the numbers up"} | more


def test_a_model_is_held_to_steps_that_somebody_took_and_its_calls_are_counted() -> None:
    seen: list[str] = []

    def script(request: Any) -> Any:
        seen.append(request.messages[-1].content)
        return opinion(2) if len(seen) == 1 else opinion(3)

    judge = Asking(ScriptedModel(script, price=Price(input_micros=1_000_000, output_micros=1_000_000)))
    found = asked(judge, STORY)
    assert found == Attribution(who="finder", step=3, cause=Cause.INVENTION, confidence=0.8, because="it made the numbers up")
    assert "[3] finder (agent): Let's assume" in seen[0]
    assert "step 2 is no step of an agent; theirs are 0, 1, 3, 4" in seen[1]
    assert judge.usage.model_calls == 2
    assert judge.usage.micros > 0


def test_a_judge_keeps_to_its_limits() -> None:
    judge = Asking(ScriptedModel(lambda request: opinion(3)), Limits(model_calls=1))
    asked(judge, STORY)
    with pytest.raises(Failed) as refused:
        asked(judge, STORY)
    assert refused.value.failure.verdict is Verdict.BUDGET


@tool
def weigh(thing: str) -> str:
    """Its weight in kilograms."""
    return f"no reading of {thing}"


def total(parts: list[str]) -> str:
    return str(sum(float(part) for part in parts))


def guess(request: Any) -> Any:
    if any(message.role == "tool" for message in request.messages):
        return "There is no reading; let's assume a typical 1,200 kg, from 1,100 to 1,350, as of 2024."
    return call("weigh", thing="car")


witness = ScriptedModel(lambda request: opinion(0), name="witness")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A run in which a task fails over what the one before it made up: its journal and its id."""
    store = str(tmp_path_factory.mktemp("broken") / "journal.db")
    weigher = Role("weigher", instructions="Weigh it.", input=str, output=str, tools=[weigh], model=ScriptedModel(guess))
    adder = Role("adder", input=list[str], output=str, run=total, attempts=1)
    plan = Plan(
        tasks=(
            Task(id="weigh", role="weigher", input="car"),
            Task(id="add", role="adder", input=[ref("weigh")]),
            Task(id="again", role="adder", input=[ref("add")]),
        )
    )
    result = Team("scales", [weigher, adder], planner=plan).run_sync(runtime="inline", store=store)
    return store, result.run_id


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["failures", *words])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_the_command_finds_the_task_that_led_to_a_failure(broken: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    store, run = broken
    code, out, err = typed(capsys, run, "--store", store)
    assert code == 0
    (line,) = [line for line in out.splitlines() if "likely cause" in line]
    assert line.startswith("  likely cause: task weigh (role weigher), step 2 (entry ")
    assert "because it works with assumed or made-up data" in line
    assert f"callboard trace {run} --task add" in err
    add, again = json.loads(typed(capsys, "last", "--store", store, "--json")[1])["failures"]
    assert (add["task"], add["verdict"], add["severity"]) == ("add", "code_error", "error")
    assert (add["likely_cause"]["task"], add["likely_cause"]["step"]) == ("weigh", 2)
    assert (again["verdict"], again["likely_cause"]) == ("dependency", None)


def test_a_case_has_the_steps_of_the_task_and_of_those_whose_work_went_into_it(everything: Any) -> None:
    found = cases(everything.journal, everything.run, ["file:c", "read:b"])
    assert {step.who for step in found["file:c"].steps if step.actor is Actor.AGENT} == {"read:a", "read:a/1", "file:c"}
    assert {step.who for step in found["read:b"].steps if step.actor is Actor.AGENT} == {"read:b"}
    assert found["file:c"].failure == "ValueError: no licence file"
    assert found["file:c"].goal == "audit everything"
    entries = {entry.seq: entry.tag for entry in everything.journal.read(everything.run)}
    assert {entries[step.entry] for step in found["file:c"].steps} == {"ModelCalled", "ToolCalled", "SubtasksAsked", "TaskEnded"}


def test_the_command_asks_a_model_where_it_is_told_to(broken: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    store, run = broken
    code, out, err = typed(capsys, run, "--store", store, "--json", "--judge", f"python:{__name__}:witness")
    assert code == 0
    assert "judged by scripted:witness: 1 model call" in err
    cause = json.loads(out)["failures"][0]["likely_cause"]
    assert (cause["task"], cause["step"], cause["kind"], cause["confidence"]) == ("weigh", 0, "invention of new information", 0.8)
    code, _, err = typed(capsys, "--judge", "embedded")
    assert code == 2
    assert "name it" in err


def test_most_annotated_failures_are_traced_to_the_right_agent() -> None:
    data = annotated()
    if not data:
        pytest.skip(f"no annotated failures in {WHERE}")
    found = judged(data, WEIGHTS)
    assert sum(same(said.who, one.who) for said, one in zip(found, data, strict=True)) > 0.6 * len(data)
    assert sum(said.step == one.step for said, one in zip(found, data, strict=True)) > 0.3 * len(data)
