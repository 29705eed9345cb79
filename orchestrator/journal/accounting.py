"""The accounts of users and of everyone, kept in tables beside a journal's own: one set of statements for every store.

``draws`` has a row for every run that draws, ``spent`` what was used, by account and hour. All that is decided is decided here, in the
one transaction that the store gives: no two calls cross.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from orchestrator.journal.allowances import FRESH_MS, Claim, Limit, Short, Standing, Window, accounts_of, hour, hours, user_of
from orchestrator.ledger import minus, plus
from protocols.budget import COUNTED, ZERO, Amount, Limits
from protocols.failures import BadInput, StaleEpoch

Ask = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Carries out a statement, its values marked by ``?``, and returns its rows."""

_COUNTS = ", ".join(f"{name} BIGINT NOT NULL" for name in COUNTED)
_USED = ", ".join(f"used_{name} BIGINT NOT NULL" for name in COUNTED)
_DRAWN = ", ".join(f"drawn_{name} BIGINT NOT NULL" for name in COUNTED)
_NAMES = ", ".join(COUNTED)
ACCOUNTS = (
    f"""CREATE TABLE IF NOT EXISTS limits (
        account TEXT NOT NULL, span TEXT NOT NULL, {", ".join(f"{name} BIGINT" for name in COUNTED)}, PRIMARY KEY (account, span))""",
    f"CREATE TABLE IF NOT EXISTS spent (account TEXT NOT NULL, hour BIGINT NOT NULL, {_COUNTS}, PRIMARY KEY (account, hour))",
    f"""CREATE TABLE IF NOT EXISTS draws (
        run TEXT PRIMARY KEY, name TEXT NOT NULL, epoch BIGINT NOT NULL, hour BIGINT NOT NULL, heard BIGINT NOT NULL,
        waiting BIGINT NOT NULL, {_USED}, {_DRAWN})""",
)
"""The tables. Hours count from the epoch; a limit that is not set is null."""

_SPEND = f"INSERT INTO spent (account, hour, {_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (account, hour) DO UPDATE SET " + ", ".join(
    f"{name} = spent.{name} + excluded.{name}" for name in COUNTED
)


def _sum(amount: str) -> str:
    """The sum of a column, or of what stands for one; zero of no rows."""
    return f"CAST(coalesce(sum({amount}), 0) AS BIGINT)"


_SPENT = f"SELECT {', '.join(_sum(name) for name in COUNTED)} FROM spent WHERE account = ? AND hour >= ? AND hour < ?"
_RESERVED = [f"CASE WHEN drawn_{name} > used_{name} THEN drawn_{name} - used_{name} ELSE 0 END" for name in COUNTED]
_FRESH = "heard > ?"
_COLUMNS = ", ".join(  # of several runs: what is reserved, what of it may come back, and how many of them are at work
    (
        *(_sum(amount) for amount in _RESERVED),
        *(_sum(f"CASE WHEN {_FRESH} AND waiting = 0 THEN {amount} ELSE 0 END") for amount in _RESERVED),
        _sum(f"CASE WHEN {_FRESH} THEN 1 ELSE 0 END"),
    )
)
_OTHERS = f"SELECT {_COLUMNS} FROM draws WHERE run <> ? AND hour >= ? AND hour < ?"


class _Drawing(NamedTuple):
    """A run that draws: ``drawn`` less ``used`` is reserved, in the windows that ``hour`` is in. ``heard`` is in milliseconds."""

    run: str
    user: str
    epoch: int
    hour: int
    heard: int
    waiting: bool
    used: Amount
    drawn: Amount

    @property
    def reserved(self) -> Amount:
        """What was drawn and is not used yet; a provider may have used more than was drawn for it."""
        return _each(lambda drawn, used: max(drawn - used, 0), self.drawn, self.used)


