"""Limits over many runs, in every store: never passed in any window, exact to the unit, and nothing reserved at rest.

``CALLBOARD_STEPS=2000`` walks as long as a release wants.
"""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestrator.journal import open_journal
from orchestrator.journal.allowances import EVERYONE, FRESH_MS, Claim, Limit, Short, Standing, Window, of_user
from orchestrator.journal.port import Journal
from protocols.budget import COUNTED, ZERO, Amount, Limits
from protocols.failures import BadInput, StaleEpoch

STEPS = int(os.environ.get("CALLBOARD_STEPS", "25"))
HOUR, DAY = 3_600_000, 86_400_000
ADA = of_user("ada")
SMALL = st.tuples(*[st.integers(0, 5)] * 5)


def calls(number: int) -> Amount:
    return (0, 0, number, 0, 0)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Journal]:
    """Opens a new store; called again it is another one."""
    numbers = iter(range(10_000))

    def open_() -> Journal:
        if request.param == "postgres":
            return open_journal(request.getfixturevalue("postgres").database())
        return open_journal("memory:" if request.param == "memory" else str(tmp_path / f"{next(numbers)}.db"))

    return open_


@pytest.fixture
def store(opened: Callable[[], Journal]) -> Iterator[Journal]:
    made = opened()
    yield made
    made.close()


def joined(store: Journal, run: str, user: str = "ada", at: int = 0) -> Claim:
    claim = Claim(run, user, 1)
    store.join(claim, ZERO, at)
    return claim


def standing(store: Journal, window: Window, at: int, account: str = ADA) -> Standing:
    (found,) = (one for one in store.standings(at, account) if one.limit.window is window)
    return found


