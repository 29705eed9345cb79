import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.guards import Calls, Meter
from protocols.budget import NOTHING, Limits, Usage, amount
from protocols.chat import ToolCall
from protocols.failures import Failed, Verdict

usages = st.builds(Usage, input_tokens=st.integers(0, 9), micros=st.integers(0, 9), model_calls=st.integers(0, 2), turns=st.integers(0, 2))
limited = st.none() | st.integers(0, 30)


def add(n: int) -> ToolCall:
    return ToolCall(id="c", name="add", arguments={"n": n})


@given(
    st.builds(Limits, tokens=limited, micros=limited, model_calls=limited, turns=limited),
    st.lists(st.tuples(usages, st.booleans()), max_size=30),
)
def test_no_order_of_taking_and_giving_back_passes_a_limit(limits: Limits, calls: list[tuple[Usage, bool]]) -> None:
    meter, held = Meter("a", limits), [0] * 5
    most = [limits.tokens, limits.micros, limits.model_calls, limits.tool_calls, limits.turns]
    for need, used_up in calls:
        fits = all(
            bound is None or not one or held[place] + one <= bound
            for place, (one, bound) in enumerate(zip(amount(need), most, strict=True))
        )
        try:
            meter.take(need)
        except Failed:
            assert not fits
            continue
        assert fits
        if used_up:
            held = [one + other for one, other in zip(held, amount(need), strict=True)]
        else:
            meter.settle(need, NOTHING)


def test_only_calls_in_a_row_are_repetition() -> None:
    watch = Calls()
    for n in (1, 1, 2, 1, 1, 2):
        assert watch.repeated(add(n), repeatable=False) is None


def test_the_third_equal_call_is_told_with_evidence_and_the_fourth_ends_the_task() -> None:
    watch = Calls()
    for _ in range(2):
        assert watch.repeated(add(1), repeatable=False) is None
        watch.gave(add(1), "the result")
    told = watch.repeated(add(1), repeatable=False)
    assert told is not None
    assert "the result" in told.message
    with pytest.raises(Failed) as caught:
        watch.repeated(add(1), repeatable=False)
    assert caught.value.failure.verdict is Verdict.LOOP
    assert caught.value.failure.evidence[0] == 'add({"n":1})'


def test_repeatable_tools_are_never_told() -> None:
    watch = Calls()
    assert all(watch.repeated(add(1), repeatable=True) is None for _ in range(9))


def test_unknown_tools_name_what_exists_and_the_nearest() -> None:
    watch = Calls()
    message = watch.unknown(ToolCall(id="c", name="ad", arguments={}), ["add", "look"]).message
    assert "did you mean 'add'" in message
    assert "add, look" in message
    watch.refused("wrong"), watch.refused("wrong")
    with pytest.raises(Failed) as caught:
        watch.refused("wrong again")
    assert caught.value.failure.verdict is Verdict.BAD_ARGUMENTS
