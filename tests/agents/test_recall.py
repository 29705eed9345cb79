"""What an earlier attempt did is read back: not paid again, not done again, never silently repeated."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import Context, Role, ScriptedModel, Tool, call, role, tool
from protocols.budget import Limits
from protocols.chat import ModelReply, ModelRequest, ToolCall
from protocols.failures import ModelError, Verdict
from protocols.messages import Message, ModelCalled, ToolCalled, ToolIntended
from tests.agents.bench import Worked, worked


class World:
    """A world that writes change, in plain sight."""

    def __init__(self, *, idempotent: bool = False) -> None:
        self.done: list[str] = []
        self.looks = 0
        self.keys: list[str] = []
        self.idempotent = idempotent

    @property
    def tools(self) -> list[Tool]:
        return [tool(self.look), tool(effect="write", idempotent=self.idempotent)(self.pay)]

    async def look(self, n: int) -> int:
        self.looks += 1
        return n

    async def pay(self, to: str, context: Context) -> str:
        self.done.append(to)
        self.keys.append(context.key)
        return f"paid {to}"


SCRIPT: list[Any] = [[call("look", n=1), call("look", n=2)], call("pay", to="ann"), call("look", n=3), "all paid"]


def attempt(world: World, history: Sequence[Message] = (), script: Any = SCRIPT, **settings: Any) -> tuple[Worked, ScriptedModel]:
    model = ScriptedModel(script)
    return worked(Role("a", instructions="Pay.", tools=world.tools, **settings), "go", model, history=history), model


@given(st.integers(0, 9))
def test_an_attempt_cut_anywhere_is_continued_and_nothing_is_done_twice(cut: int) -> None:
    world = World(idempotent=True)
    first, _ = attempt(world)
    assert first.output == "all paid"
    whole = list(first.messages)
    assert len(whole) == 9
    again = World(idempotent=True)
    second, model = attempt(again, whole[:cut])
    assert second.output == "all paid"
    paid_before = any(isinstance(one, ToolCalled) and one.call.name == "pay" for one in whole[:cut])
    assert again.done == ([] if paid_before else ["ann"])
    assert model.calls == 4 - sum(isinstance(one, ModelCalled) for one in whole[:cut])
    assert again.looks == 3 - sum(isinstance(one, ToolCalled) and one.call.name == "look" for one in whole[:cut])
    told = [type(one).__name__ for one in second.messages]
    paying = 4
    assert not any(second.desk.history.recall(step) for step in range(9) if step != paying), "what was read back is let go"
    intended_alone = isinstance(whole[cut - 1], ToolIntended) if cut else False
    assert told == [type(one).__name__ for one in whole[cut - 1 if intended_alone else cut :]]


def test_a_write_that_may_have_happened_is_in_doubt() -> None:
    first, _ = attempt(World())
    cut = next(place for place, one in enumerate(first.messages) if isinstance(one, ToolIntended)) + 1
    world = World()
    second, _ = attempt(world, first.messages[:cut])
    assert second.verdict is Verdict.EFFECT_IN_DOUBT
    assert world.done == []
    assert second.failure is not None
    assert second.failure.evidence == ("run/t/4",)


def test_an_idempotent_write_runs_again_under_the_same_key() -> None:
    first, _ = attempt(World(idempotent=True))
    cut = next(place for place, one in enumerate(first.messages) if isinstance(one, ToolIntended)) + 1
    world = World(idempotent=True)
    second, _ = attempt(world, first.messages[:cut])
    assert second.output == "all paid"
    assert world.keys == ["run/t/4"]


def test_changed_instructions_cut_the_history_off() -> None:
    first, _ = attempt(World(), script=[call("look", n=1), "seen"])
    model = ScriptedModel([call("look", n=1), "seen"])
    second = worked(Role("a", instructions="Changed.", tools=World().tools), "go", model, history=first.messages)
    assert second.output == "seen"
    assert model.calls == 2
    assert len(second.tool_calls) == 1


def test_a_changed_conversation_never_repeats_or_crosses_an_effect() -> None:
    first, _ = attempt(World(), script=[call("pay", to="ann"), "done"])
    for script in ([call("pay", to="bob"), "done"], [call("look", n=1), call("pay", to="ann"), "done"]):
        world = World()
        changed = Role("a", instructions="Changed.", tools=world.tools)
        second = worked(changed, "go", ScriptedModel(script), history=first.messages)
        assert second.verdict is Verdict.EFFECT_IN_DOUBT
        assert world.done == []
    world = World()
    changed = Role("a", instructions="Changed.", tools=world.tools)
    second = worked(changed, "go", ScriptedModel([call("pay", to="ann"), "done"]), history=first.messages)
    assert second.output == "done"  # the same effect in the same place: it was done, and is read back
    assert world.done == []


def test_a_third_attempt_recalls_both_before_it() -> None:
    first, _ = attempt(World(), script=[call("look", n=1), "one"])
    model = ScriptedModel([call("look", n=2), "two"])
    changed = Role("a", instructions="Changed.", tools=World().tools)
    second = worked(changed, "go", model, history=first.messages)
    again = ScriptedModel([])
    third = worked(changed, "go", again, history=[*first.messages, *second.messages])
    assert third.output == "two"
    assert again.calls == 0
    assert third.messages == []


def test_a_failed_call_is_made_again_and_its_words_are_not_told_again() -> None:
    one = Role("a")
    first = worked(one, "go", ScriptedModel([ModelError("down", retryable=False)]))
    second = worked(one, "go", ScriptedModel(["ok"]), history=first.messages)
    assert second.output == "ok"
    assert second.model_calls[0].step == 0
    assert second.model_calls[0].said == ()


def test_recalled_calls_count_against_the_limits_of_the_role() -> None:
    first, _ = attempt(World(), limits=Limits(turns=2))
    assert first.verdict is Verdict.TURNS
    second, model = attempt(World(), first.messages, limits=Limits(turns=2))
    assert second.verdict is Verdict.TURNS
    assert model.calls == 0


def test_recalled_time_counts_against_the_seconds_of_the_role() -> None:
    first, _ = attempt(World())
    slow = [one.model_copy(update={"ended": one.began + 60_000}) if isinstance(one, ModelCalled) else one for one in first.messages[:-1]]
    model = ScriptedModel(lambda request: "late", latency=0.05)

    def within(seconds: float) -> Verdict | None:
        one = Role("a", instructions="Pay.", tools=World().tools, limits=Limits(seconds=seconds))
        return worked(one, "go", model, history=slow).verdict

    assert within(60.0) is Verdict.DEADLINE
    assert within(100.0) is None  # what went on at the same time took its time once


def test_what_failed_before_counts_against_the_limits_of_the_role() -> None:
    down = ModelError("down", retryable=True, retry_after=0.0)
    one = Role("a", limits=Limits(model_calls=6, turns=1))
    first = worked(one, "go", ScriptedModel(lambda request: down))
    assert (first.verdict, len(first.model_calls)) == (Verdict.PROVIDER, 4)
    second = worked(one, "go", ScriptedModel(lambda request: down), history=first.messages)
    assert (second.verdict, len(second.model_calls)) == (Verdict.BUDGET, 2)
    third = worked(one, "go", ScriptedModel(["ok"]), history=first.messages)
    assert third.output == "ok"  # a turn of which nothing came was none


def test_a_function_role_recalls_what_it_asked() -> None:
    calls = 0

    def script(request: ModelRequest) -> Any:
        nonlocal calls
        calls += 1
        return "bad" if request.choice else "text"

    @role(model=ScriptedModel(script))
    async def clerk(text: str, context: Context) -> list[str]:
        told = await asyncio.gather(*(context.ask(f"{text} {n}") for n in range(5)))
        label = await context.choose(text, {"good": "fine", "bad": "broken"})
        return [*told, label.label]

    assert not isinstance(clerk.model, str)
    first = worked(clerk, "x", clerk.model)
    assert calls == 6
    second = worked(clerk, "x", clerk.model, history=first.messages[:4])
    assert second.output == first.output
    assert calls == 8


class Slow:
    """A receiver that takes too long the first time."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def send(self, context: Context) -> str:
        self.keys.append(context.key)
        await asyncio.sleep(5 if len(self.keys) == 1 else 0)
        return "sent"


