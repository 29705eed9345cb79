"""The throttle of one model: how many calls all hosts together may have under way, whose turn it is, and when nobody calls. Pure.

No clock and no I/O: time comes in, in seconds. Permits are what a host needs to call: they are given, and come back.

*Window.* It starts at what was declared, or at ``START``, and nobody knows yet what the provider takes. Each window of calls that all
succeeded while the whole window was in use widens it, by a step that doubles. The first refusal of a round trip narrows it: to what
worked before, if this was a probe beyond that, and else by ``DECREASE``. Further refusals of calls that began before that say
nothing more of a probe, and else narrow it to as many as the provider has taken. After a refused probe the next one waits for twice as
many windows.

*Plateau.* A window that was narrowed below what had worked climbs back to that, and stays there as long as it would have before it probes.

*Peers.* Several coordinators share a provider, and each has a throttle of its own. What worked before and is refused narrows the windows
of all, once a window of calls; a named time silences all, and a circuit opens for all. Who has a wider window than one who was refused
gives up one call of it, and who needs less says so: then the others probe at once. Words may get lost: each finds out by itself too.

*Circuit.* It opens after ``STRAIGHT_FAILURES`` failures of the provider in a row; refusals count where the window is 1 and can't be
narrower. After a pause, doubled each time, one call probes; its success closes the circuit. Where the provider names a time beyond
``LONGEST_PAUSE``, nobody waits for that: the circuit opens, and one call each ``NAMED_PAUSE`` probes.

*Turns.* A permit goes to the run that has the fewest, then to the one that waited longest, and likewise to a host of that run.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from protocols.chat import Throttling
from protocols.messages import CallsReported, PermitsChanged

START = 16
"""The window of a model of which nobody knows anything."""
DECREASE = 0.7
"""What is left of the window when the provider refuses what it took before."""
MOST_PATIENCE = 32
"""So many windows of calls at most pass between two probes."""
STRAIGHT_FAILURES = 5
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds for which the circuit stays open, at first and at most."""
NAMED_PAUSE = 30.0
"""The same where a provider named a time beyond all patience: less than who has no other model waits."""
BURST = 10
"""This part of what is allowed in a minute may go at once; the rest comes evenly, so that no minute has more than is allowed."""
RECENT = 0.2
"""The weight of the last calls in what a call is expected to use."""


