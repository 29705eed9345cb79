"""Calls that have too little room are made with fewer output tokens, the most that fit; below a floor they are refused."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents import Role, ScriptedModel, call, say, tool
from agents.call_size import CallSize, fewest
from protocols.budget import PLENTY, Limits, amount
from protocols.chat import Finish, ModelRequest, Price, Shortened
from protocols.failures import Verdict
from tests.agents.bench import worked

PRICES = st.none() | st.builds(Price, input_micros=st.integers(0, 5_000_000), output_micros=st.integers(0, 5_000_000))
ROOM = st.integers(0, 3_000) | st.just(PLENTY)
OUT = Price(input_micros=0, output_micros=1_000_000)


@given(st.integers(0, 500), st.integers(1, 700), PRICES, st.tuples(ROOM, ROOM, st.integers(0, 2), st.just(0), st.integers(0, 2)))
def test_the_reply_may_be_as_long_as_there_is_room_for_and_not_a_token_longer(
    tokens_in: int, most: int, price: Price | None, room: tuple[int, int, int, int, int]
) -> None:
    size = CallSize(tokens_in, most, fewest(most), price, 1)

    def fits(out: int) -> bool:
        return all(one <= left for one, left in zip(amount(size.need(out)), room, strict=True))

    found = size.within(room)
    if found is None:
        assert not fits(size.least)
    else:
        assert size.least <= found <= most
        assert fits(found)
        assert found == most or not fits(found + 1)


@given(st.integers(1, 400), st.integers(0, 500), st.integers(0, 900), PRICES)
def test_a_call_is_refused_only_where_the_shortest_does_not_fit_and_nothing_is_overspent(
    most: int, written: int, tokens: int, price: Price | None
) -> None:
    allowed = []

    def answer(request: ModelRequest) -> Any:
        allowed.append(request.max_output_tokens)
        return say("x", input_tokens=1, output_tokens=written)

    limits = Limits(tokens=tokens, micros=1_000)
    model = ScriptedModel(answer, price=price)
    done = worked(Role("a", max_output_tokens=most, limits=Limits()), "go", model, limits=limits)
    tokens_in = model.bound(ModelRequest(messages=done.model_calls[0].said))[0] if done.model_calls else 1
    shortest = CallSize(tokens_in, fewest(most), fewest(most), price, 1).need(fewest(most))
    assert bool(allowed) == (shortest.tokens <= tokens and shortest.micros <= 1_000)
    assert done.desk.usage.tokens <= tokens
    assert done.desk.usage.micros <= 1_000
    for told, out in zip(done.model_calls, allowed, strict=True):
        assert told.shortened == (Shortened(tokens=out) if out < most else None)
        assert told.usage.output_tokens <= out


def test_a_roles_own_limits_shorten_the_last_call_and_what_is_cut_off_ends_the_task_with_budget() -> None:
    looks = tool(lambda: "a page", name="look", description="Look.")
    script = [call("look"), say("as long as it may be", output_tokens=900)]
    for micros, verdict, shortened in ((512, Verdict.BUDGET, Shortened(tokens=511)), (2_000, Verdict.SCHEMA, None)):
        role = Role("a", tools=[looks], max_output_tokens=512, limits=Limits(micros=micros))
        done = worked(role, "go", ScriptedModel([*script, script[-1]], price=OUT))
        last = done.model_calls[1]
        assert last.reply is not None
        assert (done.verdict, last.shortened, last.reply.finish) == (verdict, shortened, Finish.LENGTH)
        model = ScriptedModel([], price=OUT)
        again = worked(role, "go", model, history=done.messages)
        assert (again.verdict, model.calls, again.messages) == (verdict, 0, [])