@pytest.mark.parametrize(("idempotent", "verdict", "tries"), [(False, Verdict.EFFECT_IN_DOUBT, 1), (True, None, 2)])
def test_a_write_that_timed_out_is_in_doubt_unless_it_is_idempotent(idempotent: bool, verdict: Verdict | None, tries: int) -> None:
    slow = Slow()
    one = Role("a", tools=[tool(effect="write", timeout=0.02, idempotent=idempotent)(slow.send)])
    script = [call("send"), "done"]
    done = worked(one, "go", ScriptedModel(script))
    assert done.verdict is verdict
    assert slow.keys == ["run/t/1"] * tries
    again = worked(one, "go", ScriptedModel(script), history=done.messages)
    assert again.verdict is verdict
    assert len(slow.keys) == tries


def test_ids_of_calls_do_not_matter_to_recall() -> None:
    def script(request: ModelRequest) -> Any:
        if len(request.messages) > 2:
            return "done"
        return ModelReply(tool_calls=(ToolCall(id="random", name="pay", arguments={"to": "ann"}),))

    first, _ = attempt(World(), script=script)
    renamed = [
        one.model_copy(update={"call": one.call.model_copy(update={"id": "z"})}) if isinstance(one, ToolCalled) else one
        for one in first.messages
    ]
    world = World()
    second, _ = attempt(world, renamed, script=script)
    assert second.output == "done"
    assert world.done == []
