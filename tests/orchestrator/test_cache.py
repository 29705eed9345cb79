"""The caches: replies to equal requests, by user or shared, and results of pure tools; over runs and restarts, in every store."""

import asyncio
import secrets
from typing import Any

import pytest
from aiohttp import web

from agents import Context, HttpModel, Role, ScriptedModel, call, role, tool
from orchestrator import Board, RunResult, Team, open_journal
from orchestrator.claims import Claims, claimant_at
from orchestrator.cli import main
from orchestrator.observe import metrics
from orchestrator.observe.meter import Meter
from orchestrator.reducer import begin, step
from protocols import codec
from protocols import messages as m
from protocols.budget import NOTHING, Limits
from protocols.chat import ModelRequest, Price
from protocols.envelope import Envelope
from protocols.failures import BadInput, Verdict
from protocols.messages import Status
from protocols.plan import Plan, Task
from tests.conftest import Endpoint, said

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
    monkeypatch.setattr("orchestrator.claims.now", lambda: at + 60_001)
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


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [("no number", Verdict.SCHEMA), (call("nothing"), Verdict.HALLUCINATED_TOOL), (call("look", n="1"), Verdict.BAD_ARGUMENTS)],
)
def test_a_reply_that_was_of_no_use_is_asked_for_anew(store: str, wrong: Any, verdict: Verdict) -> None:
    """The task of the first run fails with it; the second is answered, and the third from what the second kept."""
    said: list[Any] = []

    @tool
    def look(n: int) -> str:
        """Look"""
        raise AssertionError("it is never called")

    def answer(request: ModelRequest) -> Any:
        said.append(wrong if len(said) < len(failing) else "3")
        return said[-1]

    failing = range(3 if verdict is Verdict.SCHEMA else 4)
    model = ScriptedModel(answer)
    team = Team("askers", [Role("asker", tools=[] if verdict is Verdict.SCHEMA else [look], output=int, model=model, cache="shared")])
    first, *others = [run(team, "x", store) for _ in range(3)]
    assert first.tasks[0].failure is not None
    assert first.tasks[0].failure.verdict is verdict
    assert [one.output for one in others] == [3, 3]
    assert model.calls == len(failing) + 1


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
        with pytest.raises(BadInput, match=r"can't be pure|cache_seconds: .* greater than 0"):
            tool(pure=True, **settings)(plain)
    for settings in ({"cache": "everyone"}, {"cache": "user", "cache_seconds": 0}):
        with pytest.raises(BadInput, match=r"cache: Input should be 'user' or 'shared'|cache_seconds: Input should be greater than 0"):
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


# --- equal requests at the same moment ----------------------------------------------------------------------------------


def asking(endpoint: Endpoint, *inputs: str, seconds: float | None = None) -> Team:
    """Tasks with these inputs, all at once; those named ``hasty`` have so many seconds."""
    model = HttpModel(endpoint.url, "m")
    limits = Limits(seconds=seconds)
    roles = [Role(name, "Answer.", model=model, cache="user", limits=limits if name == "hasty" else None) for name in ("asker", "hasty")]
    tasks = [Task(id=f"t{n}", role="hasty" if seconds and n else "asker", input=text) for n, text in enumerate(inputs)]
    return Team("many", roles, planner=Plan(tasks=tuple(tasks)))


def slowly(endpoint: Endpoint, *, refuse: int = 0, seconds: float = 0.3) -> None:
    """It answers late, and refuses this many requests first."""

    async def answer(request: dict[str, Any]) -> Any:
        mine = len(endpoint.requests)
        await asyncio.sleep(seconds)
        return web.Response(status=400, text="no") if mine <= refuse else web.json_response(said("yes"))

    endpoint.answer = answer


def test_equal_requests_at_the_same_moment_are_one_call_on_all_hosts(runtime: str, store: str, endpoint: Endpoint) -> None:
    slowly(endpoint)
    hosts = {} if runtime == "inline" else {"hosts": 2}
    result = asking(endpoint, *["x"] * 20).run_sync(None, runtime=runtime, store=store, **hosts)
    assert result.output == ["yes"] * 20
    assert len(endpoint.requests) == result.usage.model_calls == 1
    assert sorted(one.cached for one in called(store, result.run_id)) == [False] + [True] * 19


def test_who_waits_for_an_equal_request_needs_no_room_and_no_time(store: str, endpoint: Endpoint) -> None:
    slowly(endpoint, seconds=0.8)
    result = run(asking(endpoint, *["x"] * 6, seconds=0.6), None, store, budget=Limits(model_calls=1))
    assert result.output == ["yes"] * 6


def test_one_that_fails_leaves_it_to_the_next(store: str, endpoint: Endpoint) -> None:
    slowly(endpoint, refuse=2)
    result = run(asking(endpoint, *["x"] * 6), None, store)
    assert len(endpoint.requests) == result.usage.model_calls == 3
    assert [one.failure is None for one in result.tasks].count(True) == 4


def test_who_is_cancelled_while_waiting_is_waited_for_by_nobody(store: str, endpoint: Endpoint) -> None:
    slowly(endpoint, refuse=1)

    async def three() -> list[RunResult]:
        async with Board(runtime="inline", store=store) as board:
            runs = [await board.start(asking(endpoint, "x"), None) for _ in range(3)]
            async with asyncio.timeout(10):
                while not endpoint.requests:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await runs[1].cancel("enough")
                return [await one.result() for one in runs]

    first, second, third = asyncio.run(three())
    assert [one.status for one in (first, second, third)] == [Status.FAILED, Status.CANCELLED, Status.DONE]
    assert len(endpoint.requests) == 2
    assert second.usage == NOTHING


def test_a_claim_that_is_neither_kept_nor_let_go_lapses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.claims.CLAIM_SECONDS", 0.05)

    async def work() -> list[str | None]:
        claims = Claims(open_journal("memory:"))
        assert await claims.kept("x", "gone") is None
        waiting = [asyncio.create_task(claims.kept("x", f"{n}")) for n in range(3)]
        assert await waiting[0] is None
        claims.let_go("x", "gone")  # too late to matter
        await claims.keep("x", "made", 60.0)
        return [await one for one in waiting[1:]]

    assert asyncio.run(work()) == ["made", "made"]


def test_agents_of_a_host_that_is_lost_hold_nobody_up() -> None:
    async def two_hosts() -> list[str | None]:
        claims = Claims(open_journal("memory:"))
        gone, there = [claimant_at("host/gone") for _ in range(3)], claimant_at("host/there")
        assert await claims.kept("key", gone[0]) is None
        waiting = [asyncio.create_task(claims.kept("key", one)) for one in (gone[1], there, gone[2])]
        await asyncio.sleep(0)
        claims.lost("host/gone")
        async with asyncio.timeout(5):
            found = [await one for one in waiting]
            last = asyncio.create_task(claims.kept("key", claimant_at("host/there")))
            await claims.keep("key", "made", 60)
            return [*found, await last]

    assert asyncio.run(two_hosts()) == [None, None, None, "made"]
