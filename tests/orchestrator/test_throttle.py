"""The throttle: the window, the circuit, pauses and rates by the clock that it is given, and permits that are fair and come back."""

import asyncio
import random
from collections import deque
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.permits import Permits, Turn
from orchestrator.throttle import FIRST_PAUSE, LONGEST_PAUSE, NAMED_PAUSE, START, STRAIGHT_FAILURES, Circuit, Throttle, Word
from orchestrator.turnstile import strictest
from protocols.chat import Throttling
from protocols.failures import ModelError
from protocols.messages import CallsReported, PermitsChanged

REFUSED = ModelError("too many", retryable=True, charged=False, refused=True)
BROKEN = ModelError("it broke", retryable=True)


class One:
    """One host, as a throttle hears it: every permit that it is given is in use at once."""

    def __init__(self, throttle: Throttle, name: str = "h") -> None:
        self.throttle, self.name, self.number = throttle, name, 0
        self.in_use: list[tuple[str, int]] = []
        self.told: list[PermitsChanged] = []

    def say(self, now: float = 0.0, **what: Any) -> None:
        self.number += 1
        self.throttle.hear(self.name, CallsReported(link="l", number=self.number, model="m", **what), now)
        self.hear(self.throttle.decide(now))

    def hear(self, told: dict[str, PermitsChanged]) -> None:
        if self.name in told:
            self.told.append(told[self.name])
            self.in_use += [(run, told[self.name].round) for run, count in told[self.name].more for _ in range(count)]

    def end(self, count: int = 1, *, room: int | None = None, now: float = 0.0, run: str = "r", wants: int = 1_000, **what: Any) -> None:
        """So many calls end; with ``room``, those beyond it were refused."""
        refused = max(0, len(self.in_use) - room) if room is not None else 0
        gone = [self.in_use.pop() for _ in range(refused)]
        ended = [self.in_use.pop(0) for _ in range(min(count, len(self.in_use)))]
        self.say(
            now,
            waiting=((run, wants),),
            back=((run, len(gone) + len(ended)),),
            succeeded=len(ended),
            refused=tuple(round_ for _, round_ in gone),
            **what,
        )


@pytest.mark.parametrize("room", [1, 2, 5, 8, 15])
def test_the_window_settles_on_what_the_provider_takes_and_probes_ever_more_seldom(room: int) -> None:
    throttle = Throttle("m")
    host = One(throttle)
    host.say(waiting=(("r", 1_000),))
    assert len(host.in_use) == START
    windows = []
    for _ in range(400):
        host.end(room, room=room)
        windows.append(throttle.window)
    settled = windows[5 * room :]
    assert max(settled) <= room + 1
    assert sum(window <= room for window in settled) > 0.8 * len(settled)
    assert min(settled) >= room - 1


def test_the_window_grows_while_all_of_it_is_in_use_and_only_then() -> None:
    throttle = Throttle("m")
    host = One(throttle)
    host.say(waiting=(("r", 3),))
    for _ in range(50):
        host.end(3, wants=3)
    assert throttle.window == START
    host.say(waiting=(("r", 10_000),))
    for _ in range(7):
        host.end(len(host.in_use), wants=10_000)
    assert throttle.window > 50 * START


def test_refusals_of_one_round_trip_narrow_the_window_once_and_of_the_next_again() -> None:
    throttle = Throttle("m")
    host = One(throttle)
    host.say(waiting=(("r", 1_000),))
    host.end(0, room=14)
    assert throttle.window == int(START * 0.7)
    host.end(0, room=14)
    assert (throttle.window, throttle.round) == (int(START * 0.7), 1)
    host.end(6)
    assert [round_ for _, round_ in host.in_use[-3:]] == [1, 1, 1]
    host.end(0, room=10)
    assert (throttle.window, throttle.round) == (7, 2)


def test_a_refused_probe_costs_no_more_than_the_probe_however_many_calls_it_crowds_out() -> None:
    throttle = Throttle("m", good=8)
    throttle.declare(Throttling(concurrency=9), 0.0)
    host = One(throttle)
    host.say(waiting=(("r", 1_000),))
    host.end(0, room=8)
    host.end(0, room=6)
    assert (throttle.window, throttle.round) == (8, 1)


