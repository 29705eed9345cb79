"""Whole runs against providers' wires: nothing asked beyond the budget, no token unaccounted for, a verdict for each misbehaviour."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agents import ProviderModel, Role, tool
from orchestrator import Board, RunResult, Team
from orchestrator.journal import open_journal
from protocols import codec
from protocols.budget import Limits, Usage
from protocols.chat import Price
from protocols.failures import BadInput, Verdict
from protocols.messages import ModelCalled, PartialOutput, Status
from protocols.plan import Plan, Task
from tests.agents.models.wires import TOLD, Answer, Fault, Said, Wire

MOST_OUT = 64
PRICE = Price(input_micros=1_000_000, output_micros=2_000_000)
AT_ONCE = (("Retry-After", "0"),)


class Sum(BaseModel):
    total: int


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture(params=["openai", "anthropic"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    made = Wire(request.param)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A journal that holds nothing yet."""
    return str(tmp_path / "journal.db")


def asker(wire: Wire, *, output: Any = str, tools: Any = (), timeout: float = 5.0) -> Role:
    model = wire.model(price=PRICE, timeout=timeout)
    return Role("asker", instructions="Answer.", input=str, output=output, tools=tools, model=model, max_output_tokens=MOST_OUT, attempts=1)


def calls_of(result: RunResult, store: str) -> list[ModelCalled]:
    journal = open_journal(store)
    try:
        told = [codec.unpack(entry.body) for entry in journal.read(result.run_id)]
    finally:
        journal.close()
    return [one for one in told if isinstance(one, ModelCalled)]


def carried_out(wire: Wire, role: Role, store: str, goal: str = "1 + 2", **settings: Any) -> tuple[RunResult, list[ModelCalled]]:
    """A run of one task. Every request that reached the provider is in the journal, and the run's usage is their sum."""
    result = Team("askers", [role]).run_sync(goal, runtime="inline", store=store, **settings)
    calls = calls_of(result, store)
    assert len(calls) == len(wire.requests)
    total = sum((one.usage for one in calls), Usage())
    assert (result.usage.tokens, result.usage.micros, result.usage.model_calls) == (total.tokens, total.micros, total.model_calls)
    return result, calls


def reserved(call: ModelCalled) -> bool:
    """Whether a call was charged its worst case."""
    return call.usage.output_tokens == MOST_OUT and call.usage.input_tokens > 2 * TOLD[0] and call.usage.micros > 0


def verdict(result: RunResult) -> Verdict:
    [task] = result.tasks
    assert task.failure is not None
    return task.failure.verdict


def test_tools_and_a_typed_answer_over_the_wire(wire: Wire, store: str) -> None:
    def script(body: dict[str, Any]) -> Answer:
        results = wire.results(body)
        return Said(f'{{"total": {results[0]}}}') if results else Said(calls=(("add", '{"a": 1, "b": 2}'),))

    wire.script = script
    result, calls = carried_out(wire, asker(wire, output=Sum, tools=[add]), store)
    assert result.output == Sum(total=3)
    assert [(one.usage.input_tokens, one.usage.output_tokens, one.usage.micros) for one in calls] == [(10, 5, 20)] * 2


@pytest.mark.parametrize(
    ("misbehaviour", "charged"),
    [
        (Fault(429, AT_ONCE), False),
        (Fault(500, AT_ONCE), True),
        (Fault(body="{no"), True),
        (Said("half an ans", cut=True), True),
        ("timeout", True),
    ],
    ids=["429", "500", "no JSON", "cut", "timeout"],
)
def test_a_passing_fault_is_tried_again_and_accounted_for(wire: Wire, store: str, misbehaviour: Any, charged: bool) -> None:
    async def script(body: dict[str, Any]) -> Answer:
        if len(wire.requests) > 1:
            return Said("fine")
        if misbehaviour == "timeout":
            await asyncio.sleep(1.0)
            return Said("late")
        assert isinstance(misbehaviour, Said | Fault)
        return misbehaviour

    wire.script = script
    result, (first, second) = carried_out(wire, asker(wire, timeout=0.3), store)
    assert (result.status, result.output) == (Status.DONE, "fine")
    assert first.failure is not None
    assert (first.failure.verdict, first.failure.retryable) == (Verdict.PROVIDER, True)
    assert reserved(first) is charged
    assert charged or first.usage == Usage(model_calls=1)
    assert (first.step, second.usage.tokens, second.usage.turns) == (second.step, sum(TOLD), 1)


@pytest.mark.parametrize("status", [429, 500])
def test_a_lasting_fault_ends_the_task_after_four_tries(wire: Wire, store: str, status: int) -> None:
    wire.script = lambda body: Fault(status, AT_ONCE)
    result, calls = carried_out(wire, asker(wire), store)
    assert verdict(result) is Verdict.PROVIDER
    assert len(calls) == 4
    assert all(reserved(one) is (status == 500) for one in calls)


