import random
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.repetition import MOST_EQUAL, Repetition, canonical
from protocols.chat import ToolCall
from protocols.failures import Failed, Verdict
from tests.agents.recorded_runs import DATA, recorded_runs
from tests.agents.repetition_accuracy import counted, loops, thrice

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def ask(**arguments: Any) -> ToolCall:
    return ToolCall(id="c", name="ask", arguments=arguments)


class Agent:
    """An agent whose every call is made, unless it is objected to; says after how many turns it was told, and stopped."""

    def __init__(self) -> None:
        self.watch, self.turn = Repetition(), 0
        self.told: list[int] = []
        self.words: list[str] = []

    def does(self, *calls: ToolCall, gives: str = "the same", says: str = "", repeatable: bool = False, writes: bool = False) -> None:
        self.turn += 1
        self.watch.begin()
        objections = [self.watch.check(call, repeatable=repeatable) for call in calls]
        for call, objection in zip(calls, objections, strict=True):
            if objection is None:
                self.watch.gave(call, gives, writes=writes)
        found = [one.message for one in objections if one is not None]
        note = self.watch.end(says)
        if found or note:
            self.told.append(self.turn)
            self.words += [*found, *([note] if note else [])]


def stopped_after(turns: Any) -> tuple[int, list[int]]:
    """The turn that ended the task, and those at which the model was told."""
    agent = Agent()

    def work() -> None:
        for number in range(60):
            turns(agent, number)

    with pytest.raises(Failed) as caught:
        work()
    assert caught.value.failure.verdict is Verdict.LOOP
    assert caught.value.failure.evidence
    return agent.turn, agent.told


def test_the_third_equal_call_is_told_with_what_it_gave_and_going_on_ends_the_task() -> None:
    agent = Agent()
    for _ in range(3):
        agent.does(ask(n=1), gives="nothing found")
    assert agent.told == [3]
    assert "2 times already with equal arguments; it gave: nothing found" in agent.words[0]
    agent.does(ask(n=1))
    assert agent.words[1] == "as you were told; made once more, this call ends the task. Do something else, or answer with what you know"
    assert stopped_after(lambda agent, number: agent.does(ask(n=1))) == (5, [3, 4])
    assert stopped_after(lambda agent, number: agent.does(ask(n=1), gives=f"result {number}")) == (5, [3, 4])


@pytest.mark.parametrize(("between", "verdict"), [(None, Verdict.PING_PONG), (ask(n=1), Verdict.LOOP)])
def test_work_that_is_handed_on_again_and_again_is_ping_pong(between: ToolCall | None, verdict: Verdict) -> None:
    handed = ToolCall(id="c", name="delegate", arguments={"tasks": [{"role": "helper", "input": "the whole goal"}]})
    agent = Agent()

    def work() -> None:
        for _ in range(20):
            agent.does(handed)
            if between is not None:
                agent.does(between)

    with pytest.raises(Failed) as caught:
        work()
    assert caught.value.failure.verdict is verdict
    assert "the whole goal" in str(caught.value.failure.evidence)
    assert ("repeatable=True" in caught.value.failure.message) is (verdict is Verdict.LOOP)


def test_other_spelling_is_the_same_call_as_long_as_it_gives_the_same() -> None:
    spelled = [ask(q="Blue  Hat", n=1000), ask(n="1,000", q="'blue hat'"), ask(q=" BLUE HAT ", n=1000.0), ask(q="“blue hat”", n="1e3")]
    assert stopped_after(lambda agent, number: agent.does(spelled[number % 4])) == (5, [3, 4])
    agent = Agent()
    for number in range(4):
        agent.does(spelled[number], gives=f"page {number}")
    assert agent.told == []


@given(values)
def test_key_order_and_spelling_do_not_count_and_content_does(value: Any) -> None:
    assert canonical({"a": value, "b": 1}) == canonical({"b": 1.0, "a": value})
    assert canonical([value]) != canonical([value, value])
    hash(canonical(value))


def test_digits_that_name_something_are_no_numbers() -> None:
    assert canonical("1,234.50") == canonical(1234.5) == Decimal("1234.5")
    assert canonical("007") != canonical("7")
    assert canonical("12345678901234567890") != canonical("12345678901234567891")


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6])
def test_calls_that_take_turns_are_told_and_stopped(period: int) -> None:
    ended, told = stopped_after(lambda agent, number: agent.does(ask(n=number % period), gives=f"about {number % period}"))
    assert told[0] == {2: 6}.get(period, 2 * period + 2)
    assert ended == told[0] + 1


