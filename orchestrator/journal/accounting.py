"""The accounts of users and of everyone, kept in tables beside a journal's own: one set of statements for every store.

``draws`` has a row for every run that draws, ``spent`` what was used, by account and hour. All that is decided is decided here, in the
one transaction that the store gives: no two calls cross.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from orchestrator.journal.allowances import FRESH_MS, Claim, Limit, Short, Standing, Window, accounts_of, hour, hours
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
_SUMS = ", ".join(f"CAST(coalesce(sum({name}), 0) AS BIGINT)" for name in COUNTED)


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
        with self._accounting() as ask:
            for account, window, amounts in wanted:
                ask("DELETE FROM limits WHERE account = ? AND span = ?", (account, window.value))
                values = [getattr(amounts, name) for name in COUNTED]
                if any(value is not None for value in values):
                    ask(f"INSERT INTO limits (account, span, {_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?)", (account, window.value, *values))

    def limits(self, account: str | None = None) -> list[Limit]:
        """See ``Allowances.limits``."""
        with self._accounting() as ask:
            return [one for one in _limits(ask) if account in (None, one.account)]

    def draw(self, claim: Claim, used: Amount, held: Amount, need: Amount, most: int, at: int, *, idle: bool = False) -> Limits | Short:
        """See ``Allowances.draw``."""
        with self._accounting() as ask:
            drawing = {one.run: one for one in _drawing(ask)}
            me = _mine(drawing, claim)
            if me is None:
                raise _stale(claim)
            limits = _limits_on(ask, claim.user)
            me = _use(ask, me, used, limits)._replace(epoch=claim.epoch, heard=at)
            book = _Book(ask, [one for run, one in drawing.items() if run != claim.run], at)
            fits, shorts = most, []
            for limit in limits:
                for place, free in book.free(limit, me):
                    times = _times(me, held[place], need[place], place, free, moved=me.hour != hour(at))
                    if times < 1:
                        shorts.append(Short(limit.account, limit.window, place, book.may_come(limit, place)))
                    fits = min(fits, max(times // book.sharers(limit), 1))
            if shorts:
                short = min(shorts, key=lambda one: one.others)  # what can't come back at all comes first
                _keep(ask, me._replace(waiting=idle and short.others))
                return short
            target = _each(lambda was, now, more: was + now + fits * more, used, held, need)
            me = me._replace(drawn=_each(max, me.drawn, target), hour=hour(at), waiting=False)
            _keep(ask, me)
            limited = {name for limit in limits for name in COUNTED if getattr(limit.limits, name) is not None}
            return Limits(**{name: amount for name, amount in zip(COUNTED, me.drawn, strict=True) if name in limited})

    def join(self, claim: Claim, used: Amount, at: int) -> None:
        """See ``Allowances.join``."""
        with self._accounting() as ask:
            me = _mine({one.run: one for one in _drawing(ask)}, claim)
            me = me or _Drawing(claim.run, claim.user, claim.epoch, hour(at), at, False, used, used)
            _keep(ask, me._replace(epoch=claim.epoch))

    def settle(self, claim: Claim, used: Amount, drawn: Amount | None, at: int, *, ended: bool = False) -> bool:
        """See ``Allowances.settle``."""
        with self._accounting() as ask:
            drawing = {one.run: one for one in _drawing(ask)}
            me = _mine(drawing, claim)
            if me is None:
                return False
            limits = _limits_on(ask, claim.user)
            me = _use(ask, me, used, limits)
            if ended:
                ask("DELETE FROM draws WHERE run = ?", (claim.run,))
                return False
            me = me._replace(epoch=claim.epoch, heard=at, drawn=me.drawn if drawn is None else _each(min, me.drawn, drawn))
            others = [one for run, one in drawing.items() if run != claim.run]
            if me.hour != hour(at):
                book = _Book(ask, others, at)
                if all(me.reserved[place] <= free for limit in limits for place, free in book.free(limit, me)):
                    me = me._replace(hour=hour(at))
            _keep(ask, me)
            return any(one.waiting and at - one.heard < FRESH_MS for one in others)

    def standings(self, at: int, account: str | None = None) -> list[Standing]:
        """See ``Allowances.standings``."""
        with self._accounting() as ask:
            book = _Book(ask, list(_drawing(ask)), at)
            return [book.standing(one) for one in _limits(ask) if account in (None, one.account)]

    def drawing(self) -> list[tuple[Claim, Amount]]:
        """See ``Allowances.drawing``."""
        with self._accounting() as ask:
            return [(Claim(one.run, one.user, one.epoch), one.drawn) for one in _drawing(ask)]


class _Book:
    """What the runs ``drawing``, and all before them, leave of limits at one moment."""

    def __init__(self, ask: Ask, drawing: Sequence[_Drawing], at: int) -> None:
        self._ask, self._drawing, self._at = ask, drawing, at

    def free(self, limit: Limit, me: _Drawing) -> Iterator[tuple[int, int]]:
        """By limited dimension, what one more run may have reserved."""
        taken = me.used if limit.window is Window.RUN else _each(lambda a, b: a + b, self._spent(limit), self._reserved(limit))
        for place, name in enumerate(COUNTED):
            most = getattr(limit.limits, name)
            if most is not None:
                yield place, most - taken[place]

    def may_come(self, limit: Limit, place: int) -> bool:
        """Whether a run at work, that waits for nobody, may give some back."""
        return any(one.reserved[place] and not one.waiting and self._at - one.heard < FRESH_MS for one in self._in(limit))

    def sharers(self, limit: Limit) -> int:
        """Among how many parts what is left is divided: one for each run at work, and one for who comes next."""
        return 1 if limit.window is Window.RUN else 2 + sum(self._at - one.heard < FRESH_MS for one in self._in(limit))

    def standing(self, limit: Limit) -> Standing:
        """What counts against a limit."""
        if limit.window is Window.RUN:
            return Standing(limit, ZERO, ZERO, None)
        until = None if limit.window is Window.TOTAL else hours(limit.window, self._at)[1] * 3_600_000
        return Standing(limit, self._spent(limit), self._reserved(limit), until)

    def _in(self, limit: Limit) -> Iterator[_Drawing]:
        first, behind = hours(limit.window, self._at)
        if limit.window is not Window.RUN:
            yield from (one for one in self._drawing if limit.account in accounts_of(one.user) and first <= one.hour < behind)

    def _spent(self, limit: Limit) -> Amount:
        asked = f"SELECT {_SUMS} FROM spent WHERE account = ? AND hour >= ? AND hour < ?"
        return _amount(self._ask(asked, (limit.account, *hours(limit.window, self._at)))[0])

    def _reserved(self, limit: Limit) -> Amount:
        return _each(lambda *all_: sum(all_), ZERO, ZERO, *(one.reserved for one in self._in(limit)))


def _times(me: _Drawing, held: int, need: int, place: int, free: int, *, moved: bool) -> int:
    """How often ``need`` fits, in one dimension; many times when none of it is needed."""
    if me.reserved[place] > free and (need or moved):  # what it has already does not fit into this window, or this lowered limit
        return 0
    return max(free - held, 0) // need if need else 1 << 60


def _use(ask: Ask, me: _Drawing, used: Amount, limits: Iterable[Limit]) -> _Drawing:
    """Count what was used since, in the window in which it was reserved, on the accounts that have limits."""
    more = _each(lambda now, then: now - then, used, me.used)
    if any(more):
        for account in {limit.account for limit in limits}:
            ask(_SPEND, (account, me.hour, *more))
    return me._replace(used=used)


def _mine(drawing: dict[str, _Drawing], claim: Claim) -> _Drawing | None:
    me = drawing.get(claim.run)
    if me is not None and me.epoch > claim.epoch:
        raise _stale(claim)
    return me


def _stale(claim: Claim) -> StaleEpoch:
    return StaleEpoch(f"run {claim.run} does not draw at epoch {claim.epoch}: it has ended, or another coordinator carries it on")


def _limits_on(ask: Ask, user: str) -> list[Limit]:
    return [one for one in _limits(ask) if one.account in accounts_of(user)]


def _limits(ask: Ask) -> Iterator[Limit]:
    for account, span, *values in ask(f"SELECT account, span, {_NAMES} FROM limits ORDER BY account, span", ()):
        yield Limit(account, Window(span), Limits(**dict(zip(COUNTED, values, strict=True))))


def _drawing(ask: Ask) -> Iterator[_Drawing]:
    for run, user, epoch, at, heard, waiting, *counts in ask("SELECT * FROM draws ORDER BY run", ()):
        yield _Drawing(run, user, epoch, at, heard, bool(waiting), _amount(counts[:5]), _amount(counts[5:]))


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
