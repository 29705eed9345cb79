"""The caches: replies to equal requests, by user or shared, and results of pure tools; over runs and restarts, in every store."""

import asyncio
import secrets
from typing import Any

import pytest

from agents import Context, Role, ScriptedModel, call, role, tool
from orchestrator import Board, RunResult, Team, open_journal
from orchestrator.cli import main
from orchestrator.observe import metrics
from orchestrator.observe.meter import Meter
from orchestrator.reducer import begin, step
from protocols import codec
from protocols import messages as m
from protocols.budget import NOTHING, Limits
from protocols.chat import ModelRequest, Price
from protocols.envelope import Envelope
from protocols.failures import BadInput
from protocols.plan import Plan, Task

PRICE = Price(input_micros=1_000_000, output_micros=1_000_000)


def called(store: str, run: str, kind: type[m.Message] = m.ModelCalled) -> list[Any]:
    return [body for entry in open_journal(store).read(run) if isinstance(body := codec.unpack(entry.body), kind)]


def asker(**settings: Any) -> tuple[Team, ScriptedModel]:
    model = ScriptedModel(lambda request: f"answer {request.messages[-1].content}", price=PRICE)
    return Team("askers", [Role("asker", instructions="Answer.", model=model, **settings)]), model


def run(team: Team, goal: Any, store: str, **settings: Any) -> RunResult:
    return team.run_sync(goal, **{"runtime": "inline", "store": store, **settings})


def test_an_equal_request_of_the_same_user_is_answered_from_the_cache_and_costs_nothing(runtime: str, store: str) -> None:
    """Also under a limit that has room for no call."""
    team = Team("askers", [Role("asker", instructions="Answer.", model=ScriptedModel(_echo, price=PRICE), cache="user")])

    async def three() -> list[RunResult]:
        async with Board(runtime=runtime, store=store) as board:
            asked = (("ada", None), ("ada", Limits(micros=0)), ("bob", None))
            return [await (await board.start(team, "x", user=user, budget=budget)).result() for user, budget in asked]

    first, again, other = asyncio.run(three())
    assert [one.output for one in (first, again, other)] == ["answer x"] * 3
    assert again.usage == NOTHING
    assert first.usage.model_calls == other.usage.model_calls == 1
    (hit,) = called(store, again.run_id)
    assert (hit.cached, hit.usage, hit.reply.text) == (True, NOTHING, "answer x")
    assert [one.cached for result in (first, other) for one in called(store, result.run_id)] == [False, False]


def _echo(request: ModelRequest) -> str:
    return f"answer {request.messages[-1].content}"