def test_a_refused_key_and_a_wait_that_is_too_long_are_not_tried_again(wire: Wire, store: str) -> None:
    wire.script = lambda body: Fault(401) if len(wire.requests) == 1 else Fault(429, (("Retry-After", "3600"),))
    for number in (1, 2):
        result = Team("askers", [asker(wire)]).run_sync("hi", runtime="inline", store=store)
        assert verdict(result) is Verdict.PROVIDER
        assert result.usage.tokens == 0
        assert len(wire.requests) == number


def test_no_try_goes_beyond_the_budget(wire: Wire, store: str) -> None:
    wire.script = lambda body: Fault(500, AT_ONCE)
    result, _ = carried_out(wire, asker(wire), store, budget=Limits(model_calls=2))
    assert len(wire.requests) == 2
    assert result.status is Status.BUDGET


def test_many_agents_never_ask_more_than_the_money_allows(wire: Wire, store: str) -> None:
    wire.script = lambda body: Said("fine", usage=len(wire.requests) % 2 == 0)
    plan = Plan(tasks=tuple(Task(id=f"a{number}", role="asker", input=f"question {number}") for number in range(24)))
    limit = 3_000
    result = Team("askers", [asker(wire)], planner=plan, budget=Limits(micros=limit)).run_sync(runtime="inline", store=store)
    calls = calls_of(result, store)
    assert result.status is Status.BUDGET
    assert 0 < len(wire.requests) < 24
    assert len(calls) == len(wire.requests)
    assert sum(one.usage.micros for one in calls) == result.usage.micros <= limit
    assert {reserved(one) for one in calls} == {True, False}


@pytest.mark.parametrize(
    ("call", "told"), [(("add", '{"a": 1, '), Verdict.BAD_ARGUMENTS), (("ad", '{"a": 1, "b": 2}'), Verdict.HALLUCINATED_TOOL)]
)
def test_wrong_calls_are_told_and_then_end_the_task(wire: Wire, store: str, call: tuple[str, str], told: Verdict) -> None:
    wire.script = lambda body: Said(calls=((call[0], call[1] + " " * len(wire.requests)),))
    result, calls = carried_out(wire, asker(wire, tools=[add]), store)
    assert verdict(result) is told
    assert len(calls) == 4
    assert len(wire.results(wire.requests[-1])) == 3


def test_an_answer_that_never_fits_is_a_verdict(wire: Wire, store: str) -> None:
    wire.script = lambda body: Said('{"total": "many"}')
    result, calls = carried_out(wire, asker(wire, output=Sum), store)
    assert verdict(result) is Verdict.SCHEMA
    assert len(calls) == 3


def test_text_is_seen_while_it_is_written_in_few_pieces(wire: Wire, store: str) -> None:
    words = "word " * 400
    wire.script = lambda body: Said(words)

    async def main() -> tuple[list[str], RunResult]:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(Team("askers", [asker(wire)]), "hi")
            heard = [one.body.text async for one in handle.events() if isinstance(one.body, PartialOutput)]
            return heard, await handle.result()

    heard, result = asyncio.run(main())
    assert "".join(heard) == result.output == words
    assert 1 <= len(heard) <= 20  # of 500 chunks on the wire


def test_a_model_that_runs_share_is_closed_after_the_last_of_them(wire: Wire, store: str) -> None:
    team = Team("askers", [asker(wire)])
    model = team.roles[0].model
    assert isinstance(model, ProviderModel)

    async def main() -> list[bool]:
        async with Board(runtime="inline", store=store) as board:
            await (await board.start(team, "hi")).result()
            await team.run("hi", runtime="inline", store=store)
            open_between = model._model is not None
        return [open_between, model._model is not None]

    assert asyncio.run(main()) == [True, False]


def test_a_call_that_is_cancelled_is_charged_its_worst_case(wire: Wire, store: str) -> None:
    async def script(body: dict[str, Any]) -> Answer:
        await asyncio.sleep(3.0)
        return Said("late")

    wire.script = script

    async def main() -> RunResult:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(Team("askers", [asker(wire)]), "hi")
            assert await asyncio.to_thread(wire.asked.wait, 10)
            await handle.cancel()
            return await handle.result()

    result = asyncio.run(main())
    [call] = calls_of(result, store)
    assert result.status is Status.CANCELLED
    assert reserved(call)
    assert (result.usage.tokens, result.usage.micros) == (call.usage.tokens, call.usage.micros)


def test_a_missing_key_is_said_before_anything_runs(wire: Wire, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{wire.provider.upper()}_API_KEY", raising=False)
    monkeypatch.delenv(f"{wire.provider.upper()}_BASE_URL", raising=False)
    with pytest.raises(BadInput, match=f"{wire.provider.upper()}_API_KEY"):
        Team("t", [Role("a", model=f"{wire.provider}:m")]).run_sync("hi", runtime="inline", store=store)
    journal = open_journal(store)
    assert journal.runs() == []
    journal.close()
