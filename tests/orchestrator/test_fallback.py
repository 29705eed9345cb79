"""Fallbacks: who takes over, that it can always be paid, and what becomes of it in restarts, reports and replays."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agents import Context, Role, ScriptedModel, call, role, tool
from agents.fallback import Conclude, Fixed, Handover, Person
from orchestrator import Board, Merge, RunResult, Team, open_journal, reduce, reducer, synthesise
from orchestrator.fallback import answered
from orchestrator.merge import Part
from orchestrator.observe.history import History, summarize
from orchestrator.observe.meter import Meter
from orchestrator.observe.reviews import reviews
from orchestrator.observe.summary import State
from orchestrator.playback import play
from orchestrator.reducer.state import STEPS_A_ROLE, Phase
from orchestrator.testing import ManualClock, rehearse
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.chat import Finish, ModelReply, ModelRequest
from protocols.failures import BadInput, Verdict
from protocols.plan import Plan, Task, ref
from protocols.team import FallbackSpec, RoleSpec, Strategy, TeamSpec
from tests.orchestrator.simulation import fan, fetch, random_run, request


class Letter(BaseModel):
    text: str


class Reading(BaseModel):
    total: int
    by: str = "agent"


@role
def count(letter: Letter) -> Reading:
    """Count the words."""
    return Reading(total=len(letter.text.split()), by="count")


@role
def explain(asked: Handover[Letter]) -> Reading:
    """Say why it was asked."""
    return Reading(total=len(asked.input.text), by=asked.failure.verdict)


def reader(*replies: Any, **settings: Any) -> Role:
    settings = {
        "name": "reader",
        "instructions": "Read.",
        "input": Letter,
        "output": Reading,
        "model": ScriptedModel([*replies, "no", "no", "no"]),
        **settings,
    }
    return Role(**settings)


def run(team: Team, store: str, goal: Any = None) -> RunResult:
    return team.run_sync(goal, runtime="inline", store=store)


# --- the reducer ------------------------------------------------------------------------------------------------------


def falling(**limits: int) -> m.RunRequested:
    """Six tasks of a worker, one that takes them all, and fallbacks of every kind, two of them behind each other."""
    to = (
        FallbackSpec(verdicts=(Verdict.PROVIDER,), role="cheap"),
        FallbackSpec(verdicts=(Verdict.INFRASTRUCTURE,), kind="person", question="how many?"),
        FallbackSpec(verdicts=(Verdict.BUDGET,), kind="conclude"),
        FallbackSpec(role="cheap"),
    )
    last = FallbackSpec(verdicts=(Verdict.PROVIDER,), kind="answer", answer=7)
    roles = {
        "worker": RoleSpec(name="worker", strategy=Strategy.REACT, fallbacks=to),
        "cheap": RoleSpec(name="cheap", strategy=Strategy.REACT, attempts=1, told=True, fallbacks=(last,)),
    }
    plan = Plan(tasks=(*fan(6).tasks, Task(id="all", role="worker", input=[ref(f"t{n}") for n in range(6)], tolerant=True)))
    budget = {"budget": Limits(model_calls=limits["model_calls"])} if limits else {}
    asked = request(plan, TeamSpec(name="team", roles=roles), **budget)
    return asked.model_copy(update={"reserve": Limits(model_calls=limits["reserve"])}) if limits else asked


@given(seed=st.integers(0, 10**9), calls=st.integers(1, 30), kept=st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_random_runs_with_fallbacks_end_within_their_limits_and_replay(seed: int, calls: int, kept: int) -> None:
    sim = random_run(seed, falling(model_calls=calls, reserve=min(kept, calls)), trouble=0.5)
    state, history, meter = reducer.begin("run-1", 0, sim.asked), History("run-1"), Meter()
    due = list[m.Message]()
    outside = 0
    for entry in sim.entries:
        if due:
            assert entry.body == due.pop(0)
        meter.hear(state, entry.body)
        if isinstance(entry.body, m.LeaseGranted) and not state.spares(entry.body.task):
            account = state.ledger.accounts[""]
            outside = max(outside, account.settled[2] + account.reserved[2] + entry.body.lease.model_calls)
        state, follows = reducer.step(state, entry, fetch)
        due = [*follows, *due]
        history.add(entry.body, entry.at, entry.seq)
        there = {name for name, one in state.tasks.items() if one.phase is Phase.IN_REVIEW}
        if not due:
            assert {one.task for one in history.tasks() if one.state is State.IN_REVIEW} == there
            assert len(there) == state.in_review
    assert dataclasses.asdict(state) == dataclasses.asdict(sim.state)
    assert outside <= calls - min(kept, calls)
    assert not state.open
    told = {one.task: one for one in history.tasks()}
    meter.commit()
    counted = {labels: number for (metric, labels, _), number in meter.take().items() if metric.name == "callboard_tasks"}
    for name, one in state.tasks.items():
        assert told[name].state is (State.DONE if one.phase is Phase.DONE else State.FAILED)
        assert (told[name].role, told[name].fallbacks) == (one.task.role, one.fallen)
        assert len(one.fallen) <= 3
        assert [fallen.to.kind for fallen in one.fallen].count("conclude") <= 1
    for kind in ("worker", "cheap"):
        for outcome, phase in (("done", Phase.DONE), ("failed", Phase.FAILED)):
            ended = sum(one.task.role == kind and one.phase is phase for one in state.tasks.values())
            assert counted.get((kind, outcome), 0) == ended
    for number, one in history.summary().roles.items():
        assert one.tasks == sum(task.task.role == number for task in state.tasks.values())


# --- real runs --------------------------------------------------------------------------------------------------------


def test_a_role_takes_over_with_the_same_input_and_is_told_why_if_it_wants_to_know(runtime: str, store: str) -> None:
    """One verdict goes to a function by its name, another to a role that is given; what they give stands in the plan and is marked."""

    def plan(letters: list[str]) -> Plan:
        read = [Task(id=f"read/{n}", role="reader", input={"text": text}) for n, text in enumerate(letters)]
        return Plan(tasks=(*read, Task(id="sum", role="adder", input=[ref(task.id) for task in read])))

    @role
    def adder(readings: list[Reading]) -> str:
        return ", ".join(f"{one.total} by {one.by}" for one in readings)

    def read(asked: ModelRequest) -> Any:
        text = asked.messages[1].content
        if "loop" in text:
            return ModelReply(text="I won't", finish=Finish.REFUSED)
        return '{"total": 1}' if "fine" in text else "no"

    clerk = reader(model=ScriptedModel(read), fallback={"schema": explain, "*": "count"})
    result = Team("desk", [clerk, count, adder], planner=plan).run_sync(["fine", "not at all", "loop it"], runtime=runtime, store=store)
    assert result.status is m.Status.DONE
    assert result.failure is None
    assert result.output == ["1 by agent, 10 by schema, 2 by count"]
    by_name = {task.task: task for task in result.tasks}
    assert [task.task for task in result.fallen_back] == ["read/1", "read/2"]
    assert [task.task for task in result.results] == ["sum"]
    (schema,), (turns,) = by_name["read/1"].fallbacks, by_name["read/2"].fallbacks
    assert (schema.role, schema.to.role, schema.failure.verdict) == ("reader", "explain", Verdict.SCHEMA)
    assert (turns.role, turns.to.role, turns.failure.verdict) == ("reader", "count", Verdict.REFUSED)
    assert (by_name["read/1"].role, by_name["read/1"].status) == ("explain", "done")


def test_what_falls_back_can_always_be_paid_from_the_reserve(runtime: str, store: str) -> None:
    """Twenty readers may make eight calls, of which three are kept: five read, and three of the others are summed up cheaply."""
    cheap = reader('{"total": 0, "by": "cheap"}', fallback=Fixed(Reading(total=-1, by="nobody")), name="cheap")
    clerk = reader('{"total": 1}', fallback={"budget": cheap})
    plan = Plan(tasks=tuple(Task(id=f"r{n}", role="reader", input={"text": "x"}) for n in range(20)))
    team = Team("readers", [clerk], planner=plan, budget=Limits(model_calls=8), reserve=Limits(model_calls=3))
    result = team.run_sync(runtime=runtime, store=store)
    assert result.status is m.Status.DONE
    assert sorted(one.by for one in result.output) == ["agent"] * 5 + ["cheap"] * 3 + ["nobody"] * 12
    assert result.usage.model_calls == 8
    assert {tuple(fallen.to.who for fallen in task.fallbacks) for task in result.tasks} == {
        (),
        ("role cheap",),
        ("role cheap", "a fixed answer"),
    }


def test_steps_of_a_fallback_have_places_and_keys_of_their_own(store: str) -> None:
    keys = []

    @tool(effect="write")
    def send(text: str, context: Context) -> str:
        """Send it"""
        keys.append((context.role, context.key, context.attempt))
        return "sent"

    first = reader(call("send", text="a"), "no", tools=[send], fallback="careful")
    second = reader(call("send", text="b"), '{"total": 2}', tools=[send], name="careful")
    result = Team("senders", [first, second]).run_sync({"text": "x"}, runtime="inline", store=store)
    assert result.output == Reading(total=2)
    assert keys == [("reader", f"{result.run_id}/reader/1", 1), ("careful", f"{result.run_id}/reader/{STEPS_A_ROLE + 1}", 2)]


def test_a_fallback_has_its_own_tries_and_its_failure_is_the_tasks() -> None:
    tried = []

    @role(attempts=3)
    def shaky(letter: Letter) -> Reading:
        tried.append(letter.text)
        raise OSError("down")

    result = rehearse(Team("shaky", [reader("no", fallback=shaky)]), {"text": "x"}, clock=ManualClock()).result
    assert result.status is m.Status.FAILED
    assert tried == ["x"] * 3
    (task,) = result.failed
    assert task.failure is not None
    assert (task.failure.verdict, task.attempts, task.role) == (Verdict.CODE_ERROR, 4, "shaky")
    assert task.fallbacks[0].failure.verdict is Verdict.SCHEMA


@tool
def look(at: int) -> str:
    """Look"""
    return f"seen {at}"


def looker(verdict: str, **limits: Any) -> Role:
    """An agent that looks and looks, until it is told to conclude."""

    def script(asked: ModelRequest) -> Any:
        if asked.messages[-1].content.startswith("You can do no more"):
            assert not asked.tools
            return f"I have {sum(one.role == 'tool' for one in asked.messages)} looks"
        return call("look", at=len(asked.messages))

    return Role("looker", tools=[look], model=ScriptedModel(script), fallback={verdict: Conclude()}, **limits)


@pytest.mark.parametrize("verdict", ["budget", "turns"])
def test_an_agent_that_may_go_no_further_is_told_once_to_conclude(verdict: str, store: str) -> None:
    def team() -> Team:
        if verdict == "turns":
            return Team("lookers", [looker("turns", limits=Limits(turns=3))])
        return Team("lookers", [looker("budget")], budget=Limits(model_calls=4), reserve=Limits(model_calls=1))

    result = run(team(), store, "go")
    assert result.status is m.Status.DONE
    assert result.output == "I have 3 looks"
    assert result.usage.model_calls == 4
    assert result.usage.tool_calls == 3  # what it had done was read back
    (fallen,) = result.tasks[0].fallbacks
    assert (fallen.failure.verdict, fallen.to.who) == (verdict, "itself, told to conclude")
    last = [body for entry in open_journal(store).read(result.run_id) if isinstance(body := codec.unpack(entry.body), m.ModelCalled)][-1]
    assert [one.content[:19] for one in last.said] == ["You can do no more:"]
    played = asyncio.run(play(open_journal(store), result.run_id, team()))
    assert played.divergences == ()


@pytest.mark.parametrize("whose", ["the role", "the run"])
def test_an_agent_that_concludes_makes_no_call_that_it_had_not_made(whose: str, store: str) -> None:
    sent = list[int]()

    @tool(effect="write", idempotent=True)
    async def send(at: int) -> str:
        """Send a letter."""
        sent.append(at)
        return "sent"

    def script(asked: ModelRequest) -> Any:
        results = [one.content for one in asked.messages if one.role == "tool"]
        return [call("send", at=len(results)), call("send", at=len(results) + 1)] if asked.tools else " ".join(results)

    held = Limits(tool_calls=3)
    role = Role("sender", tools=[send], model=ScriptedModel(script), fallback={"budget": Conclude()}, limits=held)
    team = Team("senders", [role])
    if whose == "the run":
        role = Role("sender", tools=[send], model=ScriptedModel(script), fallback={"budget": Conclude()})
        team = Team("senders", [role], budget=Limits(tool_calls=4), reserve=Limits(tool_calls=1))
    result = run(team, store, "go")
    assert result.status is m.Status.DONE
    assert result.output == "sent sent sent not done: you can do no more"
    assert sent == [0, 1, 2]
    assert result.usage.tool_calls == 3


def test_who_can_not_even_conclude_fails_as_it_would_have(store: str) -> None:
    result = run(Team("lookers", [looker("budget")], budget=Limits(model_calls=3)), store, "go")
    assert result.status is m.Status.BUDGET
    assert result.failure is not None
    assert result.failure.verdict is Verdict.BUDGET
    assert len(result.tasks[0].fallbacks) == 1
    for wrong in ({"fallback": Conclude()}, {"fallback": {"loop": Conclude()}}, {"fallback": {"budget": Conclude()}, "run": str}):
        with pytest.raises(BadInput, match="can conclude, after budget or turns"):
            Role("clerk", **wrong)


def test_a_fallback_delegates_for_itself_from_the_reserve(store: str) -> None:
    """What the first role delegated ends with it; ids of its own are the fallback's, and those of the first role's are refused."""

    async def part(context: Context, name: str, of: str) -> Reading:
        (ended,) = await context.delegate([Task(id=f"{context.task}/{name}", role=of, input={"text": context.role})])
        return Reading.model_validate(ended.output)

    @role(delegates=["asker"])
    async def first(letter: Letter, context: Context) -> Reading:
        await part(context, "1", "asker")
        raise ValueError("no more")

    def second(name: str) -> Role:
        @role(name="second", delegates=["asker"])
        async def made(letter: Letter, context: Context) -> Reading:
            return await part(context, name, "asker")

        return made

    def team(name: str) -> Team:
        asker = reader('{"total": 1}', name="asker")
        main = dataclasses.replace(first, fallback=second(name))
        plan = Plan(tasks=(Task(id="t", role="first", input={"text": "x"}),))
        return Team("delegating", [main, asker], planner=plan, budget=Limits(model_calls=2), reserve=Limits(model_calls=1))

    result = run(team("second/1"), store)
    assert result.status is m.Status.DONE
    assert [(task.task, task.status) for task in result.tasks] == [("t", "done"), ("t/1", "done"), ("t/second/1", "done")]
    assert result.usage.model_calls == 2
    refused = run(team("1"), store)
    assert refused.failure is not None
    assert "role 'first', which had this task before, asked for 't/1'" in refused.failure.message


# --- a person ---------------------------------------------------------------------------------------------------------


async def until_asked(handle: Any) -> None:
    async for envelope in handle.events():
        if isinstance(envelope.body, m.ReviewAsked):
            return


def test_a_person_gives_the_output_after_the_process_has_ended(
    store: str, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.reviewing.WAIT_SECONDS", 0.0)
    team = Team("desk", [reader(fallback={"schema": Person("How many words?")})])

    async def begin() -> str:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(team, {"text": "three words here"})
            await until_asked(handle)
            with pytest.raises(BadInput, match="waits for its output"):
                await handle.decide("reader", m.Decision.NOT_DONE)
            with pytest.raises(BadInput, match="at total: 'three' is not of type 'integer'"):
                await handle.decide("reader", m.Decision.DONE, result='{"total": "three"}')
            return handle.run_id

    async def resume(run: str) -> RunResult:
        async with Board(runtime="inline", store=store) as board:
            return await (await board.resume(run, team)).result()

    run = asyncio.run(begin())
    assert "How many words?" in typed("reviews")[1]
    for arguments, sentence in (
        (("--done",), "give it with --done --result JSON"),
        (("--retry",), "give it with --done --result JSON"),
        (("--done", "--result", "three"), "not JSON"),
        (("--done", "--result", "{}"), "does not fit what role 'reader' gives"),
    ):
        code, _, err = typed("review", run, "reader", *arguments)
        assert (code, sentence in err) == (2, True), err
    assert typed("review", run, "reader", "--done", "--result", '{"total": 3, "by": "ada"}', "--by", "ada")[0] == 0
    result = asyncio.run(resume(run))
    assert result.status is m.Status.DONE
    assert result.output == Reading(total=3, by="ada")
    assert [one.to.who for one in result.tasks[0].fallbacks] == ["a person"]
    journal = open_journal(store)
    assert [(one.decision, one.user, one.is_open) for one in reviews(journal, run)] == [(m.Decision.DONE, "ada", False)]
    assert summarize(journal, run).succeeded == 1
    shown = typed("show", run)[1]
    assert "by a fallback\n  reader · reader failed (schema: its answer never fitted" in shown
    assert "a person took over" in shown
    assert "by a fallback: a person" in typed("trace", run)[1]
    told = json.loads(typed("show", run, "--json")[1])
    assert told["fallen_back"] == 1
    assert told["outcomes"][0]["fallbacks"][0]["failure"]["verdict"] == "schema"


def test_a_person_who_ends_it_leaves_the_failure_that_there_was(store: str) -> None:
    async def work() -> RunResult:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(Team("desk", [reader(fallback=Person())]), {"text": "x"})
            await until_asked(handle)
            await handle.decide("reader", m.Decision.FAIL, user="ada")
            return await handle.result()

    result = asyncio.run(work())
    assert result.status is m.Status.FAILED
    assert result.failure is not None
    assert result.failure.verdict is Verdict.SCHEMA
    assert result.failure.message.endswith("; ada ended it")


def test_a_person_writes_text_as_it_is() -> None:
    spec = Role("writer", model=ScriptedModel([])).spec()
    assert [answered(text, spec) for text in ("Dear Ann", '"Dear Ann"', "42")] == ["Dear Ann", "Dear Ann", "42"]


# --- restarts and replays ---------------------------------------------------------------------------------------------


def test_a_run_goes_on_in_the_middle_of_a_fallback(runtime: str, store: str) -> None:
    """The process ends while the fallback waits after a call; the next one reads that call back and ends the task."""
    model = ScriptedModel(['{"total": 4}'])

    @role(model=model)
    async def slow(letter: Letter, context: Context) -> Reading:
        made = await context.ask("how many?", Reading)
        if context.attempt < 3:
            await asyncio.sleep(600)
        return made

    team = Team("desk", [reader(fallback=slow)])

    async def begin() -> str:
        async with Board(runtime=runtime, store=store) as board:
            handle = await board.start(team, {"text": "x"})
            async for envelope in handle.events():
                if isinstance(envelope.body, m.ModelCalled) and envelope.body.step >= STEPS_A_ROLE:
                    return handle.run_id
        raise AssertionError

    async def resume(run: str) -> RunResult:
        async with Board(runtime=runtime, store=store) as board:
            return await (await board.resume(run, team)).result()

    run = asyncio.run(begin())
    result = asyncio.run(resume(run))
    assert result.status is m.Status.DONE
    assert result.output == Reading(total=4)
    assert result.tasks[0].attempts == 3
    assert result.usage.model_calls == 4  # three of the reader, and one of the fallback: it was not made again
    bodies = [codec.unpack(entry.body) for entry in open_journal(store).read(run)]
    assert sum(isinstance(body, m.FellBack) for body in bodies) == 1


def test_what_a_person_gave_is_given_again_in_a_playback_and_by_a_rehearsals_decide(store: str) -> None:
    def team() -> Team:
        return Team("desk", [reader(fallback=Person("How many?"))])

    then = rehearse(team(), {"text": "x"}, store=store, decide=lambda asked: '{"total": 5}')
    assert then.result.output == Reading(total=5)
    played = asyncio.run(play(open_journal(store), then.result.run_id, team()))
    assert played.divergences == ()
    with pytest.raises(BadInput, match="let decide return it, as JSON"):
        rehearse(team(), {"text": "x"}, decide=lambda asked: m.Decision.DONE)


def test_a_run_with_fallbacks_is_played_back_without_a_difference(store: str) -> None:
    cheap = reader('{"total": 0}', name="cheap")
    plan = Plan(tasks=tuple(Task(id=f"r{n}", role="reader", input={"text": f"{n}"}) for n in range(4)))

    def team() -> Team:
        clerk = reader('{"total": 1}', fallback={"budget": cheap, "*": Fixed(Reading(total=9))})
        return Team("readers", [clerk], planner=plan, budget=Limits(model_calls=4), reserve=Limits(model_calls=2))

    result = team().run_sync(runtime="inline", store=store)
    assert sorted(one.total for one in result.output) == [0, 0, 1, 1]
    played = asyncio.run(play(open_journal(store), result.run_id, team()))
    assert played.divergences == ()
    assert played.model_calls == 4
    again = team().run_sync(runtime="inline", store=store, model=f"recorded:{result.run_id}")
    assert again.status is m.Status.DONE
    assert again.usage == result.usage


# --- what can't work --------------------------------------------------------------------------------------------------


@role
def shout(text: str) -> str:
    return text.upper()


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        (lambda: [reader(fallback="nobody")], "falls back to 'nobody', which the team does not have"),
        (lambda: [reader(fallback=shout)], "the output of 'shout' can't stand in for that of 'reader'"),
        (lambda: [reader(input=str, fallback=count)], "role 'count' can't take the input of 'reader'"),
        (lambda: [reader(fallback={"budgets": "count"}), count], "has a fallback for 'budgets'"),
        (lambda: [reader(fallback={"cancelled": "count"}), count], "has a fallback for 'cancelled'"),
        (lambda: [reader(fallback={"budget": "count", ("loop", "budget"): "count"}), count], "two fallbacks for 'budget'"),
        (lambda: [reader(fallback=Fixed({"total": "many"}))], "its fixed fallback does not fit"),
        (lambda: [reader(fallback=3)], "give a role, its name"),
        (lambda: [reader(fallback="b"), reader(name="b", fallback="reader")], "roles fall back in a circle"),
        (
            lambda: [reader(fallback="b"), *(reader(name=name, fallback=to) for name, to in ("bc", "cd", "de")), reader(name="e")],
            "more than 3 fallbacks follow each other",
        ),
    ],
)
def test_a_fallback_that_can_not_work_is_refused_when_the_team_is_made(roles: Callable[[], list[Role]], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        Team("desk", roles(), planner=lambda goal: Plan(tasks=()))


@pytest.mark.parametrize(
    ("reserve", "sentence"),
    [(Limits(seconds=3), "has seconds, which can't be kept"), (Limits(model_calls=9), "is 9 model calls of 8 model calls; keep less")],
)
def test_a_reserve_that_can_not_be_kept_is_refused(reserve: Limits, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        Team("desk", [count], budget=Limits(model_calls=8), reserve=reserve)
    with pytest.raises(BadInput, match="of 1 model call; keep less"):
        Team("desk", [count], reserve=Limits(model_calls=2)).run_sync({"text": ""}, runtime="inline", budget=Limits(model_calls=1))


# --- merges -----------------------------------------------------------------------------------------------------------


def parts(*letters: str, merge: Merge) -> Team:
    """Letters of which those that say fall go to a fallback, and those that say fail have none."""

    def read(asked: ModelRequest) -> Any:
        text = asked.messages[1].content
        return ModelReply(text="no", finish=Finish.REFUSED) if "fall" in text else "no" if "fail" in text else '{"total": 1}'

    plan = Plan(tasks=tuple(Task(id=f"r{n}", role="reader", input={"text": text}) for n, text in enumerate(letters)))
    return Team("desk", [reader(model=ScriptedModel(read), fallback={"refused": "count"}), count], planner=plan, merge=merge)


def test_a_merge_that_wants_to_know_is_told_what_failed_and_what_a_fallback_gave(store: str) -> None:
    seen: list[list[Part[Any]]] = []

    def note(found: list[Part[Reading | str]]) -> str:
        seen.append(list(found))
        total = [one.value.total if isinstance(one.value, Reading) else str(one.value) for one in found if one.value is not None]
        return "+".join(map(str, total))

    editor = Role("editor", input=list[Part[Reading | str]], output=str, run=note)
    for merge in (reduce(note, fan_in=3), synthesise(editor, fan_in=3)):
        seen.clear()
        result = parts("x", "fall back now", "fail", "y", merge=merge).run_sync(runtime="inline", store=store)
        assert result.status is m.Status.PARTIAL
        assert result.output == "1+3+1"
        told = {one.task: (one.role, one.standing, one.failure.verdict if one.failure else None) for found in seen for one in found}
        assert told == {
            "r0": ("reader", "done", None),
            "r1": ("count", "fallback", Verdict.REFUSED),
            "r2": ("reader", "failed", Verdict.SCHEMA),
            "r3": ("reader", "done", None),
            "merge/1/0": (merge.spec.role or "merge", "done", None),
            "merge/1/1": (merge.spec.role or "merge", "done", None),
        }
        assert [one.task for one in result.failed] == ["r2"]


def test_results_are_kept_and_labelled_when_their_merge_fails(store: str) -> None:
    def fail(found: list[Reading]) -> Reading:
        raise ValueError("can't add")

    result = parts("x", "fall back", merge=reduce(fail)).run_sync(runtime="inline", store=store)
    assert result.status is m.Status.FAILED
    assert [(one.task, one.output["total"], len(one.fallbacks)) for one in result.results] == [("r0", 1, 0), ("r1", 2, 1)]
