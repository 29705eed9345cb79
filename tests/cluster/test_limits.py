"""What a provider allows is shared by all hosts and runs: against servers with limits, and with faults, over real HTTP."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from agents import Context, HttpModel, LocalDesk, Role
from agents.loop import work
from orchestrator import Board, RunResult, Team, open_journal
from orchestrator.cli.command import commands
from orchestrator.playback import play
from orchestrator.throttle import START
from protocols import codec
from protocols.budget import Limits
from protocols.chat import ChatMessage, ModelRequest, Price, Throttling
from protocols.failures import BadInput, Verdict
from protocols.messages import ModelCalled, Status
from protocols.plan import Plan, Task
from tests.cluster.limits import AGENTS, HOSTS, ROOM, Roomy, askers
from tests.conftest import Endpoint, said

DEAR = Price(input_micros=1_000_000, output_micros=1_000_000)
CHEAP = Price(input_micros=1_000, output_micros=1_000)


@pytest.fixture
def roomy() -> Iterator[Roomy]:
    made = Roomy()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def other() -> Iterator[Endpoint]:
    made = Endpoint()
    made.start()
    yield made
    made.stop()


def calls_of(run: str, store: str) -> list[ModelCalled]:
    journal = open_journal(store)
    try:
        told = [codec.unpack(entry.body) for entry in journal.read(run)]
    finally:
        journal.close()
    return [one for one in told if isinstance(one, ModelCalled)]


def broken(request: dict[str, Any]) -> Any:
    return web.json_response({"error": {"message": "it broke"}}, status=500, headers={"Retry-After": "0"})


def test_forty_agents_on_four_hosts_settle_on_what_a_provider_takes(cluster: None, store: str, roomy: Roomy) -> None:
    result = askers(roomy, AGENTS, 5).run_sync(store=store, hosts=HOSTS)
    assert (result.status, roomy.answered) == (Status.DONE, AGENTS * 5)
    calls = calls_of(result.run_id, store)
    assert len(calls) == result.usage.model_calls == len(roomy.seen), "every request is on the ledger"
    assert len(calls) <= 2 * AGENTS * 5, "no request beyond the budget"
    later = roomy.seen[AGENTS:]
    assert sum(under_way > ROOM for _, under_way, _ in later) <= 0.1 * len(later), "a probe now and then is all that goes beyond"
    assert sum(not fits for _, _, fits in later) <= 0.1 * len(later)


def test_a_run_of_three_does_not_wait_for_a_run_of_three_hundred(store: str, roomy: Roomy) -> None:
    roomy.room, roomy.seconds = 4, 0.02

    async def both() -> tuple[RunResult, int, RunResult]:
        async with Board(runtime="inline", store=store) as board:
            long = await board.start(askers(roomy, 300, 1, "long"))
            async with asyncio.timeout(20):
                while roomy.answered < 20:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            short = await board.start(askers(roomy, 3, 1, "short"))
            done = await short.result()
            return done, sum(who.startswith("long") for who in roomy.asked), await long.result()

    short, long_by_then, long = asyncio.run(both())
    assert (short.status, long.status) == (Status.DONE, Status.DONE)
    assert long_by_then < 150


class Tired(Roomy):
    """Asks for rest once, of one run, while the other calls."""

    rest, asked_for_rest = 1.5, 0.0

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        others = sum(who.startswith("d") for who in self.asked)
        response = await super()._answer(request)
        if self.asked_for_rest or others < 10 or not json.loads(await request.text())["messages"][-1]["content"].startswith("c"):
            return response
        self.asked_for_rest = time.monotonic()
        return web.json_response({"error": {"message": "tired"}}, status=429, headers={"Retry-After": str(self.rest)})


def test_coordinators_share_what_a_provider_takes_and_keep_to_a_time_that_one_is_told(cluster: None, store: str) -> None:
    server = Tired(seconds=0.03)

    async def both() -> list[RunResult]:
        async with Board(runtime="ray", store=store, hosts=1, coordinators=2) as board:
            handles = [await board.start(askers(server, 12, 20, name), run_id=f"run-{name}") for name in "cd"]  # one and two
            return await asyncio.gather(*(handle.result() for handle in handles))

    server.start()
    try:
        results = asyncio.run(both())
    finally:
        server.stop()
    assert [result.status for result in results] == [Status.DONE] * 2
    assert sum(result.usage.model_calls for result in results) == len(server.seen), "every request is on the ledger"
    begun = [at - server.asked_for_rest for at, _, _ in server.seen]
    assert min(begun) < 0 < server.rest < max(begun)
    assert not [at for at in begun if server.rest / 3 < at < server.rest], "neither calls before it is time"


def test_declared_limits_hold_from_the_first_call_on(store: str, roomy: Roomy) -> None:
    roomy.seconds = 0.02
    team = askers(roomy, 30, 1)
    declared = Team("askers", team.roles, planner=team.planner, throttles={"http:m": Throttling(concurrency=ROOM)})
    assert declared.run_sync(runtime="inline", store=store).status is Status.DONE
    assert (roomy.refused, len(roomy.seen)) == (0, 30)


def test_a_provider_that_keeps_failing_is_left_alone_until_a_probe_succeeds(store: str, endpoint: Endpoint) -> None:
    at: list[float] = []

    def answer(request: dict[str, Any]) -> Any:
        at.append(time.monotonic())
        return broken(request) if at[-1] - at[0] < 0.9 else said("ok")

    endpoint.answer = answer
    role = Role("asker", model=HttpModel(endpoint.url, "m"), attempts=1, max_output_tokens=16)
    plan = Plan(tasks=tuple(Task(id=f"t{number}", role="asker", input="go") for number in range(40)))
    result = Team("askers", [role], planner=plan).run_sync(runtime="inline", store=store)
    assert result.status is Status.DONE, "with four tries each, all would have failed in no time"
    assert len(at) < 40 + 2 * START


def test_a_fallback_model_goes_on_where_a_provider_fails(store: str, endpoint: Endpoint, other: Endpoint) -> None:
    endpoint.answer = broken
    models = [HttpModel(other.url, "standby", price=CHEAP)]

    async def ask(who: str, context: Context) -> str:
        return "".join([await context.ask(f"{who} {number}") for number in range(2)])

    role = Role("asker", input=str, output=str, run=ask, model=HttpModel(endpoint.url, "first", price=DEAR), fallback_models=models)
    plan = Plan(tasks=tuple(Task(id=f"t{number}", role="asker", input=f"t{number}") for number in range(30)))
    team = Team("askers", [role], planner=plan)
    result = team.run_sync(runtime="inline", store=store, budget=Limits(micros=100_000_000))
    assert (result.status, len(other.requests)) == (Status.DONE, 60)
    calls = calls_of(result.run_id, store)
    handed = [call for call in calls if call.then]
    assert [(call.model, call.then) for call in handed] == [("http:first", "http:standby")] * 30
    assert {call.step for call in calls if call.reply} == {1, 2}
    assert sum(call.usage.model_calls for call in calls if call.model == "http:first") == len(endpoint.requests)
    assert len(endpoint.requests) < 30, "most were never made: the circuit was open"
    assert result.usage.micros == sum(call.usage.micros for call in calls)
    assert all(call.usage.micros == CHEAP.cost(10, 5) for call in calls if call.reply)
    shown = CliRunner().invoke(commands, ["trace", result.run_id, "--store", store, "--task", "t0"])
    assert (shown.exit_code, "http:standby takes over" in shown.output) == (0, True)
    journal = open_journal(store)
    played = asyncio.run(play(journal, result.run_id, team))
    journal.close()
    assert (played.divergences, len(other.requests)) == ((), 60)


def test_a_model_is_asked_again_when_its_provider_is_back(store: str, endpoint: Endpoint, other: Endpoint) -> None:
    endpoint.answer = broken
    role = Role("asker", model=HttpModel(endpoint.url, "first"), fallback_models=[HttpModel(other.url, "standby")], max_output_tokens=16)
    plan = Plan(tasks=tuple(Task(id=f"t{number}", role="asker", input="go") for number in range(6)))

    async def runs() -> int:
        async with Board(runtime="inline", store=store) as board:
            team = Team("askers", [role], planner=plan)
            assert (await (await board.start(team)).result()).status is Status.DONE
            assert len(other.requests) == 6
            endpoint.answer = lambda request: said("back")
            async with asyncio.timeout(20):
                while (await (await board.start(team)).result()).tasks[0].output != "back":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            asked = len(other.requests)
            assert (await (await board.start(team)).result()).status is Status.DONE
            return len(other.requests) - asked

    assert asyncio.run(runs()) == 0


def test_who_has_no_other_model_waits_for_a_provider_only_so_long(store: str, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.permits.PATIENCE_SECONDS", 0.2)
    endpoint.answer = broken
    role = Role("asker", model=HttpModel(endpoint.url, "m"), attempts=1, max_output_tokens=16)
    plan = Plan(tasks=tuple(Task(id=f"t{number}", role="asker", input="go") for number in range(60)))
    result = Team("askers", [role], planner=plan).run_sync(runtime="inline", store=store)
    assert result.status is Status.FAILED
    failures = [one.failure for one in result.tasks if one.failure is not None]
    assert {failure.verdict for failure in failures} == {Verdict.PROVIDER}
    assert sum("keeps failing: http:m answered 500" in failure.message for failure in failures) > 30
    assert len(endpoint.requests) < 2 * START


def test_an_attempt_recalls_the_reply_of_the_model_that_took_over(endpoint: Endpoint, other: Endpoint) -> None:
    endpoint.answer = broken
    replies = iter(["one", "two", "three"])
    other.answer = lambda request: said(next(replies))
    first, standby = HttpModel(endpoint.url, "first"), HttpModel(other.url, "standby")

    async def ask(who: str, context: Context) -> str:
        answers = [await context.ask(str(number)) for number in range(3)]
        return " ".join(answers)

    role = Role("asker", input=str, output=str, run=ask, model=first, fallback_models=[standby])

    async def attempt(desk: LocalDesk) -> Any:
        try:
            return await work(role, "go", desk, first, fallback_models=[standby])
        finally:
            await first.aclose()
            await standby.aclose()

    before = LocalDesk()
    assert asyncio.run(attempt(before)) == "one two three"
    made = len(endpoint.requests), len(other.requests)
    assert made == (4, 3)
    again = LocalDesk(attempt=2, history=before.messages)
    assert asyncio.run(attempt(again)) == "one two three"
    assert ((len(endpoint.requests), len(other.requests)), again.messages) == (made, [])


def test_a_cheaper_model_goes_on_where_money_is_short(store: str, endpoint: Endpoint, other: Endpoint) -> None:
    models = [HttpModel(other.url, "cheap", price=CHEAP)]
    role = Role("asker", model=HttpModel(endpoint.url, "dear", price=DEAR), fallback_models=models, max_output_tokens=64)
    plan = Plan(tasks=tuple(Task(id=f"t{number}", role="asker", input="go") for number in range(4)))
    asked = ModelRequest(messages=(ChatMessage(role="user", content="go"),), max_output_tokens=64)
    once = DEAR.cost(*HttpModel(endpoint.url, "dear").bound(asked)) + DEAR.cost(10, 5) - 1
    result = Team("askers", [role], planner=plan).run_sync(runtime="inline", store=store, budget=Limits(micros=once))
    assert (result.status, len(endpoint.requests)) == (Status.DONE, 1)
    assert len(other.requests) == 3
    assert result.usage.micros == DEAR.cost(10, 5) + 3 * CHEAP.cost(10, 5)


def test_without_a_fallback_model_the_failure_is_the_providers(store: str, endpoint: Endpoint) -> None:
    endpoint.answer = broken
    role = Role("asker", model=HttpModel(endpoint.url, "m"), attempts=1, max_output_tokens=16)
    result = Team("askers", [role]).run_sync("go", runtime="inline", store=store)
    assert result.failure is not None
    assert (result.failure.verdict, len(endpoint.requests)) == (Verdict.PROVIDER, 4)


def test_a_fallback_model_must_fit_the_role(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model="):
        Role("asker", run=lambda text: text, fallback_models=["embedded"])
    with pytest.raises(BadInput, match="put \\[ \\] around"):
        Role("asker", model="openai:x", fallback_models="embedded")
    Role("asker", model="openai:x", fallback_models=["embedded"])
