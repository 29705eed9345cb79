"""The ledger against a model of twenty lines that adds everything up anew. ``CALLBOARD_STEPS=2000`` walks as long as a release wants."""

import os
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestrator.ledger import ALLOWANCE, RUN, Ledger, least, minus, plus
from protocols.budget import COUNTED, ZERO, Amount, Limits

STEPS = int(os.environ.get("CALLBOARD_STEPS", "60"))
TOP = "top"
AMOUNTS = st.tuples(*[st.integers(0, 9)] * 5)
LIMITS = st.builds(Limits, tokens=st.none() | st.integers(0, 60), micros=st.none() | st.integers(0, 60), model_calls=st.integers(0, 60))


@dataclass
class Model:
    """What was told to each account, and nothing derived from it."""

    parents: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    used: dict[str, Amount] = field(default_factory=dict)
    held: dict[str, Amount] = field(default_factory=dict)
    excess: Amount = ZERO

    def above(self, name: str) -> list[str]:
        return [name, *(self.above(self.parents[name]) if name in self.parents else [])]

    def settled(self, name: str, place: int) -> int:
        return sum(used[place] for one, used in self.used.items() if name in self.above(one))

    def reserved(self, name: str, place: int) -> int:
        return sum(held[place] for one, held in self.held.items() if name in self.above(one))

    def free(self, name: str, place: int) -> int | None:
        limit = getattr(self.limits[name], COUNTED[place])
        return None if limit is None else limit - self.settled(name, place) - self.reserved(name, place)

    def fits(self, name: str, need: Amount) -> bool:
        frees = [(self.free(one, place), need[place]) for one in self.above(name) for place in range(5)]
        return all(free is None or wanted <= max(free, 0) for free, wanted in frees)


class Walk(RuleBasedStateMachine):
    """Agents that reserve, settle, give back, delegate, die, and say things late and twice; and an allowance that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        limits = Limits(model_calls=40, tokens=200)
        self.ledger, self.model = Ledger(limits), Model(limits={RUN: limits}, used={RUN: ZERO}, held={RUN: ZERO})
        self.last: tuple[str, Amount] | None = None

    def pick(self, number: int) -> str:
        names = [name for name in self.model.held if name != RUN] or [RUN]
        return names[number % len(names)]

    def settle(self, name: str, used: Amount) -> None:
        held = self.model.held[name]
        back = least(held, used)
        self.model.excess = plus(self.model.excess, minus(used, back))
        self.model.held[name] = minus(held, back)
        self.model.used[name] = plus(self.model.used[name], used)
        self.ledger.settle(name, used)
        self.last = name, used

    @precondition(lambda self: len(self.model.held) < 20)
    @rule(number=st.integers(0, 99), limits=st.none() | LIMITS, child=st.booleans())
    def spawn(self, number: int, limits: Limits | None, child: bool) -> None:
        name = f"t{len(self.model.held)}"
        parent = self.pick(number) if child else RUN
        self.ledger.open(name, parent, limits)
        self.model.parents[name], self.model.limits[name] = parent, limits or Limits()
        self.model.used[name], self.model.held[name] = ZERO, ZERO

    @rule(number=st.integers(0, 99), need=AMOUNTS)
    def reserve(self, number: int, need: Amount) -> None:
        name = self.pick(number)
        short = self.ledger.shortage(name, need)
        assert (short is None) == self.model.fits(name, need)
        if short is None:
            assert self.ledger.room(name, need) >= 1
            self.ledger.reserve(name, need)
            self.model.held[name] = plus(self.model.held[name], need)
        else:
            free = self.model.free(TOP if short.account == ALLOWANCE else short.account, short.dimension)
            assert free is not None
            assert short.free == max(free, 0)

    @rule(number=st.integers(0, 99), share=st.integers(0, 9))
    def call(self, number: int, share: int) -> None:
        """A call that used part of what was reserved for it."""
        name = self.pick(number)
        self.settle(name, tuple(one * share // 9 for one in self.model.held[name]))

    @rule(number=st.integers(0, 99), used=AMOUNTS)
    def overrun_or_settle_late(self, number: int, used: Amount) -> None:
        """A provider reported more than the worst case, or an agent whose lease was closed speaks."""
        self.settle(self.pick(number), used)

    @precondition(lambda self: self.last is not None)
    @rule()
    def settle_twice(self) -> None:
        assert self.last is not None
        self.settle(*self.last)

    @rule(number=st.integers(0, 99))
    def release(self, number: int) -> None:
        name = self.pick(number)
        self.ledger.release(name)
        self.model.held[name] = ZERO

    @rule(number=st.integers(0, 99))
    def crash(self, number: int) -> None:
        name = self.pick(number)
        lost = self.model.held[name]
        assert self.ledger.write_off(name) == lost
        self.model.used[name] = plus(self.model.used[name], lost)
        self.model.held[name] = ZERO

    @rule()
    def expire(self) -> None:
        """The run's time is over, or its coordinator died: everything at work is lost."""
        for name in list(self.model.held):
            self.model.used[name] = plus(self.model.used[name], self.ledger.write_off(name))
            self.model.held[name] = ZERO

    @rule(total=LIMITS)
    def allow(self, total: Limits) -> None:
        """What was drawn grows, or goes back as far as it is not promised."""
        self.ledger.allow(total)
        taken = [self.model.settled(RUN, place) + self.model.reserved(RUN, place) for place in range(5)]
        given = {name: getattr(total, name) for name in COUNTED}
        bounded = {name: max(limit, taken[place]) for place, (name, limit) in enumerate(given.items()) if limit is not None}
        self.model.parents[RUN], self.model.limits[TOP] = TOP, Limits(**bounded)

    @rule(limits=LIMITS)
    def bound(self, limits: Limits) -> None:
        """Somebody changes the run's own limits: above a new one nothing is promised, and what was stays."""
        self.ledger.bound(limits)
        self.model.limits[RUN] = limits
        taken = [self.model.settled(RUN, place) + self.model.reserved(RUN, place) for place in range(5)]
        bounded = [taken[place] if (limit := getattr(limits, name)) is None else limit for place, name in enumerate(COUNTED)]
        self.model.excess = plus(self.model.excess, tuple(max(more - limit, 0) for more, limit in zip(taken, bounded, strict=True)))

    @invariant()
    def adds_up(self) -> None:
        for name, account in self.ledger.accounts.items():
            its = TOP if name == ALLOWANCE else name
            assert account.settled == tuple(self.model.settled(its, place) for place in range(5))
            assert account.reserved == tuple(self.model.reserved(its, place) for place in range(5))

    @invariant()
    def stays_within_limits_but_for_what_nobody_reserved(self) -> None:
        for account in self.ledger.accounts.values():
            for place, limit in account.bounds:
                assert account.settled[place] + account.reserved[place] <= limit + self.model.excess[place]

    def teardown(self) -> None:
        for name in self.model.held:
            self.ledger.release(name)
        assert all(account.reserved == ZERO for account in self.ledger.accounts.values())


def test_whatever_agents_do_the_ledger_adds_up_and_nothing_passes_a_limit_unreserved() -> None:
    settled = settings(
        stateful_step_count=STEPS, max_examples=20 if STEPS < 1000 else 5, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Walk, settings=settled)