def test_the_shared_cache_holds_for_all_users_until_it_is_too_old(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    team, model = asker(cache="shared", cache_seconds=60.0)
    run(team, "x", store, user="ada")
    run(team, "x", store, user="bob")
    run(team, "y", store, user="bob")
    assert model.calls == 2
    later = open_journal(store)
    at = max(entry.at for row in later.runs() for entry in later.read(row.run))
    monkeypatch.setattr("orchestrator.coordinator.now", lambda: at + 60_001)
    run(team, "x", store)
    assert model.calls == 3


def test_without_a_word_nothing_is_kept_and_every_difference_is_another_request(store: str) -> None:
    team, model = asker()
    for _ in range(2):
        run(team, "x", store)
    assert model.calls == 2
    other, warm = asker(cache="shared", temperature=0.5)
    run(asker(cache="shared")[0], "x", store)
    run(other, "x", store)
    assert warm.calls == 1


def test_nothing_is_kept_after_a_tool_has_written(store: str) -> None:
    """Before it, it is: the second run's first reply is from the cache, and what follows its write is not."""
    sent = []

    @tool(effect="write")
    def send(text: str) -> str:
        """Send it"""
        sent.append(text)
        return "sent"

    model = ScriptedModel([call("send", text="a"), "done"])
    team = Team("senders", [Role("sender", tools=[send], model=model, cache="shared")])
    for _ in range(2):
        result = run(team, "x", store)
    assert result.output == "done"
    assert sent == ["a", "a"]
    assert [one.cached for one in called(store, result.run_id)] == [True, False]
    assert model.calls == 3


def test_a_cached_reply_is_read_back_by_a_later_attempt(store: str) -> None:
    model = ScriptedModel(["four"])

    @role(model=model, cache="user", attempts=2)
    async def count(text: str, context: Context) -> str:
        made = await context.ask(text)
        if context.attempt == 1 and text == "again":
            raise OSError("down")
        return f"{made} {context.attempt}"

    team = Team("counters", [count])
    assert run(team, "again", store).output == "four 2"
    assert run(team, "again", store).output == "four 2"
    assert model.calls == 1


# --- tools ------------------------------------------------------------------------------------------------------------

MADE: list[int] = []


@tool(pure=True)
def square(of: int) -> int:
    """The square"""
    MADE.append(of)
    if of < 0:
        raise ValueError("no")
    return of * of


def test_a_pure_tool_is_called_once_for_equal_arguments(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    MADE.clear()
    team = Team("squares", [Role("clerk", tools=[square], model=ScriptedModel([[call("square", of=3), call("square", of=-1)], "done"]))])
    first = run(team, "x", store, user="ada")
    again = run(team, "x", store, user="bob")
    assert sorted(MADE) == [-1, -1, 3]  # a failure is not kept; calls of one turn go at once
    assert (first.usage.tool_calls, again.usage.tool_calls) == (2, 1)
    hits = [(one.content, one.ran, one.settled) for one in called(store, again.run_id, m.ToolCalled)]
    assert ("9", False, "cache") in hits
    with pytest.raises(SystemExit):
        main(["trace", again.run_id, "--store", store])
    assert "settled by cache" in capsys.readouterr().out


def test_a_tool_whose_result_depends_on_more_than_its_arguments_can_not_be_pure() -> None:
    outside = secrets.token_hex()

    def around() -> str:
        return outside

    def knows(context: Context) -> str:
        return context.run

    def plain() -> str:
        return ""

    for function in (around, knows):
        with pytest.raises(BadInput, match="may depend on more than its arguments"):
            tool(pure=True)(function)
    for settings in ({"effect": "write"}, {"repeatable": True}, {"cache_seconds": 0}):
        with pytest.raises(BadInput, match="can't be pure"):
            tool(pure=True, **settings)(plain)
    for settings in ({"cache": "everyone"}, {"cache": "user", "cache_seconds": 0}):
        with pytest.raises(BadInput, match="cache is 'user' or 'shared'"):
            Role("clerk", **settings)


# --- what is counted and kept -----------------------------------------------------------------------------------------


def test_hits_are_counted_apart(store: str) -> None:
    team, _ = asker(cache="shared")
    run(team, "x", store)
    again = run(team, "x", store)
    meter, state = Meter(), None
    for entry in open_journal(store).read(again.run_id):
        body = codec.unpack(entry.body)
        if isinstance(body, m.RunRequested):
            state = begin(entry.run, entry.at, body)
        assert state is not None
        meter.hear(state, body)
        state, _ = step(state, Envelope(entry.run, entry.seq, entry.at, body), lambda value: value.inline)
    meter.commit()
    counted = {(metric.name, labels): number for (metric, labels, _), number in meter.take().items()}
    assert counted[metrics.MODEL_CALLS.name, ("asker", "scripted:script", "cached")] == 1
    assert not any(name == metrics.TOKENS.name for name, _ in counted)


def test_a_plan_of_equal_tasks_asks_once_when_they_follow_each_other(store: str) -> None:
    team, model = asker(cache="user", concurrency=1)
    plan = Plan(tasks=tuple(Task(id=f"t{n}", role="asker", input="x") for n in range(5)))
    result = run(Team("askers", team.roles, planner=plan), None, store)
    assert result.output == ["answer x"] * 5
    assert model.calls == result.usage.model_calls == 1