def test_nobody_has_a_turn_before_the_time_that_the_provider_named() -> None:
    throttle = Throttle("m")
    one, other = One(throttle, "one"), One(throttle, "other")
    one.say(waiting=(("r", 4),))
    one.end(3, room=3, now=10.0, wants=0, retry_after=7.0)
    other.say(10.1, waiting=(("q", 5),))
    assert (other.in_use, throttle.next_at(10.1)) == ([], 17.0)
    assert one.told[-1].lasting is False
    other.hear(throttle.decide(16.9))
    assert other.in_use == []
    other.hear(throttle.decide(17.0))
    assert len(other.in_use) == 3, "as many as it took before"


@pytest.mark.parametrize("seconds", [LONGEST_PAUSE + 1, 1e9, inf])
def test_a_time_that_nobody_would_wait_for_opens_the_circuit_and_is_probed_by_one_call_at_a_time(seconds: float) -> None:
    throttle = Throttle("m")
    host = One(throttle)
    host.say(waiting=(("r", 20),))
    host.say(10.0, waiting=(("r", 9),), back=(("r", 1),), refused=(0,), retry_after=seconds)
    assert (throttle.circuit(10.0), host.told[-1].open_for) == (Circuit.OPEN, NAMED_PAUSE)
    host.say(11.0, waiting=(("r", 9),), back=(("r", START - 1),), succeeded=START - 1)  # they were under way
    for probe in (1, 2, 3):
        at = 10.0 + probe * NAMED_PAUSE
        assert (throttle.next_at(at - 1), throttle.decide(at - 1)) == (at, {})
        host.hear(throttle.decide(at))
        assert (throttle.out, throttle.next_at(at)) == (1, None)
        if probe < 3:
            host.say(at, waiting=(("r", 9),), back=(("r", 1),), refused=(throttle.round,), retry_after=seconds)
    host.say(at, waiting=(("r", 9),), back=(("r", 1),), succeeded=1)
    assert throttle.circuit(at) is Circuit.CLOSED


def test_the_circuit_opens_after_failures_in_a_row_and_one_probe_closes_it() -> None:
    throttle, now = Throttle("m"), 0.0
    host = One(throttle)
    host.say(waiting=(("r", 1_000),))
    host.say(waiting=(("r", 1_000),), back=(("r", 4),), failed=STRAIGHT_FAILURES - 1)
    host.say(waiting=(("r", 1_000),), back=(("r", 1),), succeeded=1)
    host.say(waiting=(("r", 1_000),), back=(("r", 4),), failed=STRAIGHT_FAILURES - 1)
    assert throttle.open_until is None
    host.say(waiting=(("r", 1_000),), back=(("r", START),), failed=1, why="it broke")
    host.in_use.clear()
    pause = FIRST_PAUSE
    for _ in range(9):
        assert (host.told[-1].open_for, host.told[-1].why) == (pause, "it broke")
        host.hear(throttle.decide(now + 0.99 * pause))
        assert (host.in_use, throttle.next_at(now)) == ([], now + pause)
        now += pause
        host.hear(throttle.decide(now))
        assert len(host.in_use) == 1, "one probe"
        host.hear(throttle.decide(now + 100))
        assert len(host.in_use) == 1
        host.in_use.clear()
        host.say(now, waiting=(("r", 1_000),), back=(("r", 1),), failed=1, why="it broke")
        pause = min(2 * pause, LONGEST_PAUSE)
    now += pause
    host.hear(throttle.decide(now))
    host.end(1, now=now)
    assert (throttle.open_until, host.told[-1].open_for) == (None, None)
    assert len(host.in_use) > 1


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    throttle = Throttle("m")
    host, other = One(throttle), One(throttle, "other")
    host.say(waiting=(("r", 5),))
    host.say(failed=5, back=(("r", 5),), waiting=(("r", 5),))
    host.in_use.clear()
    host.hear(throttle.decide(FIRST_PAUSE))
    assert len(host.in_use) == 1
    throttle.lost("h")
    other.say(FIRST_PAUSE, waiting=(("r", 1),))
    assert len(other.in_use) == 1


def test_refusals_open_the_circuit_where_the_window_cannot_be_narrower() -> None:
    throttle = Throttle("m")
    host = One(throttle)
    host.say(waiting=(("r", 1_000),))
    for _ in range(40):
        host.end(0, room=0)
    assert (throttle.window, throttle.open_until) == (1, FIRST_PAUSE)