def test_rounds_that_change_something_may_go_on_for_five() -> None:
    ended, told = stopped_after(lambda agent, number: agent.does(ask(n=number % 2), gives=f"version {number}"))
    assert (told[0], ended) == (10, 11)


def test_a_turn_of_equal_calls_is_told_once_and_can_be_mended() -> None:
    agent = Agent()
    agent.does(*[ask(n=1)] * 9)
    agent.does(ask(n=2), gives="new")
    agent.does(ask(n=1))
    assert agent.told == [1]


def test_two_different_repetitions_are_told_and_a_third_ends_the_task() -> None:
    agent = Agent()
    for n in (1, 2):
        for _ in range(3):
            agent.does(ask(n=n), gives=f"about {n}")
    assert agent.told == [3, 6]
    agent.does(ask(n=3), gives="about 3")
    agent.does(ask(n=3), gives="about 3")
    with pytest.raises(Failed, match="it goes round again after it was told of 2 repetitions: this call was made 2 times already"):
        agent.does(ask(n=3))


def test_a_pollster_may_ask_until_ten_equal_results_in_a_row() -> None:
    agent = Agent()
    for number in range(100):
        agent.does(ask(job=1), gives=f"{number // (MOST_EQUAL - 1)} done", repeatable=True)
    assert agent.told == []
    ended, told = stopped_after(lambda agent, number: agent.does(ask(job=1), gives="waiting", repeatable=True))
    assert (told[0], ended) == (MOST_EQUAL + 1, MOST_EQUAL + 3)


def test_the_same_words_count_while_nothing_new_comes_in() -> None:
    ended, told = stopped_after(lambda agent, number: agent.does(ask(n=number), says="I have to think about this."))
    assert (told, ended) == ([3], 4)
    assert stopped_after(lambda agent, number: agent.does(says="Still  thinking."))[0] == 4
    agent = Agent()
    for number in range(30):
        agent.does(ask(page=number), gives=f"page {number}", says="I read the next page.")
    assert agent.told == [6]


def test_results_that_bring_nothing_new_are_told_and_then_stopped() -> None:
    ended, told = stopped_after(lambda agent, number: agent.does(ask(n=number), gives="nothing found"))
    assert (told, ended) == ([12], 13)
    ended, told = stopped_after(lambda agent, number: agent.does(ask(n=number * number % 7), gives="nothing found"))
    assert ended <= 11


def test_new_pages_new_writes_and_calls_that_come_back_now_and_then_are_work() -> None:
    agent, draw = Agent(), random.Random(1)
    for number in range(60):
        agent.does(ask(page=number), gives=f"page {number}")
        agent.does(ask(to=number), gives="sent", writes=True)
        if draw.random() < 0.3:
            agent.does(ask(page=0), gives="page 0")
    assert agent.told == []


@pytest.mark.skipif(not DATA.exists(), reason=f"recorded runs are not on this machine ({DATA})")
def test_recorded_runs_with_three_equal_calls_are_told_and_those_that_succeeded_not_stopped() -> None:
    runs = recorded_runs()
    plain = counted([run for run in runs if thrice(run)])
    solved = counted([run for run in runs if run.solved])
    assert plain.runs >= 10
    assert plain.told == plain.runs
    assert solved.runs >= 200
    assert solved.stopped <= 0.02 * solved.runs


@pytest.mark.skipif(not DATA.exists(), reason=f"recorded runs are not on this machine ({DATA})")
def test_every_loop_put_into_a_recorded_run_is_stopped() -> None:
    for kind, count, told, stopped, took in loops(recorded_runs()):
        assert told == stopped == count > 50, kind
        assert took[-1] <= 14, kind


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans(), st.sampled_from(["", "a", "b"])), max_size=60))
def test_a_call_that_was_never_made_before_is_always_made(turns: list[tuple[int, int, bool, str]]) -> None:
    watch, made = Repetition(), set[int]()
    with suppress(Failed):
        for number, gives, polls, says in turns:
            watch.begin()
            objection = watch.check(ask(n=number), repeatable=polls)
            assert objection is None or number in made
            if objection is None:
                watch.gave(ask(n=number), f"{gives}")
                made.add(number)
            watch.end(says)
