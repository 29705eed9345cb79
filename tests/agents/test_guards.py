import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.guards import Meter, Mistakes
from protocols.budget import NOTHING, Limits, Usage, amount
from protocols.failures import Failed, Verdict

usages = st.builds(Usage, input_tokens=st.integers(0, 9), micros=st.integers(0, 9), model_calls=st.integers(0, 2), turns=st.integers(0, 2))
limited = st.none() | st.integers(0, 30)


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


@pytest.mark.parametrize(
    ("limits", "need", "words"),
    [
        (Limits(micros=500), Usage(micros=1_500), r"may use \$0.0005 in a task and has used \$0.00; the next call could need \$0.0015;"),
        (Limits(model_calls=0), Usage(model_calls=1), "may use 0 model calls in a task and has used 0 model calls; .* need 1 model call;"),
    ],
)
def test_a_limit_is_named_as_people_name_it(limits: Limits, need: Usage, words: str) -> None:
    with pytest.raises(Failed, match=words):
        Meter("a", limits).take(need)


def test_unknown_tools_name_what_exists_and_the_nearest() -> None:
    message = Mistakes().unknown("ad", ["look", "add"]).message
    assert "did you mean 'add'" in message
    assert "add, look" in message


def test_mistakes_are_told_in_three_turns_in_a_row_and_a_fourth_ends_the_task() -> None:
    watch = Mistakes()
    for verdict in (Verdict.HALLUCINATED_TOOL, Verdict.BAD_ARGUMENTS, Verdict.HALLUCINATED_TOOL):
        watch.begin()
        told = watch.refused("wrong") if verdict is Verdict.BAD_ARGUMENTS else watch.unknown("x", [])
        assert told.verdict is verdict
    watch.begin()
    with pytest.raises(Failed) as caught:
        watch.refused("wrong again")
    assert caught.value.failure.verdict is Verdict.BAD_ARGUMENTS
    assert caught.value.failure.evidence == ("wrong again",)


def test_many_mistakes_in_one_turn_are_one_and_a_turn_without_any_starts_anew() -> None:
    watch = Mistakes()
    for _ in range(4):
        for _ in range(3):
            watch.begin()
            watch.refused("wrong"), watch.refused("wrong too"), watch.fits(), watch.written("add", ["add"])
        watch.begin()
        watch.fits()