@settings(deadline=None)
@given(runs=st.integers(2, 9), window=st.integers(1, 12), ends=st.lists(st.integers(0, 1_000), max_size=200))
def test_a_run_never_waits_for_more_than_one_turn_of_every_other(runs: int, window: int, ends: list[int]) -> None:
    throttle = Throttle("m", declared=Throttling(), window=window)
    first, late = One(throttle, "one"), One(throttle, "other")
    names = [f"run-{number}" for number in range(runs)]
    first.say(waiting=((names[0], 10_000),))
    late.say(waiting=tuple((name, 10_000) for name in names[1:]))
    since = dict.fromkeys(names[1:], 0)
    for pick in ends:
        host = (first, late)[pick % 2]
        if host.in_use:
            run, _ = host.in_use.pop(pick % len(host.in_use))
            before = {run: since[run] for run in since}
            told = len(first.told), len(late.told)
            wants = ((names[0], 10_000),) if host is first else tuple((name, 10_000) for name in names[1:])
            host.say(waiting=wants, back=((run, 1),))
            (late if host is first else first).hear(throttle.decide(0.0))
            given_to = {run for one, seen in zip((first, late), told, strict=True) for said in one.told[seen:] for run, _ in said.more}
            since = {run: 0 if run in given_to else before[run] + 1 for run in since}
            held = {run: sum(count for (_, of), count in throttle.held.items() if of == run) for run in names}
            assert throttle.out <= throttle.window
            for name in names[1:]:
                assert held[name] or since[name] < runs + window, "it has a call under way, or its turn comes"


@settings(deadline=None)
@given(
    declared=st.builds(Throttling, requests_per_minute=st.integers(1, 200), tokens_per_minute=st.none() | st.integers(1, 100_000)),
    steps=st.lists(st.tuples(st.floats(0, 4), st.integers(0, 2_000)), min_size=40, max_size=120),
    share=st.sampled_from([1.0, 0.5]),
)
def test_no_minute_has_more_requests_than_were_declared(declared: Throttling, steps: list[tuple[float, int]], share: float) -> None:
    throttle, now = Throttle("m", share), 0.0
    throttle.declare(declared, now)
    host, begun = One(throttle), list[float]()
    host.say(waiting=(("r", 100_000),), need=500)
    begun += [now] * len(host.in_use)
    for passed, tokens in steps:
        now += passed
        count = len(host.in_use)
        host.in_use.clear()
        host.say(now, waiting=(("r", 100_000),), back=(("r", count),), succeeded=count, tokens=tokens * count)
        begun += [now] * len(host.in_use)
    assert host.told[-1].lasting is False
    limit = max(1, int((declared.requests_per_minute or 0) * share))
    for place, at in enumerate(begun):
        assert sum(1 for other in begun[place:] if other < at + 60) <= limit


def test_tokens_are_paced_by_what_calls_really_use() -> None:
    throttle, now, used = Throttle("m"), 0.0, 0
    throttle.declare(Throttling(tokens_per_minute=60_000), now)
    host = One(throttle)
    host.say(waiting=(("r", 100_000),), need=20_000)
    for second in range(600):
        now = second / 2
        count = len(host.in_use)
        host.in_use.clear()
        host.say(now, waiting=(("r", 100_000),), back=(("r", count),), succeeded=count, tokens=300 * count)
        used += 300 * count
    assert 0.8 * 60_000 * 5 <= used <= 60_000 * 5.2


def test_the_strictest_declaration_holds_and_each_coordinator_has_its_share() -> None:
    declared = strictest([Throttling(concurrency=9, requests_per_minute=100), Throttling(concurrency=6), Throttling()])
    assert declared == Throttling(concurrency=6, requests_per_minute=100)
    throttle = Throttle("m", share=0.5)
    throttle.declare(declared, 0.0)
    host = One(throttle)
    host.say(waiting=(("r", 1_000),))
    assert len(host.in_use) == 3


