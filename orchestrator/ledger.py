"""The ledger: what a run may use, has used, and has promised. Pure integer arithmetic; no clock, no I/O.

Accounts form a tree: the run, its tasks, and under a task the tasks it delegates. Above the run there may be its allowance: what was
drawn for it from limits that hold over many runs. At every moment, for every account and every counted dimension,
``settled + reserved <= limit``, unless a provider reported more than its worst case, which is recorded as it was, or the limit was lowered
below that meanwhile: then nothing more is promised.
"""

from dataclasses import dataclass, field

from protocols.budget import COUNTED, SPOKEN, UNLIMITED, ZERO, Amount, Limits, Usage

RUN = ""
"""The name of the run's own account."""

ALLOWANCE = "\0allowance"
"""The account above the run's; no task can have this name."""

_Bounds = tuple[tuple[int, int], ...]
"""(dimension, limit) pairs; dimensions without a limit are left out, so an unlimited account costs nothing to check."""


def plus(a: Amount, b: Amount) -> Amount:
    """The sum, dimension by dimension."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4])


def minus(a: Amount, b: Amount) -> Amount:
    """The difference, dimension by dimension."""
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4])


def least(a: Amount, b: Amount) -> Amount:
    """The smaller, dimension by dimension."""
    return (min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]), min(a[4], b[4]))


def most(a: Amount, b: Amount) -> Amount:
    """The larger, dimension by dimension."""
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]), max(a[4], b[4]))


def times(a: Amount, k: int) -> Amount:
    """``a``, ``k`` times."""
    return (a[0] * k, a[1] * k, a[2] * k, a[3] * k, a[4] * k)


def halves(a: Amount) -> Amount:
    """Half of ``a``, rounded up."""
    return (-(-a[0] // 2), -(-a[1] // 2), -(-a[2] // 2), -(-a[3] // 2), -(-a[4] // 2))


def as_usage(a: Amount) -> Usage:
    """The vector as a ``Usage``; its tokens stand as input tokens, because a lease does not tell them apart."""
    return Usage(input_tokens=a[0], micros=a[1], model_calls=a[2], tool_calls=a[3], turns=a[4])


def bounds(limits: Limits) -> _Bounds:
    """The counted limits, as (dimension, limit) pairs."""
    found = ((index, getattr(limits, name)) for index, name in enumerate(COUNTED))
    return tuple((index, limit) for index, limit in found if limit is not None)


@dataclass(slots=True)
class Account:
    """One node: ``settled`` and ``reserved`` include everything below it; ``held`` is the lease of this task itself. What is ``kept``
    of its limits is promised only to those who may take the ``whole``."""

    parent: str | None
    bounds: _Bounds = ()
    settled: Amount = ZERO
    reserved: Amount = ZERO
    held: Amount = ZERO
    kept: Amount = ZERO

    def free(self, index: int, limit: int, *, whole: bool) -> int:
        """What of a limit can still be promised; below zero when the rest is kept."""
        return limit - self.settled[index] - self.reserved[index] - (0 if whole else self.kept[index])

    def room(self, need: Amount, *, whole: bool = False) -> int:
        """How many times ``need`` fits here; a large number when nothing limits it."""
        fits = (self.free(index, limit, whole=whole) // need[index] for index, limit in self.bounds if need[index])
        return min(fits, default=1 << 30)


@dataclass(slots=True)
class Shortage:
    """Why a reservation does not fit: the account, the dimension, and what of the limit is free."""

    account: str
    dimension: int
    free: int

    def __str__(self) -> str:
        whose = "the run" if self.account == RUN else f"task {self.account!r}"
        return f"{SPOKEN[self.dimension]} of {whose}"


@dataclass(slots=True)
class Ledger:
    """All accounts of one run. What is ``kept`` of its limits is for those who may take the ``whole``."""

    limits: Limits
    kept: Limits = UNLIMITED
    accounts: dict[str, Account] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tokens, micros, models, tools, turns = (getattr(self.kept, name) or 0 for name in COUNTED)
        self.accounts[RUN] = Account(None, bounds(self.limits), kept=(tokens, micros, models, tools, turns))

    @property
    def limited(self) -> bool:
        """Whether the run has any counted limit of its own, or an allowance."""
        return bool(self.accounts[RUN].bounds) or ALLOWANCE in self.accounts

    def bound(self, limits: Limits) -> None:
        """Give the run other limits of its own. What it has used and promised already stays."""
        self.limits = limits
        self.accounts[RUN].bounds = bounds(limits)

    def allow(self, total: Limits) -> None:
        """Bound the run by what was drawn for it in all. What it has used and promised already stays."""
        run, above = self.accounts[RUN], self.accounts.get(ALLOWANCE)
        if above is None:
            above = self.accounts[ALLOWANCE] = Account(None, settled=run.settled, reserved=run.reserved, kept=run.kept)
            run.parent = ALLOWANCE
        taken = plus(above.settled, above.reserved)
        above.bounds = tuple((index, max(limit, taken[index])) for index, limit in bounds(total))

    def open(self, name: str, parent: str = RUN, limits: Limits | None = None) -> None:
        """Open an account below ``parent``; opening it again changes nothing."""
        if name not in self.accounts:
            self.accounts[name] = Account(parent, bounds(limits) if limits else ())

    def renew(self, name: str, limits: Limits | None) -> None:
        """Bound an account anew, on top of what it has used."""
        account = self.accounts[name]
        account.bounds = tuple((index, limit + account.settled[index]) for index, limit in bounds(limits)) if limits else ()

    def limits_of(self, name: str) -> bool:
        """Whether any account from ``name`` up to the run has a counted limit."""
        return any(account.bounds for _, account in self._upwards(name))

    def shortage(self, name: str, need: Amount, *, whole: bool = False) -> Shortage | None:
        """The first limit, from ``name`` upwards, that ``need`` would pass; ``None`` when it fits."""
        for account_name, account in self._upwards(name):
            for index, limit in account.bounds:
                free = max(account.free(index, limit, whole=whole), 0)
                if need[index] > free:
                    return Shortage(account_name, index, free)
        return None

    def room(self, name: str, need: Amount, *, whole: bool = False) -> int:
        """How many times ``need`` fits, over all limits from ``name`` upwards; a large number when nothing limits it."""
        return max(min(account.room(need, whole=whole) for _, account in self._upwards(name)), 0)

    def rest(self, name: str, need: Amount, enough: Amount, *, whole: bool = False, above: bool = True) -> Amount | None:
        """What of ``need`` fits, over all limits from ``name`` upwards (``above``: the allowance's too); ``None`` if not ``enough``."""
        found = list(need)
        for account_name, account in self._upwards(name):
            for index, limit in account.bounds if above or account_name != ALLOWANCE else ():
                found[index] = min(found[index], max(account.free(index, limit, whole=whole), 0))
        if any(one < wanted for one, wanted in zip(found, enough, strict=True)):
            return None
        tokens, micros, models, tools, turns = found
        return (tokens, micros, models, tools, turns)

    def reserve(self, name: str, need: Amount) -> None:
        """Promise ``need`` to ``name``. The caller has asked ``shortage`` first."""
        self.accounts[name].held = plus(self.accounts[name].held, need)
        for _, account in self._upwards(name):
            account.reserved = plus(account.reserved, need)

    def settle(self, name: str, used: Amount) -> None:
        """Record what was really used; it comes out of the lease as far as the lease reaches."""
        account = self.accounts[name]
        back = least(account.held, used) if account.held is not ZERO else ZERO
        if back is not ZERO:
            account.held = minus(account.held, back)
        for _, above in self._upwards(name):
            above.settled = plus(above.settled, used)
            if back is not ZERO:
                above.reserved = minus(above.reserved, back)

    def release(self, name: str) -> None:
        """Give back what is left of the lease."""
        account = self.accounts[name]
        back, account.held = account.held, ZERO
        for _, above in self._upwards(name):
            above.reserved = minus(above.reserved, back)

    def write_off(self, name: str) -> Amount:
        """Count what is left of a lost lease as used: nobody can say how much of it was. Returns it."""
        lost = self.accounts[name].held
        self.settle(name, lost)
        return lost

    def held(self, name: str, dimension: int, below: str) -> int:
        """The lease of ``name`` itself in one dimension, if it stands below the account ``below``; else 0."""
        if name in self.accounts and any(above == below for above, _ in self._upwards(name)):
            return self.accounts[name].held[dimension]
        return 0

    def _upwards(self, name: str) -> list[tuple[str, Account]]:
        chain = []
        at: str | None = name
        while at is not None:
            account = self.accounts[at]
            chain.append((at, account))
            at = account.parent
        return chain