class Accounting:
    """``Allowances`` for a store that gives ``_accounting``."""

    def _accounting(self) -> AbstractContextManager[Ask]:
        """A transaction, alone among those that this gives."""
        raise NotImplementedError

    def set_limits(self, limits: Iterable[Limit]) -> None:
        """See ``Allowances.set_limits``."""
        wanted = list(limits)
        if any(one.limits.seconds is not None for one in wanted):
            raise BadInput("seconds don't add up over runs; give a run a limit on seconds with --timeout, or its team one")
        if any(one.limits.subtasks is not None for one in wanted):
            raise BadInput("subtasks are not counted over runs; give a run a limit on them with --budget-subtasks, or its team one")
        with self._accounting() as ask:
            for account, window, amounts in wanted:
                ask("DELETE FROM limits WHERE account = ? AND span = ?", (account, window.value))
                values = [getattr(amounts, name) for name in COUNTED]
                if any(value is not None for value in values):
                    ask(f"INSERT INTO limits (account, span, {_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?)", (account, window.value, *values))

    def limits(self, account: str | None = None) -> list[Limit]:
        """See ``Allowances.limits``."""
        with self._accounting() as ask:
            return _limits(ask, account)

    def draw(self, claim: Claim, used: Amount, held: Amount, need: Amount, most: int, at: int, *, idle: bool = False) -> Limits | Short:
        """See ``Allowances.draw``."""
        with self._accounting() as ask:
            me = _mine(ask, claim)
            if me is None:
                raise _stale(claim)
            limits = _limits(ask, *accounts_of(claim.user))
            me = _use(ask, me, used)._replace(epoch=claim.epoch, heard=at)
            fits, shorts = most, []
            for limit in limits:
                taken = _taken(ask, limit, me, at)
                for place, free in _free(limit, taken.amount):
                    times = _times(me, held[place], need[place], place, free, moved=me.hour != hour(at))
                    if times < 1:
                        shorts.append(Short(limit.account, limit.window, place, taken.coming[place] > 0))
                    fits = min(fits, max(times // taken.parts, 1))
            if shorts:
                short = min(shorts, key=lambda one: one.others)  # what can't come back at all comes first
                _keep(ask, me._replace(waiting=idle and short.others))
                return short
            target = _each(lambda was, now, more: was + now + fits * more, used, held, need)
            me = me._replace(drawn=_each(max, me.drawn, target), hour=hour(at), waiting=False)
            _keep(ask, me)
            limited = {name for limit in limits for name in COUNTED if getattr(limit.limits, name) is not None}
            return Limits(**{name: amount for name, amount in zip(COUNTED, me.drawn, strict=True) if name in limited})

    def join(self, claim: Claim, used: Amount, at: int, promised: Amount = ZERO) -> None:
        """See ``Allowances.join``."""
        with self._accounting() as ask:
            me = _mine(ask, claim) or _Drawing(claim.run, claim.user, claim.epoch, hour(at), at, False, used, used)
            _keep(ask, me._replace(epoch=claim.epoch, drawn=_each(max, me.drawn, promised)))

    def settle(self, claim: Claim, used: Amount, drawn: Amount | None, at: int, *, ended: bool = False) -> bool:
        """See ``Allowances.settle``."""
        with self._accounting() as ask:
            me = _mine(ask, claim)
            if me is None:
                return False
            me = _use(ask, me, used)
            if ended:
                ask("DELETE FROM draws WHERE run = ?", (claim.run,))
                return False
            limits = _limits(ask, *accounts_of(claim.user))
            me = me._replace(epoch=claim.epoch, heard=at, drawn=me.drawn if drawn is None else _each(min, me.drawn, drawn))
            if me.hour != hour(at):
                free = (one for limit in limits for one in _free(limit, _taken(ask, limit, me, at).amount))
                if all(me.reserved[place] <= left for place, left in free):
                    me = me._replace(hour=hour(at))
            _keep(ask, me)
            waiting = f"SELECT count(*) FROM draws WHERE waiting = 1 AND run <> ? AND {_FRESH}"
            return bool(ask(waiting, (claim.run, at - FRESH_MS))[0][0])

    def standings(self, at: int, account: str | None = None) -> list[Standing]:
        """See ``Allowances.standings``."""
        with self._accounting() as ask:
            return [_standing(ask, one, at) for one in _limits(ask, account)]

    def drawing(self) -> list[tuple[Claim, Amount]]:
        """See ``Allowances.drawing``."""
        with self._accounting() as ask:
            found = map(_drawing, ask("SELECT * FROM draws ORDER BY run", ()))
            return [(Claim(one.run, one.user, one.epoch), one.drawn) for one in found]


class _Taken(NamedTuple):
    """What counts against a limit but for one run's reservation, what of that may come back, and into how many ``parts`` the rest goes:
    one for each run at work, and one for who comes next."""

    amount: Amount
    coming: Amount
    parts: int


def _taken(ask: Ask, limit: Limit, me: _Drawing, at: int) -> _Taken:
    if limit.window is Window.RUN:
        return _Taken(me.used, ZERO, 1)
    reserved, coming, at_work = _others(ask, limit, me.run, at)
    return _Taken(plus(_spent(ask, limit, at), reserved), coming, 2 + at_work)


def _free(limit: Limit, taken: Amount) -> Iterator[tuple[int, int]]:
    """By limited dimension, what one more run may have reserved."""
    for place, name in enumerate(COUNTED):
        most = getattr(limit.limits, name)
        if most is not None:
            yield place, most - taken[place]


def _times(me: _Drawing, held: int, need: int, place: int, free: int, *, moved: bool) -> int:
    """How often ``need`` fits, in one dimension; many times when none of it is needed."""
    if me.reserved[place] > free and (need or moved):  # what it has already does not fit into this window, or this lowered limit
        return 0
    return max(free - held, 0) // need if need else 1 << 60


def _standing(ask: Ask, limit: Limit, at: int) -> Standing:
    if limit.window is Window.RUN:
        return Standing(limit, ZERO, ZERO, None)
    until = None if limit.window is Window.TOTAL else hours(limit.window, at)[1] * 3_600_000
    return Standing(limit, _spent(ask, limit, at), _others(ask, limit, "", at)[0], until)


def _spent(ask: Ask, limit: Limit, at: int) -> Amount:
    return _amount(ask(_SPENT, (limit.account, *hours(limit.window, at)))[0])


def _others(ask: Ask, limit: Limit, run: str, at: int) -> tuple[Amount, Amount, int]:
    """What all runs but one have reserved in the window, what of it may come back, and how many of them are at work."""
    values: list[Any] = [*[at - FRESH_MS] * 6, run, *hours(limit.window, at)]
    user = user_of(limit.account)
    found = ask(_OTHERS if user is None else f"{_OTHERS} AND name = ?", values if user is None else [*values, user])[0]
    return _amount(found[:5]), _amount(found[5:10]), found[10]


def _use(ask: Ask, me: _Drawing, used: Amount) -> _Drawing:
    """Count what was used since, in the window in which it was reserved, for the user and for everyone: one of the two may have no limit
    yet."""
    more = minus(used, me.used)
    if any(more):
        for account in accounts_of(me.user):
            ask(_SPEND, (account, me.hour, *more))
    return me._replace(used=used)


def _mine(ask: Ask, claim: Claim) -> _Drawing | None:
    found = ask("SELECT * FROM draws WHERE run = ?", (claim.run,))
    me = _drawing(found[0]) if found else None
    if me is not None and me.epoch > claim.epoch:
        raise _stale(claim)
    return me


def _stale(claim: Claim) -> StaleEpoch:
    return StaleEpoch(f"run {claim.run} does not draw at epoch {claim.epoch}: it has ended, or another coordinator carries it on")


def _limits(ask: Ask, *accounts: str | None) -> list[Limit]:
    """The limits of these accounts, or of all."""
    found = ask(f"SELECT account, span, {_NAMES} FROM limits ORDER BY account, span", ())
    rows = (row for row in found if accounts == (None,) or row[0] in accounts)
    return [Limit(account, Window(span), Limits(**dict(zip(COUNTED, values, strict=True)))) for account, span, *values in rows]


def _drawing(row: Sequence[Any]) -> _Drawing:
    run, user, epoch, at, heard, waiting, *counts = row
    return _Drawing(run, user, epoch, at, heard, bool(waiting), _amount(counts[:5]), _amount(counts[5:]))


def _keep(ask: Ask, me: _Drawing) -> None:
    ask("DELETE FROM draws WHERE run = ?", (me.run,))
    values = (me.run, me.user, me.epoch, me.hour, me.heard, int(me.waiting), *me.used, *me.drawn)
    ask(f"INSERT INTO draws VALUES ({', '.join('?' * len(values))})", values)


def _amount(counts: Sequence[int]) -> Amount:
    tokens, micros, calls, tools, turns = counts
    return tokens, micros, calls, tools, turns


def _each(combine: Callable[..., int], *amounts: Amount) -> Amount:
    """Combine amounts dimension by dimension."""
    return _amount([combine(*counts) for counts in zip(*amounts, strict=True)])