class Peers:
    """Coordinators that share a provider, with a host each. Every second call ends; those beyond ``room`` are refused."""

    def __init__(self, room: int, count: int = 2, share: float = 1.0, declared: Throttling | None = None) -> None:
        self.room, self.sides = room, [One(Throttle("m", share)) for _ in range(count)]
        for side in self.sides:
            side.throttle.declare(declared or Throttling(), 0.0)
            side.say(waiting=(("r", 1_000),))

    @property
    def under_way(self) -> int:
        return sum(len(side.in_use) for side in self.sides)

    def end(self, which: int, now: float = 0.0, *, heard: bool = True, **what: Any) -> None:
        """The oldest call of one side ends, and all of its calls that are refused do."""
        one = self.sides[which]
        refused = max(0, self.under_way - self.room)
        before = len(one.in_use)
        one.end(1, room=max(0, before - refused), now=now, **what)
        assert len(one.in_use) <= max(before, one.throttle.window), "only so many are given as the window allows"
        self.spread(which, now, heard=heard)

    def spread(self, which: int, now: float = 0.0, *, heard: bool = True) -> None:
        """What one has to say reaches the others, or is lost; what they say to that does too."""
        word = self.sides[which].throttle.word(now)
        if word is None or not heard:
            return
        for number, side in enumerate(self.sides):
            if number != which:
                side.throttle.overhear(word, now)
                side.hear(side.throttle.decide(now))
                self.spread(number, now)


def test_coordinators_come_to_share_alike_what_a_provider_takes() -> None:
    peers, chance = Peers(room=8), random.Random(1)
    windows = []
    for _ in range(4_000):
        peers.end(chance.choices((0, 1), [len(side.in_use) + 0.01 for side in peers.sides])[0])
        windows.append([side.throttle.window for side in peers.sides])
    settled = windows[1_000:]
    assert sum(sum(pair) for pair in settled) / len(settled) == pytest.approx(8, abs=0.7)
    assert sum(abs(one - other) <= 2 for one, other in settled) > 0.9 * len(settled)


def test_a_coordinator_takes_what_another_needs_no_more() -> None:
    peers = Peers(room=40)
    for turn in range(8_000):
        peers.end(turn % 2)
    one, other = peers.sides
    while one.in_use:
        one.end(len(one.in_use), wants=0)
    peers.spread(0)
    for _ in range(12 * 40):
        peers.end(1)
    assert other.throttle.window >= 38


@settings(deadline=None)
@given(
    room=st.integers(1, 12),
    most=st.none() | st.integers(2, 12),
    moves=st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.floats(0, 0.5)), max_size=120),
)
def test_peers_never_have_more_under_way_than_they_were_allowed_whatever_is_lost(
    room: int, most: int | None, moves: list[tuple[int, bool, float]]
) -> None:
    declared, now = Throttling(concurrency=most), 0.0
    peers = Peers(room, share=0.5, declared=declared)
    for which, heard, passed in moves:
        now += passed
        peers.end(which, now, heard=heard)
        assert most is None or peers.under_way <= most
        for side in peers.sides:
            assert side.throttle.window >= 1


def test_a_time_that_one_coordinator_is_told_silences_all() -> None:
    peers = Peers(room=8)
    one, other = peers.sides
    one.end(8, room=8, now=10.0, retry_after=7.0)
    peers.spread(0, 10.0)
    other.end(len(other.in_use), now=10.1)
    assert (other.in_use, other.throttle.next_at(10.1), other.told[-1].lasting) == ([], 17.0, False)
    other.hear(other.throttle.decide(17.0))
    assert other.in_use


def test_what_worked_and_is_refused_narrows_peers_once_a_window() -> None:
    throttle = Throttle("m")
    throttle.declare(Throttling(concurrency=20), 0.0)
    host = One(throttle)
    host.say(waiting=(("r", 1_000),))
    refused = Word("m", refused=True, window=4)
    throttle.overhear(refused, 0.0)
    assert throttle.window == 20, "no window of calls has ended yet"
    host.end(20)
    for _ in range(3):
        throttle.overhear(refused, 0.0)
    assert throttle.window == 14
    assert throttle.word(0.0) is None, "what one was told is not told on"


def test_a_circuit_that_opens_opens_for_all_and_is_probed_by_all_when_it_has_closed_for_one() -> None:
    peers = Peers(room=100)
    one, other = peers.sides
    one.say(waiting=(("r", 9),), back=(("r", START),), failed=STRAIGHT_FAILURES, why="it broke")
    one.in_use.clear()
    peers.spread(0)
    assert [side.throttle.circuit(0.5) for side in peers.sides] == [Circuit.OPEN] * 2
    assert (other.told[-1].open_for, other.told[-1].why) == (FIRST_PAUSE, "it broke")
    one.hear(one.throttle.decide(FIRST_PAUSE))
    assert len(one.in_use) == 1
    other.end(START, now=0.5, room=START)
    assert other.throttle.circuit(0.5) is Circuit.CLOSED, "its own calls succeed"
    other.throttle.overhear(Word("m", open_for=30.0, why="it broke"), 0.5)
    one.end(1, now=FIRST_PAUSE)
    peers.spread(0, FIRST_PAUSE)
    assert one.throttle.circuit(FIRST_PAUSE) is Circuit.CLOSED
    assert other.throttle.circuit(FIRST_PAUSE) is Circuit.HALF_OPEN


