"""A call that is silent for long is made twice: whoever speaks first is heard, and both are accounted for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agents import LocalDesk, Role, ScriptedModel
from agents.loop import work
from protocols.budget import Limits, Usage
from protocols.chat import ModelReply, ModelRequest, Price, Throttling
from protocols.failures import BadInput, Failed, ModelError, Verdict
from protocols.messages import ModelCalled

PRICE = Price(input_micros=1_000_000, output_micros=1_000_000)
ROLE = Role("a", hedge_after=0.02, max_output_tokens=40)


class Two(ScriptedModel):
    """A provider's model whose first call and second call do what ``calls`` say, each knowing of both when they have begun."""

    throttling = Throttling()

    def __init__(self, *calls: Callable[["Two", Callable[[str], None]], Any]) -> None:
        super().__init__([], price=PRICE)
        self.does, self.begun, self.stopped = calls, asyncio.Event(), 0

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        does = self.does[min(self.calls, len(self.does) - 1)]
        self.calls += 1
        if self.calls == 2:
            self.begun.set()
        try:
            said = await does(self, on_text or (lambda text: None))
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return ModelReply(text=said, input_tokens=1, output_tokens=2)


async def silent(model: Two, on_text: Callable[[str], None]) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def speaks(model: Two, on_text: Callable[[str], None]) -> str:
    """Once both have begun."""
    await model.begun.wait()
    on_text("whole ")
    await asyncio.sleep(0)
    on_text("reply")
    return "whole reply"


async def interrupts(model: Two, on_text: Callable[[str], None]) -> str:
    """Speaks after the other has begun to."""
    await model.begun.wait()
    await asyncio.sleep(0)
    on_text("not this")
    return await silent(model, on_text)


async def breaks(model: Two, on_text: Callable[[str], None]) -> str:
    await model.begun.wait()
    raise ModelError("it broke", retryable=True, retry_after=0.0, charged=False)


def asked(model: Two, role: Role = ROLE, limits: Limits | None = None) -> tuple[Any, LocalDesk, str]:
    heard: list[str] = []

    async def once() -> tuple[Any, LocalDesk]:
        desk = LocalDesk(limits=limits or Limits(), on_text=heard.append)
        try:
            return await work(role, "go", desk, model), desk
        except Failed as error:
            return error.failure.verdict, desk

    found, desk = asyncio.run(once())
    assert desk.usage == sum((one.usage for one in told(desk)), Usage())
    return found, desk, "".join(heard)


def told(desk: LocalDesk) -> list[ModelCalled]:
    return [one for one in desk.messages if isinstance(one, ModelCalled)]


@pytest.mark.parametrize("calls", [(silent, speaks), (speaks, silent), (speaks, interrupts)])
def test_who_speaks_first_is_heard_and_the_other_is_stopped_and_charged(calls: tuple[Any, ...]) -> None:
    model = Two(*calls)
    found, desk, heard = asked(model)
    assert (found, heard, model.calls, model.stopped) == ("whole reply", "whole reply", 2, 1)
    lost, won = told(desk)
    assert lost.failure is not None
    assert lost.failure.verdict is Verdict.CANCELLED
    assert (lost.hedged, won.hedged, lost.step, len(lost.said), won.said) == (True, True, won.step, 1, ())
    worst = model.bound(ModelRequest(messages=lost.said, max_output_tokens=40))
    assert (lost.usage.input_tokens, lost.usage.output_tokens) == worst
    assert desk.usage.turns == 1
    again, model = LocalDesk(attempt=2, history=desk.messages), Two(silent)
    assert asyncio.run(work(ROLE, "go", again, model)) == "whole reply"
    assert (model.calls, again.messages) == (0, [])


@pytest.mark.parametrize("calls", [(breaks, speaks), (speaks, breaks)])
def test_where_one_breaks_the_other_is_waited_for(calls: tuple[Any, ...]) -> None:
    found, desk, _ = asked(Two(*calls))
    assert found == "whole reply"
    lost, won = told(desk)
    assert lost.failure is not None
    assert lost.failure.verdict is Verdict.PROVIDER
    assert (lost.usage.tokens, won.usage.tokens) == (0, 3)


def test_where_both_break_the_call_is_tried_again_as_one_that_did() -> None:
    found, desk, _ = asked(Two(breaks, breaks, speaks))
    assert found == "whole reply"
    assert [one.failure is None for one in told(desk)] == [False, False, True]


def test_without_room_for_both_or_a_provider_one_call_is_made() -> None:
    async def slow(model: Two, on_text: Callable[[str], None]) -> str:
        await asyncio.sleep(0.1)
        return "late"

    for role, limits in (
        (ROLE, Limits(model_calls=1)),
        (ROLE, Limits(model_calls=2)),  # for both, and not for what comes after them
        (Role("a", hedge_after=0.02, limits=Limits(tokens=60), max_output_tokens=40), None),
    ):
        model = Two(slow)
        found, desk, _ = asked(model, role, limits)
        assert (found, model.calls, [one.hedged for one in told(desk)]) == ("late", 1, [False])
    model = Two(slow)
    model.throttling = None  # type: ignore[assignment]
    assert asked(model)[0] == "late"
    assert model.calls == 1
    with pytest.raises(BadInput, match="hedge_after"):
        Role("a", hedge_after=0.0)


def test_an_agent_that_is_stopped_meanwhile_stops_both_and_tells_of_both() -> None:
    model = Two(silent)

    async def stopped() -> LocalDesk:
        desk = LocalDesk()
        working = asyncio.create_task(work(ROLE, "go", desk, model))
        await model.begun.wait()
        working.cancel()
        await asyncio.wait((working,))
        return desk

    desk = asyncio.run(stopped())
    assert [one.failure.verdict for one in told(desk) if one.failure] == [Verdict.CANCELLED] * 2
    assert (model.stopped, desk.usage.model_calls) == (2, 2)
