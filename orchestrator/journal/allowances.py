"""The other half of the journal port: limits of one user and of everyone, which hold over all runs that share the store.

What a run may use of them is drawn before it is promised to an agent, and settled after. A draw is made in the present hour, day and
month (UTC) and counts there, used or not, until it is settled; what is not used yet moves on to the present with the next draw or
settlement, if it fits there. So a run that nobody carries on weighs on the windows in which it was last heard of, and on no later ones.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from protocols.budget import SPOKEN, ZERO, Amount, Limits

EVERYONE = "everyone"
"""The account of all users together."""

_USER = "user "

FRESH_MS = 30_000
"""A run that was heard of within this time is at work: what it has drawn may come back."""


class Window(StrEnum):
    """The time over which a limit counts; days and months begin at midnight UTC."""

    RUN = "run"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class Limit(NamedTuple):
    """The counted limits of an account in a window; with none of them set, it has no limit there."""

    account: str
    window: Window
    limits: Limits


class Claim(NamedTuple):
    """Who draws: a run, the user it is for, and the epoch of whoever carries it on. Calls of earlier epochs are refused."""

    run: str
    user: str
    epoch: int


class Short(NamedTuple):
    """A draw that does not fit. ``dimension`` is a place in ``COUNTED``; ``others`` says that runs at work may yet give some back."""

    account: str
    window: Window
    dimension: int
    others: bool = False

    def __str__(self) -> str:
        when = "in total" if self.window is Window.TOTAL else f"per {self.window}"
        return f"{SPOKEN[self.dimension]} of {self.account} {when}"


class Standing(NamedTuple):
    """A limit and what counts against it at one moment. ``until`` is when its window ends (milliseconds), if it does.

    A limit on every single run adds nothing up: there ``used`` and ``reserved`` are zero.
    """

    limit: Limit
    used: Amount
    reserved: Amount
    until: int | None


class Allowances(Protocol):
    """Limits over all runs. Each call is one transaction; made again, after a crash or a lost connection, it changes nothing more."""

    def set_limits(self, limits: Iterable[Limit]) -> None:
        """Replace the limits of these accounts and windows, all or none. Raises ``BadInput`` for seconds, which do not add up."""
        ...

    def limits(self, account: str | None = None) -> list[Limit]:
        """The limits there are, or those of one account."""
        ...

    def draw(self, claim: Claim, used: Amount, held: Amount, need: Amount, most: int, at: int, *, idle: bool = False) -> Limits | Short:
        """Reserve ``need`` once, or up to ``most`` times while plenty is left, on top of what the run ``used`` and has ``held``.

        Returns how much the run may have in all, in the dimensions that are limited; or what is short, and then nothing more is reserved.
        ``idle`` says that the run holds nothing that may come back by itself. ``at`` is in milliseconds. Raises ``StaleEpoch`` for a run
        that did not ``join``, or has ended.
        """
        ...

    def join(self, claim: Claim, used: Amount, at: int, promised: Amount = ZERO) -> None:
        """Let a run draw from now on. What it ``used`` was paid elsewhere, unless it draws already; what it uses besides counts. All that
        it has ``promised`` and used stands as drawn from now on, whether it fits or not."""
        ...

    def settle(self, claim: Claim, used: Amount, drawn: Amount | None, at: int, *, ended: bool = False) -> bool:
        """Count exactly what the run ``used`` so far, and have no more than ``drawn`` stay drawn for it (``None``: as it was).

        With ``ended`` nothing stays reserved, and the run draws no more. Whether others wait for room.
        """
        ...

    def standings(self, at: int, account: str | None = None) -> list[Standing]:
        """Every limit, or those of one account, and what counts against it."""
        ...

    def drawing(self) -> list[tuple[Claim, Amount]]:
        """The runs that have not been settled with ``ended``, and what is drawn for each."""
        ...


def of_user(name: str) -> str:
    """The account of a user."""
    return f"{_USER}{name}"


def user_of(account: str) -> str | None:
    """The user whose account this is; ``None`` for everyone's."""
    return account.removeprefix(_USER) if account.startswith(_USER) else None


def accounts_of(user: str) -> tuple[str, str]:
    """The accounts that a run for ``user`` draws from."""
    return of_user(user), EVERYONE


def hour(at: int) -> int:
    """The number of the hour (UTC) since the epoch; ``at`` is in milliseconds."""
    return at // 3_600_000


def hours(window: Window, at: int) -> tuple[int, int]:
    """The hours that a window around ``at`` has, as first and one behind the last: of a total, all there will be."""
    if window is Window.HOUR:
        return hour(at), hour(at) + 1
    if window is Window.DAY:
        day = hour(at) // 24
        return day * 24, day * 24 + 24
    if window is Window.MONTH:
        month = datetime.fromtimestamp(at // 1000, UTC).replace(day=1, hour=0, minute=0, second=0)
        following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
        return int(month.timestamp()) // 3600, int(following.timestamp()) // 3600
    return -(1 << 62), 1 << 62