def test_a_call_that_is_made_again_goes_before_those_that_waited_less() -> None:
    async def play() -> list[str]:
        net, served = Net(1), list[str]()

        async def ask(name: str, *, again: bool) -> None:
            await net.permits["h0"].take("m", "r", 10, elsewhere=False, again=again)
            served.append(name)

        tasks = [asyncio.create_task(ask(f"waits {number}", again=False)) for number in range(6)]
        tasks.append(asyncio.create_task(ask("again", again=True)))
        for _ in range(4):
            await asyncio.sleep(0)
            net.carry("h0")
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        return served

    assert asyncio.run(play()) == ["again", "waits 0", "waits 1"]


class Net:
    """A throttle and real permits of several hosts, whose messages take their time, in order."""

    def __init__(self, hosts: int) -> None:
        self.throttle, self.now, self.links = Throttle("m", window=3), 0.0, 0
        self.up: dict[str, deque[CallsReported]] = {}
        self.down: dict[str, deque[PermitsChanged]] = {}
        self.permits: dict[str, Permits] = {}
        self.calls: list[tuple[str, Turn]] = []
        self.waiting: list[asyncio.Task[None]] = []
        for number in range(hosts):
            name = f"h{number}"
            self.up[name], self.down[name] = deque(), deque()
            self.permits[name] = Permits(self.up[name].append)
            self.attach(name)

    def attach(self, name: str) -> None:
        self.links += 1
        self.throttle.lost(name)
        self.up[name].clear()
        self.down[name].clear()
        self.permits[name].attach(str(self.links))
        self.tell()

    def tell(self) -> None:
        for host, said in self.throttle.decide(self.now).items():
            self.down[host].append(said)

    async def ask(self, name: str, run: str) -> None:
        self.calls.append((name, await self.permits[name].take("m", run, 10, elsewhere=False)))

    def carry(self, name: str, *, again: bool = False) -> None:
        if self.up[name]:
            self.throttle.hear(name, self.up[name][0] if again else self.up[name].popleft(), self.now)
            self.tell()
        if self.down[name]:
            self.permits[name].hear(self.down[name].popleft())

    def check(self) -> None:
        known = {host for host in self.permits if not (self.up[host] and self.up[host][0].number == 1)}
        for host in known & self.throttle.hosts:
            held = sum(count for (at, _), count in self.throttle.held.items() if at == host)
            assert sum(at == host for at, _ in self.calls) <= held, "a call without a permit"


@settings(max_examples=200, deadline=None)
@given(moves=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 2)), min_size=40, max_size=160))
def test_every_call_has_a_permit_and_all_come_back_whatever_happens(moves: list[tuple[int, int, int]]) -> None:
    async def play() -> None:
        net = Net(2)
        for move, which, run in moves:
            name = f"h{which}"
            if move < 3:
                net.waiting.append(asyncio.create_task(net.ask(name, f"run-{run}")))
            elif move < 5 and net.calls:
                _, turn = net.calls.pop(which % len(net.calls))
                turn.ended(5, (None, REFUSED, BROKEN)[run] if move == 4 else None)
            elif move == 5 and net.waiting:
                net.waiting.pop(which - 1).cancel()
            elif move == 6 and run == 0:
                net.attach(name)
            else:
                net.now += run
                net.carry(name, again=move == 7)
                if run == 1:
                    continue  # something else happens before those who were served know
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            net.check()
        for _ in range(5_000):  # everybody is quick and successful from now on
            for _, turn in net.calls:
                turn.ended(5)
            net.calls.clear()
            net.now += LONGEST_PAUSE
            net.tell()
            for name in net.permits:
                net.carry(name)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not net.calls and not any(net.up.values()) and not any(net.down.values()):
                break
        assert all(task.done() for task in net.waiting), "everybody who waited had a turn"
        assert (net.throttle.out, net.throttle.waiting) == (0, {})

    asyncio.run(play())
