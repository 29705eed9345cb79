"""``callboard budget``: limits of users and of everyone, over all runs that share a journal; and those of a run that is at work."""

import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import candidates, options, streams

if TYPE_CHECKING:
    from orchestrator.journal.allowances import Limit, Standing
    from protocols.budget import Amount, Limits

_WINDOWS = ("run", "hour", "day", "month", "total")
_FIELDS = {"usd": "micros", "tokens": "tokens", "calls": "model_calls", "tool_calls": "tool_calls", "turns": "turns"}
"""What people write, and the dimension that it stands for."""

_LOAD = """Set the limits of a file, all or none. What it does not name stays as it is.

\b
[everyone.day]
usd = 5
[user.ada.hour]
tokens = 100000
calls = 50
"""
"""In the docstring of a command, formatters would escape the mark that keeps these lines apart."""

_TITLES = ("whose", "per", "limit on", "limit", "used", "reserved", "left", "until")


def _whose(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--user``, ``--everyone`` and ``--run``."""
    user = click.option("--user", metavar="U", help="The limits of all runs for this user together.")
    everyone = click.option("--everyone", is_flag=True, help="The limits of all runs together.")
    run = click.option("--run", "run_id", metavar="R", shell_complete=candidates.runs, help="A run's own: its id, or last.")
    return user(everyone(run(command)))


@click.group(
    short_help="Limit what users, or everyone, may use over all runs.",
    epilog=options.examples("callboard budget set --user ada --per day --usd 5", "callboard budget show"),
)
@options.debug
def budget() -> None:
    """Limits over all runs that share the journal: per run, hour, day, month (UTC) or in total.

    They hold beside a run's own limits. Runs at work come under them, and under every change, in about a second; what they have used
    counts. With --run the limits of one run itself are meant.
    """


@budget.command(
    "set",
    epilog=options.examples(
        "callboard budget set --user ada --per day --usd 5 --tokens 2000000",
        "callboard budget set --everyone --per month --usd 250.50",
        "callboard budget set --run last --usd 2.50 --timeout 3600",
    ),
)
@_whose
@click.option("--per", "span", type=click.Choice(_WINDOWS), help="The time over which it counts; days are UTC's. Not with --run.")
@click.option("--usd", metavar="X", help="The most money, a decimal such as 0.25.")
@click.option("--tokens", type=click.IntRange(0), metavar="N", help="The most input and output tokens.")
@click.option("--calls", type=click.IntRange(0), metavar="N", help="The most model calls.")
@click.option("--tool-calls", type=click.IntRange(0), metavar="N", help="The most tool calls.")
@click.option("--turns", type=click.IntRange(0), metavar="N", help="The most turns of agents.")
@click.option("--timeout", type=float, metavar="S", help="With --run: the most seconds since it began.")
@options.store
@options.as_json
@options.debug
def set_(
    user: str | None,
    everyone: bool,
    run_id: str | None,
    span: str | None,
    timeout: float | None,
    store: str | None,
    as_json: bool,
    **counts: Any,
) -> int:
    """Set a limit, or several. Others stay as they are."""
    from orchestrator.cli import amounts
    from orchestrator.journal.allowances import Limit, Window
    from protocols.budget import Limits
    from protocols.failures import BadInput

    given = _limits({name: value for name, value in counts.items() if value is not None}, "--")
    if run_id is not None:
        _only_run(user, everyone, span)
        time_ = amounts.budget(None, timeout, {}) or Limits()
        given = given.model_copy(update={"seconds": time_.seconds})
    elif timeout is not None:
        raise BadInput("--timeout is for one run, with --run; seconds don't add up over runs")
    account = None if run_id is not None else _named(user, everyone)
    if given == Limits():
        raise BadInput("give at least one limit: --usd, --tokens, --calls, --tool-calls, --turns, or with --run also --timeout")
    if run_id is not None:
        return _change(store, run_id, given, as_json)
    if span is None:
        raise BadInput(f"say over which time it counts: --per {', '.join(_WINDOWS[:-1])} or {_WINDOWS[-1]}")
    assert account is not None
    window = Window(span)
    with options.opened(store, create=True) as journal:
        known = next((one.limits for one in journal.limits(account) if one.window is window), Limits())
        journal.set_limits([Limit(account, window, known.model_copy(update=given.model_dump(exclude_none=True)))])
    return _show(store, account, as_json)


@budget.command(
    short_help="Show limits, and what is used and left of them.",
    epilog=options.examples("callboard budget show", "callboard budget show --user ada --json", "callboard budget show --run last"),
)
@_whose
@options.store
@options.as_json
@options.debug
def show(user: str | None, everyone: bool, run_id: str | None, store: str | None, as_json: bool) -> int:
    """Show limits, what is used of them and reserved, what is left, and when their time is over."""
    if run_id is not None:
        _only_run(user, everyone, None)
        return _show_run(store, run_id, as_json)
    return _show(store, _named(user, everyone) if user is not None or everyone else None, as_json)


@budget.command(epilog=options.examples("callboard budget clear --user ada --per day", "callboard budget clear --everyone"))
@_whose
@click.option("--per", "span", type=click.Choice(_WINDOWS), help="Only the limits over this time. Not with --run.")
@options.store
@options.as_json
@options.debug
def clear(user: str | None, everyone: bool, run_id: str | None, span: str | None, store: str | None, as_json: bool) -> int:
    """Take limits away. What was used is remembered, should they come back."""
    from orchestrator.journal.allowances import Limit, Window
    from protocols.budget import Limits

    if run_id is not None:
        _only_run(user, everyone, span)
        return _change(store, run_id, None, as_json)
    account = _named(user, everyone)
    with options.opened(store) as journal:
        journal.set_limits(Limit(account, Window(one), Limits()) for one in ([span] if span else _WINDOWS))
    return _show(store, account, as_json)


@budget.command(help=_LOAD, epilog=options.examples("callboard budget load limits.toml"))
@click.argument("file", metavar="FILE.toml")
@options.store
@options.as_json
@options.debug
def load(file: str, store: str | None, as_json: bool) -> int:
    """Set the limits of a file; its help shows one."""
    limits = list(_read(file))
    with options.opened(store, create=True) as journal:
        journal.set_limits(limits)
    return _show(store, None, as_json)


def _named(user: str | None, everyone: bool) -> str:
    from orchestrator.cli import amounts
    from orchestrator.journal.allowances import EVERYONE, of_user
    from protocols.failures import BadInput

    if (user is not None) == everyone:
        raise BadInput("say whose limit: --user NAME, --everyone, or --run RUN")
    return EVERYONE if user is None else of_user(amounts.user(user))


def _only_run(user: str | None, everyone: bool, span: str | None) -> None:
    from protocols.failures import BadInput

    if user is not None or everyone or span is not None:
        raise BadInput("--run means the limits of one run; leave out --user, --everyone and --per")


def _change(store: str | None, run_id: str, budget: "Limits | None", as_json: bool) -> int:
    """Have a run go on under other limits; ``None`` takes all that it has away."""
    from orchestrator.cli.cancelling import heard
    from orchestrator.cli.reviewing import me
    from protocols.budget import UNLIMITED
    from protocols.failures import BadInput
    from protocols.messages import BudgetChanged

    with options.opened(store) as journal:
        row = options.found(journal, run_id)
        changed = BudgetChanged(budget=budget or UNLIMITED, lifted=budget is None, user=me())
        taken = not row.ended and heard(journal, row.run, changed)
        ended = options.found(journal, row.run).ended
        if ended and not taken:
            raise BadInput(f"{row.run} has ended; `callboard runs` lists those that have not")
        if ended:
            streams.note(f"{row.run} has ended since: what it had used was at these limits, or it was done")
        elif not taken:
            streams.note(f"nothing is working on {row.run}; this is kept for when it is resumed")
    return _show_run(store, row.run, as_json)


def _limits(given: dict[str, Any], before: str) -> "Limits":
    """The limits that are written so; ``before`` stands before their names where a refusal repeats them. Raises ``BadInput``."""
    from orchestrator.cli import amounts
    from protocols.budget import Limits
    from protocols.failures import BadInput

    found: dict[str, int] = {}
    for name, value in given.items():
        if name not in _FIELDS:
            raise BadInput(f"{before}{name} is no limit; there are {', '.join(_FIELDS)}")
        if name == "usd" and not isinstance(value, bool):
            found["micros"] = amounts.micros(str(value), f"{before}usd")
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= amounts.MOST:
            raise BadInput(f"{before}{name} {value!r} is no limit; give a whole number from 0 to {amounts.MOST:,}")
        else:
            found[_FIELDS[name]] = value
    return Limits(**found)


def _read(file: str) -> "Iterator[Limit]":
    from orchestrator.cli import amounts
    from orchestrator.journal.allowances import EVERYONE, of_user
    from protocols.failures import BadInput

    try:
        # money is read as it is written: a float would not be exact
        told = tomllib.loads(Path(file).expanduser().read_text("utf-8"), parse_float=str)
    except OSError as error:
        raise BadInput(f"{file} can't be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise BadInput(f"{file} is not valid TOML ({error}); correct it") from None
    for name, value in told.items():
        if name == EVERYONE:
            yield from _windows(value, EVERYONE, f"{file}: [{name}")
        elif name == "user" and isinstance(value, dict):
            for user, windows in value.items():
                yield from _windows(windows, of_user(amounts.user(user, f"{file}: [user.…]")), f"{file}: [user.{user}")
        else:
            raise BadInput(f"{file}: {name!r} says not whose limit it is; write [everyone.day] or [user.NAME.day]")


def _windows(told: Any, account: str, where: str) -> "Iterator[Limit]":
    from orchestrator.journal.allowances import Limit, Window
    from protocols.failures import BadInput

    for span, given in told.items() if isinstance(told, dict) else [(str(told), None)]:
        if span not in _WINDOWS or not isinstance(given, dict):
            raise BadInput(f"{where}.{span}] is no time that limits count over; there are {', '.join(_WINDOWS)}")
        yield Limit(account, Window(span), _limits(given, f"{where}.{span}] "))


def _show_run(store: str | None, run_id: str, as_json: bool) -> int:
    """The limits of a run itself, as its journal has them."""
    from orchestrator.ledger import RUN
    from orchestrator.replay import replay

    with options.opened(store) as journal:
        state = replay(journal, options.found(journal, run_id).run)
    limits, account = state.ledger.limits, state.ledger.accounts[RUN]
    rows = [row | {"per": "run"} for row in _counted(state.run, limits, account.settled, account.reserved)]
    if limits.seconds is not None:
        used = ((state.ended or time.time_ns() // 1_000_000) - state.began) / 1000
        row = {"account": state.run, "per": "run", "of": "seconds", "limit": limits.seconds, "used": round(used, 3), "reserved": 0}
        rows.append(row | {"left": round(max(limits.seconds - used, 0), 3), "until": state.began + round(limits.seconds * 1000)})
    if limits.subtasks is not None:
        row = {"account": state.run, "per": "run", "of": "subtasks", "limit": limits.subtasks, "used": state.delegated, "reserved": 0}
        rows.append(row | {"left": max(limits.subtasks - state.delegated, 0), "until": None})
    return _table(rows, as_json)


def _show(store: str | None, account: str | None, as_json: bool) -> int:
    with options.opened(store) as journal:
        found = journal.standings(time.time_ns() // 1_000_000, account)
    return _table([row for standing in found for row in _rows(standing)], as_json)


def _table(rows: list[dict[str, Any]], as_json: bool) -> int:
    from orchestrator.observe.figures import moment

    if as_json:
        streams.write_json({"limits": rows}, sys.stdout)
        return 0
    if not rows:
        streams.note("there are no limits there; `callboard budget set` sets one")
        return 0
    from rich.console import Console
    from rich.table import Table

    from orchestrator.observe.figures import clean
    from protocols.budget import COUNTED, SPOKEN

    spoken = dict(zip(COUNTED, SPOKEN, strict=True))
    table = Table(*_TITLES, box=None)
    for column in table.columns[3:7]:
        column.justify = "right"
    for row in rows:
        figures = ("" if row[name] is None else _figure(row["of"], row[name]) for name in ("limit", "used", "reserved", "left"))
        until = moment(row["until"])[:16].replace("T", " ") if row["until"] is not None else ""
        table.add_row(clean(row["account"]), row["per"], spoken.get(row["of"], row["of"]), *figures, until)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200).print(table)
    return 0


def _rows(standing: "Standing") -> Iterator[dict[str, Any]]:
    """One row a limit. Of a limit on every single run there is nothing to sum up."""
    (account, window, limits), used, reserved, until = standing
    for row in _counted(account, limits, used, reserved):
        unknown = {"used": None, "reserved": None, "left": None} if window == "run" else {}
        yield row | unknown | {"per": window.value, "until": until}


def _counted(account: str, limits: "Limits", used: "Amount", reserved: "Amount") -> Iterator[dict[str, Any]]:
    from protocols.budget import COUNTED

    for place, name in enumerate(COUNTED):
        limit = getattr(limits, name)
        if limit is not None:
            row = {"account": account, "per": "", "of": name, "limit": limit, "used": used[place], "reserved": reserved[place]}
            yield row | {"left": max(limit - used[place] - reserved[place], 0), "until": None}


def _figure(of: str, amount: int) -> str:
    from orchestrator.observe.figures import money

    return money(amount) if of == "micros" else f"{amount:,}"