class Circuit(IntEnum):
    """Whether the provider is asked: as usual, by one call that probes, or not at all."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Word(NamedTuple):
    """What one coordinator says to the others of a model: that it was refused what worked before; the ``window`` that is too narrow for
    it; that it uses less than it did; for how many seconds from now nobody may call, and for how many its circuit is open: 0 when it has
    closed, ``None`` when there is nothing new of it."""

    model: str
    refused: bool = False
    window: int | None = None
    freed: bool = False
    rest: float = 0.0
    open_for: float | None = None
    why: str = ""


Queue = tuple[str, str]
"""Those of one run (second) at one host (first)."""


@dataclass(slots=True)
class Bucket:
    """What may be used in a minute. It can be in debt: then nothing is taken until that is made good."""

    limit: float
    level: float = 0.0
    at: float = 0.0

    @classmethod
    def full(cls, limit: float, now: float) -> "Bucket":
        """A bucket with all that may go at once."""
        made = cls(limit, 0.0, now)
        made.level = made.most
        return made

    @property
    def most(self) -> float:
        """What may go at once."""
        return max(1.0, self.limit / BURST)

    @property
    def rate(self) -> float:
        """What comes in a second."""
        return max(self.limit - self.most, self.limit / 2) / 60

    def fill(self, now: float) -> None:
        """Let time pass."""
        self.level = min(self.most, self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)

    def ready_in(self, need: float) -> float:
        """Seconds until ``need`` can be taken; more than fits is let through when the bucket is full."""
        short = min(need, self.most) - self.level
        return short / self.rate if short > 1e-9 else 0.0


@dataclass(slots=True)
class _HostState:
    link: str
    number: int = 0
    told: tuple[bool, int, float | None] | None = None


@dataclass(slots=True)
class Throttle:
    """The state of one model. ``share`` is the part of declared limits that is for this coordinator."""

    model: str
    share: float = 1.0
    declared: Throttling = field(default_factory=Throttling)
    window: int = START
    good: int = 0
    round: int = 0
    held: Counter[Queue] = field(default_factory=Counter)
    waiting: dict[Queue, int] = field(default_factory=dict)
    paused_until: float = 0.0
    open_until: float | None = None
    named_until: float = 0.0
    why: str = ""
    refusals: int = 0
    _news: bool = False
    _short: bool = False
    _freed: bool = False
    _full: bool = False
    _told: tuple[float, float | None] = (0.0, None)
    _since: int = 0
    _step: int = START
    _patience: int = 1
    _plateau: int = 0
    _streak: int = 0
    _taken: int = 0
    _probed: bool = False
    _failures: int = 0
    _pause: float = FIRST_PAUSE
    _probe: Queue | None = None
    _turn: int = 0
    _turns: dict[str | Queue, int] = field(default_factory=dict)
    _hosts: dict[str, _HostState] = field(default_factory=dict)
    _requests: Bucket | None = None
    _tokens: Bucket | None = None
    _expected: float = 0.0
    _reserved: deque[float] = field(default_factory=deque)

    @property
    def out(self) -> int:
        """How many permits are out."""
        return self.held.total()

    @property
    def hosts(self) -> set[str]:
        """Those who have reported."""
        return set(self._hosts)

    def declare(self, declared: Throttling, now: float) -> None:
        """What is declared from now on."""
        if declared == self.declared:
            return
        self.declared = declared
        self._requests = self._bucket(declared.requests_per_minute, self._requests, now)
        self._tokens = self._bucket(declared.tokens_per_minute, self._tokens, now)
        if declared.concurrency is not None:
            self.window, self.good = self._ceiling, min(self.good, self._ceiling)

    def _bucket(self, limit: int | None, before: Bucket | None, now: float) -> Bucket | None:
        if limit is None:
            return None
        bucket = Bucket.full(limit * self.share, now)
        if before is not None:
            before.fill(now)
            bucket.level = min(bucket.level, before.level)
        return bucket

    @property
    def _ceiling(self) -> int:
        most = self.declared.concurrency
        return 1 << 30 if most is None else max(1, int(most * self.share))

    @property
    def wanted(self) -> int:
        """How many calls wait, as far as hosts have said: at least half of them."""
        return sum(self.waiting.values())

    def circuit(self, now: float) -> Circuit:
        """The circuit's state."""
        if self.open_until is None:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self.open_until else Circuit.HALF_OPEN

    # --- what hosts say -----------------------------------------------------------------------------------------------

    def hear(self, host: str, said: CallsReported, now: float) -> None:
        """Take a report. The first on a link begins with what the host has under way; one heard before changes nothing."""
        known = self._hosts.get(host)
        if known is None or known.link != said.link:
            self.lost(host)
            known = self._hosts[host] = _HostState(said.link)
            for run, count in said.kept:
                self.held[host, run] += count
        if said.number <= known.number:
            return
        known.number = said.number
        in_use = self.out >= self.window
        self.refusals += len(said.refused)
        for round_ in said.refused:
            self._refused(round_, now)
        if said.retry_after is not None:
            self._named(said.retry_after, now)
        self.why = said.why or self.why
        if said.succeeded and now >= self.named_until:  # what began before says nothing of the time that was named since
            self._succeeded(said.succeeded, in_use=in_use and not said.refused)
        elif said.failed:
            self._failed(said.failed, now)
        for run, count in said.back:
            self._back((host, run), count)
        self._since += said.succeeded + said.failed + len(said.refused)
        self._settle(said.tokens, sum(count for _, count in said.back), said.need)
        for queue in [queue for queue in self.waiting if queue[0] == host]:
            del self.waiting[queue]
        self.waiting |= {(host, run): count for run, count in said.waiting if count}
        self._full = self._full or bool(self.waiting)
        if self._full and not self.waiting and not self.out:
            self._full, self._freed = False, True

    def lost(self, host: str) -> None:
        """A host is gone: what it had comes back, and it wants nothing."""
        self._hosts.pop(host, None)
        for queue in [queue for queue in self.held if queue[0] == host]:
            self._settle(0, self.held[queue], 0)
            self._back(queue, self.held[queue])
        for queue in [queue for queue in self.waiting if queue[0] == host]:
            del self.waiting[queue]

    def _back(self, queue: Queue, count: int) -> None:
        self.held[queue] -= count
        if self.held[queue] <= 0:
            del self.held[queue]
        if queue == self._probe:
            self._probe = None

    def _named(self, seconds: float, now: float) -> None:
        """The provider wants to be left alone for so long."""
        if seconds <= LONGEST_PAUSE:
            self.paused_until = max(self.paused_until, now + seconds)
        else:
            self.named_until = now + NAMED_PAUSE
            self.open_until, self._probe = max(self.open_until or 0.0, self.named_until), None

    def _succeeded(self, count: int, *, in_use: bool) -> None:
        if self.open_until is not None:
            self.window, self.good, self._step = min(self.window, START), 0, 1
        self.open_until, self._probe, self._failures, self._pause = None, None, 0, FIRST_PAUSE
        if not in_use:
            return
        self._streak += count
        probing = self.window > self.good or self.window < self._plateau
        if self._streak >= self.window * (1 if probing else self._patience):
            self._streak = 0
            if probing:
                self.good = self.window
                if self.window == self._plateau:
                    self._step = 1
                    return
                if self.window > self._plateau:
                    self._patience = 1
            self.window = min(self.window + self._step, self._plateau if self.window < self._plateau else self._ceiling)
            self._step = min(self._step * 2, self.window) if probing else 1

    def _refused(self, round_: int, now: float) -> None:
        if self.window == 1:
            self._failed(1, now)
        if round_ == self.round:
            self._taken = self.out - 1
            self._probed = not self._narrow()
            self._short, self._news = True, self._news or not self._probed
        elif round_ == self.round - 1 and not self._probed:
            self._taken -= 1
        else:
            return
        self.window = max(1, min(self.window, self._taken))
        self.good = min(self.good, self.window)

    def _narrow(self) -> bool:
        """Begin another round, in a narrower window; returns whether not even what worked before was taken."""
        probing = 0 < self.good < self.window
        if probing:
            self.window, self._patience = self.good, min(self._patience * 2, MOST_PATIENCE)
            self._plateau = self.good
        else:
            self._plateau = self.good
            self.window, self.good = max(1, int(self.window * DECREASE)), 0
        self.round += 1
        self._step, self._streak, self._since = 1, 0, 0
        return not probing

    def _failed(self, count: int, now: float) -> None:
        self._failures += count
        closed = self.open_until is None
        if (closed and self._failures >= STRAIGHT_FAILURES) or (self.open_until is not None and now >= self.open_until):
            self.open_until, self._probe = now + self._pause, None
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _settle(self, used: int, ended: int, need: int) -> None:
        if self._tokens is not None:
            for _ in range(min(ended, len(self._reserved))):
                self._tokens.level += self._reserved.popleft()
            self._tokens.level -= used
        if used and ended:
            mean = used / ended
            self._expected = mean if not self._expected else self._expected + RECENT * (mean - self._expected)
        self._expected = self._expected or need

    # --- peers --------------------------------------------------------------------------------------------------------

    def word(self, now: float) -> Word | None:
        """What peers should know and have not been told; counted as told."""
        news, short, freed, before = self._news, self._short, self._freed, self._told
        self._news = self._short = self._freed = False
        self._told = self.paused_until, self.open_until
        rests, turned = self.paused_until > before[0], self.open_until != before[1]
        if not (short or freed or rests or turned):
            return None
        open_for = (0.0 if self.open_until is None else max(0.0, self.open_until - now)) if turned else None
        rest = max(0.0, self.paused_until - now) if rests else 0.0
        return Word(self.model, news, self.window if short else None, freed, rest, open_for, self.why)

    def overhear(self, said: Word, now: float) -> None:
        """Take what a peer said. A circuit that is open here is probed as soon as one has closed elsewhere."""
        # What a probe here took was the room of somebody who has more: it may stand.
        stands = said.window is not None and 0 < self.good < self.window <= said.window
        if said.refused and not stands and self._since >= self.window:
            self._taken = self.out
            self._probed = not self._narrow()
        elif said.window is not None and said.window + 1 < self.window == self.good:
            self.window = self.good = self._plateau = self.window - 1
            self._freed = True
        self._patience = 1 if said.freed else self._patience
        self.paused_until = max(self.paused_until, now + said.rest)
        if said.open_for:
            self.open_until, self._probe, self.why = max(self.open_until or 0.0, now + said.open_for), None, said.why
        elif said.open_for is not None and self.open_until is not None:
            self.open_until = min(self.open_until, now)
        self._told = self.paused_until, self.open_until

    # --- what hosts are told ------------------------------------------------------------------------------------------

    def decide(self, now: float) -> dict[str, PermitsChanged]:
        """What to tell hosts now, and count it as told."""
        given: dict[str, Counter[str]] = {}
        while self.waiting and self._may_give(now):
            host, run = queue = self._next()
            self.held[queue] += 1
            self.waiting[queue] -= 1
            if not self.waiting[queue]:
                del self.waiting[queue]
            self._turn += 1
            self._turns[run] = self._turns[queue] = self._turn
            given.setdefault(host, Counter())[run] += 1
            if self.open_until is not None:
                self._probe = queue
            if self._requests is not None:
                self._requests.level -= 1
            if self._tokens is not None:
                self._tokens.level -= self._expected
                self._reserved.append(self._expected)
        self._turns = self._turns if len(self._turns) < 10_000 else {}
        state = (self._lasting(now), self.round, self.open_until)
        told = {}
        for host, known in self._hosts.items():
            more = given.get(host)
            if more or known.told != state:
                known.told = state
                told[host] = PermitsChanged(
                    model=self.model,
                    more=tuple(more.items()) if more else (),
                    lasting=state[0],
                    round=self.round,
                    open_for=None if self.open_until is None else max(0.0, self.open_until - now),
                    why=self.why if self.open_until is not None else "",
                )
        return told

    def next_at(self, now: float) -> float | None:
        """When time alone lets somebody have a turn who has none now; ``None`` when nobody waits, or only for calls to end."""
        if not self.waiting:
            return None
        if self.open_until is not None:
            return self.open_until if self._probe is None else None
        if self.out >= self.window:
            return None
        return max(self.paused_until, now + self._ready_in(now))

    def _may_give(self, now: float) -> bool:
        if now < self.paused_until:
            return False
        if self.open_until is not None:
            return now >= self.open_until and self._probe is None
        return self.out < self.window and self._ready_in(now) == 0.0

    def _ready_in(self, now: float) -> float:
        found = 0.0
        for bucket, need in ((self._requests, 1.0), (self._tokens, self._expected)):
            if bucket is not None:
                bucket.fill(now)
                found = max(found, bucket.ready_in(need))
        return found

    def _next(self) -> Queue:
        runs = self._by_run()
        run = min({run for _, run in self.waiting}, key=lambda run: (runs[run], self._turns.get(run, 0)))
        return min((queue for queue in self.waiting if queue[1] == run), key=lambda queue: (self.held[queue], self._turns.get(queue, 0)))

    def _by_run(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, run), count in self.held.items():
            found[run] += count
        return found

    def _lasting(self, now: float) -> bool:
        """Whether a permit may be used again without asking: nothing is paced by time or to be narrowed, and nobody has too few."""
        if self._requests or self._tokens or self.open_until is not None or now < self.paused_until or self.out > self.window:
            return False
        runs = self._by_run()
        most = max(runs.values(), default=0)
        for host, run in self.waiting:
            if not runs[run] or most > runs[run] + 1:
                return False
            others = max(count for (_, of), count in self.held.items() if of == run)
            if not self.held[host, run] or others > self.held[host, run] + 1:
                return False
        return True