class Draws(RuleBasedStateMachine):
    """Runs that draw, use some, crash, say things twice and end, while clocks jump. The model is what each run was told."""

    opened: Callable[[], Journal]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).opened()
        self.limits = [
            Limit(EVERYONE, Window.DAY, Limits(model_calls=40, tokens=60)),
            Limit(EVERYONE, Window.TOTAL, Limits(model_calls=10**9)),
            Limit(ADA, Window.HOUR, Limits(model_calls=12, turns=20)),
            Limit(ADA, Window.MONTH, Limits(micros=50)),
            Limit(of_user("bob"), Window.RUN, Limits(tokens=15)),
        ]
        self.store.set_limits(self.limits)
        self.at = 500 * DAY
        self.moments = [self.at]
        self.claims: list[Claim] = []
        self.used: dict[str, Amount] = {}
        self.drawn: dict[str, Amount] = {}
        self.lost: dict[str, Amount] = {}
        self.ended: set[str] = set()

    def pick(self, number: int) -> Claim:
        return self.claims[number % len(self.claims)]

    @rule(user=st.sampled_from(["ada", "bob"]))
    def begin(self, user: str) -> None:
        claim = Claim(f"run-{len(self.claims)}", user, 1)
        self.claims.append(claim)
        self.used[claim.run] = self.drawn[claim.run] = self.lost[claim.run] = ZERO
        self.store.join(claim, ZERO, self.at)

    @rule(jump=st.integers(-40 * DAY, 40 * DAY) | st.integers(0, HOUR))
    def clock(self, jump: int) -> None:
        self.at += jump
        self.moments.append(self.at)

    @precondition(lambda self: self.claims)
    @rule(number=st.integers(0, 9), held=SMALL, need=SMALL, most=st.integers(1, 8), again=st.booleans(), lost=st.booleans())
    def draw(self, number: int, held: Amount, need: Amount, most: int, again: bool, lost: bool) -> None:
        claim = self.pick(number)
        used, drawn = self.used[claim.run], self.drawn[claim.run]
        held = tuple(max(min(more, there - gone), 0) for more, there, gone in zip(held, drawn, used, strict=True))  # type: ignore[assignment]
        if claim.run in self.ended:
            with pytest.raises(StaleEpoch):
                self.store.draw(claim, used, held, need, most, self.at)
            return
        told = self.store.draw(claim, used, held, need, most, self.at)
        if again:
            told = self.store.draw(claim, used, held, need, most, self.at)
        if isinstance(told, Limits):
            given = [getattr(told, name) for name in COUNTED]
            for place, total in enumerate(given):
                assert total is None or total >= used[place] + held[place] + need[place]
                assert total is None or total <= max(self.lost[claim.run][place], used[place] + held[place] + most * need[place])
            after = tuple(there if total is None else total for there, total in zip(drawn, given, strict=True))
            self.lost[claim.run] = after  # type: ignore[assignment]
            if not lost:  # else it dies before it is journalled: the run knows nothing of it
                self.drawn[claim.run] = after  # type: ignore[assignment]

    @precondition(lambda self: self.claims)
    @rule(number=st.integers(0, 9), share=st.integers(0, 10), told=st.integers(0, 2))
    def use(self, number: int, share: int, told: int) -> None:
        claim = self.pick(number)
        if claim.run not in self.ended:
            drawn, used = self.drawn[claim.run], self.used[claim.run]
            more = tuple(was + (there - was) * share // 10 for there, was in zip(drawn, used, strict=True))
            self.used[claim.run] = more  # type: ignore[assignment]
            for _ in range(told):
                self.store.settle(claim, self.used[claim.run], None, self.at)

    @precondition(lambda self: self.claims)
    @rule(number=st.integers(0, 9))
    def resume(self, number: int) -> None:
        """Another coordinator takes the run over, gives back what it does not know of, and the one before is refused."""
        old = self.pick(number)
        if old.run not in self.ended:
            claim = self.claims[self.claims.index(old)] = old._replace(epoch=old.epoch + 1)
            self.store.join(claim, ZERO, self.at)
            self.store.settle(claim, self.used[claim.run], self.drawn[claim.run], self.at)
            self.lost[claim.run] = self.drawn[claim.run]
            for refused in (self.store.draw, self.store.settle):
                with pytest.raises(StaleEpoch):
                    refused(old, ZERO, ZERO, *([ZERO, 1] if refused == self.store.draw else []), self.at)  # type: ignore[operator]

    @precondition(lambda self: self.claims)
    @rule(number=st.integers(0, 9), times=st.integers(1, 2))
    def end(self, number: int, times: int) -> None:
        claim = self.pick(number)
        if claim.run not in self.ended:
            self.ended.add(claim.run)
            for _ in range(times):
                self.store.settle(claim, self.used[claim.run], None, self.at, ended=True)

    @invariant()
    def holds(self) -> None:
        self.within(self.moments[-5:])
        assert all(used[0] <= 15 for claim in self.claims if claim.user == "bob" for used in [self.used[claim.run]])

    def within(self, moments: list[int]) -> None:
        for at in moments:
            for limit, used, reserved, _ in self.store.standings(at):
                for place, name in enumerate(COUNTED):
                    most = getattr(limit.limits, name)
                    assert most is None or used[place] + reserved[place] <= most, f"{limit.account} per {limit.window}"

    def teardown(self) -> None:
        for claim in self.claims:
            if claim.run not in self.ended:
                self.store.settle(claim, self.used[claim.run], None, self.at, ended=True)
        self.within(self.moments)
        assert self.store.drawing() == []
        total = standing(self.store, Window.TOTAL, self.at, EVERYONE)
        assert total.reserved == ZERO
        assert total.used == tuple(sum(used[place] for used in self.used.values()) for place in range(5))
        self.store.close()


def test_no_window_is_ever_passed_and_every_unit_is_counted_once(opened: Callable[[], Journal], request: pytest.FixtureRequest) -> None:
    examples = 4 if "postgres" in request.node.name or STEPS > 1000 else 10 if "sqlite" in request.node.name else 50
    machine = type("OverOne", (Draws,), {"opened": staticmethod(opened)})
    settled = settings(max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=settled)


def test_what_is_used_counts_in_the_window_in_which_it_was_reserved(store: Journal) -> None:
    store.set_limits([Limit(ADA, Window.HOUR, Limits(model_calls=10)), Limit(ADA, Window.DAY, Limits(model_calls=15))])
    claim = joined(store, "a")
    assert store.draw(claim, ZERO, ZERO, calls(8), 1, HOUR - 1) == Limits(model_calls=8)
    store.settle(claim, calls(5), None, HOUR - 1)
    assert standing(store, Window.HOUR, 0)[1:] == (calls(5), calls(3), HOUR)
    assert store.draw(claim, calls(6), ZERO, calls(7), 1, HOUR) == Limits(model_calls=13)  # what is left moves on with it
    assert standing(store, Window.HOUR, 0)[1:3] == (calls(6), ZERO)
    assert standing(store, Window.HOUR, HOUR)[1:3] == (ZERO, calls(7))
    assert standing(store, Window.DAY, HOUR)[1:3] == (calls(6), calls(7))
    short = store.draw(claim, calls(12), ZERO, calls(4), 1, HOUR)
    assert isinstance(short, Short)
    assert str(short) == "model calls of user ada per day"
    assert store.draw(claim, calls(12), ZERO, calls(4), 1, DAY) == Limits(model_calls=16)


def test_what_a_run_has_left_moves_on_only_into_a_window_where_it_fits(store: Journal) -> None:
    store.set_limits([Limit(ADA, Window.HOUR, Limits(model_calls=10))])
    first, second = joined(store, "a"), joined(store, "b")
    assert store.draw(first, ZERO, ZERO, calls(8), 1, 0) == Limits(model_calls=8)
    assert store.draw(second, ZERO, ZERO, calls(5), 1, HOUR) == Limits(model_calls=5)
    assert isinstance(store.draw(first, ZERO, ZERO, calls(1), 1, HOUR), Short)  # one more would fit, and the eight do not
    store.settle(first, calls(2), None, HOUR)
    assert standing(store, Window.HOUR, 0)[1:3] == (calls(2), calls(6))
    store.settle(first, calls(4), None, HOUR)  # four are left, and fit
    assert standing(store, Window.HOUR, 0)[1:3] == (calls(4), ZERO)
    store.settle(first, calls(4), calls(99), HOUR)  # which draws nothing
    assert standing(store, Window.HOUR, HOUR)[1:3] == (ZERO, calls(9))


def test_what_is_left_is_shared_with_who_comes_next_and_waited_for_only_while_somebody_works(store: Journal) -> None:
    store.set_limits([Limit(EVERYONE, Window.TOTAL, Limits(model_calls=100))])
    first, second, third = (joined(store, name, name) for name in "abc")
    assert store.draw(first, ZERO, ZERO, calls(1), 80, 0) == Limits(model_calls=25)
    assert store.draw(second, ZERO, ZERO, calls(1), 80, 0) == Limits(model_calls=18)
    assert store.draw(third, ZERO, ZERO, calls(57), 1, 0) == Limits(model_calls=57)
    short = store.draw(second, calls(17), ZERO, calls(2), 1, 0, idle=True)
    assert short == Short(EVERYONE, Window.TOTAL, 2, others=True)
    assert store.settle(first, calls(25), None, 0)  # somebody waits
    assert store.draw(third, calls(57), ZERO, calls(1), 1, 0, idle=True) == Short(EVERYONE, Window.TOTAL, 2)  # who holds one waits too
    assert not store.settle(second, calls(18), None, FRESH_MS * 2)


def test_a_run_is_charged_from_when_it_joins_on_both_of_its_accounts_with_what_it_has_promised(store: Journal) -> None:
    store.set_limits([Limit(ADA, Window.TOTAL, Limits(model_calls=10))])
    claim = Claim("a", "ada", 3)
    store.join(claim, calls(7), 0, calls(9))
    assert standing(store, Window.TOTAL, 0)[1:3] == (ZERO, calls(2))
    assert store.draw(claim, calls(7), ZERO, calls(5), 1, 0) == Limits(model_calls=12)
    store.settle(claim, calls(9), None, 0)
    store.set_limits([Limit(EVERYONE, Window.DAY, Limits(model_calls=100))])
    store.settle(claim, calls(12), None, 0, ended=True)
    assert standing(store, Window.TOTAL, 0).used == calls(5)
    assert standing(store, Window.DAY, 0, EVERYONE).used == calls(5)


def test_limits_are_set_and_cleared_all_or_none(store: Journal) -> None:
    two = [Limit(ADA, Window.DAY, Limits(micros=5)), Limit(EVERYONE, Window.RUN, Limits(turns=7))]
    store.set_limits(two)
    assert sorted(store.limits()) == sorted(two)
    assert store.limits(ADA) == two[:1]
    with pytest.raises(BadInput, match="seconds don't add up"):
        store.set_limits([Limit(ADA, Window.DAY, Limits()), Limit(ADA, Window.HOUR, Limits(seconds=5))])
    assert store.limits(ADA) == two[:1]
    store.set_limits([Limit(ADA, Window.DAY, Limits())])
    assert store.limits() == two[1:]


def test_many_writers_at_once_never_draw_more_than_there_is(opened: Callable[[], Journal], store: Journal) -> None:
    store.set_limits([Limit(EVERYONE, Window.DAY, Limits(model_calls=30))])
    got: list[Any] = []

    def draw(run: str) -> None:
        claim, drawn = joined(store, run), 0
        while isinstance(told := store.draw(claim, calls(drawn), ZERO, calls(1), 4, 0), Limits):
            assert told.model_calls is not None
            drawn = told.model_calls
        store.settle(claim, calls(drawn), None, 0, ended=True)
        got.append(drawn)

    threads = [threading.Thread(target=draw, args=(f"run-{number}",)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 30
    assert standing(store, Window.DAY, 0, EVERYONE)[1:3] == (calls(30), ZERO)
