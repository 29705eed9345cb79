"""Options and arguments that several commands share."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from functools import reduce, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestrator.cli import candidates

if TYPE_CHECKING:
    from orchestrator.journal.port import Journal, RunRow
    from protocols.budget import Limits

_Command = Callable[..., Any]

store = click.option(
    "--store", metavar="URL", help="The journal: a path or postgresql://USER@HOST/DATABASE.  [default: ~/.callboard/journal.db]"
)
debug = click.option("--debug", is_flag=True, expose_value=False, hidden=True)
as_json = click.option("--json", "as_json", is_flag=True, help="Exactly one JSON object on standard output.")
target = click.argument("target", shell_complete=candidates.targets)
run_id = click.argument("run_id", metavar="RUN", shell_complete=candidates.runs)
since = click.option(
    "--since",
    metavar="WHEN",
    callback=lambda context, option, value: _moment(value),
    help="Only what was said since: 7d, 12h, or a date in UTC such as 2026-01-31.",
)
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress and no summary.")


class Asked(NamedTuple):
    """What a run is to do, for whom, within what and with which model, as it was typed."""

    goal_text: str | None
    source: str | None
    user: str | None
    budget_usd: str | None
    budget_tokens: int | None
    budget_calls: int | None
    budget_tool_calls: int | None
    budget_turns: int | None
    budget_subtasks: int | None
    timeout: float | None
    model: str | None

    def limits(self) -> "Limits | None":
        """The budget; ``None`` when none is given. Raises ``BadInput``."""
        from orchestrator.cli import amounts

        return amounts.budget(self.budget_usd, self.timeout, self.counts())

    def counts(self) -> dict[str, int | None]:
        """The flags that limit counts, and what they say."""
        from orchestrator.cli import amounts

        return {flag: getattr(self, flag.removeprefix("--").replace("-", "_")) for flag in amounts.COUNTS}

    def whom(self) -> str | None:
        """For whom; ``None`` when nobody is named. Raises ``BadInput``."""
        from orchestrator.cli import amounts

        return None if self.user is None else amounts.user(self.user)

    def goal(self) -> Any:
        """The goal, read from where it is; ``None`` when none is given. Raises ``BadInput``."""
        from orchestrator.cli import amounts

        return amounts.goal(self.goal_text, self.source)

    def flags(self) -> list[str]:
        """The same for another command line, the goal written out. Raises ``BadInput`` where it would be refused there."""
        from protocols.failures import BadInput

        self.limits()
        self.whom()
        goal = self.goal()
        text = goal if goal is None or isinstance(goal, str) else json.dumps(goal)
        if text is not None and text is goal and self.source is not None and text.lstrip()[:1] in ("[", "{"):
            raise BadInput(f"the text of {self.source} begins like JSON, and a job's command line would read it so; begin it with a word")
        given = {"--goal": text, "--user": self.user, "--model": self.model, "--timeout": self.timeout, "--budget-usd": self.budget_usd}
        given |= self.counts()
        return [word for flag, value in given.items() if value is not None for word in (flag, str(value))]


_ASKED = (
    click.option("--goal", "goal_text", metavar="TEXT", help="What to do: text, or a JSON object, array or number."),
    click.option("--input", "source", metavar="FILE", help="Read the goal from a file (- is standard input): text or JSON."),
    click.option("--user", metavar="U", help="Whom the run is for."),
    click.option("--budget-usd", metavar="X", help="The most it may cost, a decimal such as 0.25."),
    click.option("--budget-tokens", type=int, metavar="N", help="The most input and output tokens."),
    click.option("--budget-calls", type=int, metavar="N", help="The most model calls."),
    click.option("--budget-tool-calls", type=int, metavar="N", help="The most tool calls."),
    click.option("--budget-turns", type=int, metavar="N", help="The most turns of agents."),
    click.option("--budget-subtasks", type=int, metavar="N", help="The most tasks that agents may delegate."),
    click.option("--timeout", type=float, metavar="S", help="The most seconds."),
    click.option(
        "--model",
        metavar="ID",
        shell_complete=candidates.models,
        help="Use this model (provider:name, or recorded:RUN) for every role that has one.",
    ),
)


def asked(command: _Command) -> _Command:
    """The options of ``Asked``, given to the command as one argument of that name."""

    @wraps(command)
    def gathered(**given: Any) -> Any:
        return command(asked=Asked(**{name: given.pop(name) for name in Asked._fields}), **given)

    return reduce(lambda made, option: option(made), reversed(_ASKED), gathered)


def _moment(text: str | None) -> int:
    """Milliseconds (UTC); 0, so everything, without ``text``."""
    from orchestrator.cli import amounts

    return amounts.since(text) if text is not None else 0


def examples(*lines: str) -> str:
    """What a command's help ends with: command lines that can be copied."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def cluster(address: str | None) -> str | None:
    """The Ray cluster that ``--address`` means; ``None`` is a local one, started for the run and ended with it.

    Without it the cluster of ``callboard up`` is used while it is there. ``auto`` takes ``RAY_ADDRESS``, else that cluster, else one
    that Ray itself finds on this machine; ``RAY_ADDRESS`` alone changes nothing.
    """
    from orchestrator import warm

    if address == "local":
        return None
    there = warm.found()
    if address in (None, "auto"):
        named = os.environ.get("RAY_ADDRESS") if address == "auto" else None
        address = named or (there.address if there else address)
    if there is not None and there.address == address:
        warm.heed(there)
    return address


class Place(NamedTuple):
    """Where runs are carried out; the fields are what ``Board`` takes."""

    runtime: str
    address: str | None
    hosts: int
    coordinators: int | None


hosts = click.option(
    "--hosts", type=click.IntRange(1, 1000), default=2, show_default=True, help="Host actors of a coordinator, where it has none yet."
)
coordinators = click.option(
    "--coordinators", type=click.IntRange(1, 100), metavar="N", help="Spread runs over so many.  [default: those there, else 1]"
)


def runtime(command: _Command) -> _Command:
    """``--runtime``, ``--address``, ``--hosts`` and ``--coordinators``, given to the command as one ``place``."""

    @wraps(command)
    def gathered(runtime: str, address: str | None, hosts: int, coordinators: int | None, **given: Any) -> Any:
        address = cluster(address) if runtime == "ray" else address
        return command(place=Place(runtime, address, hosts, coordinators), **given)

    where = click.option(
        "--address",
        metavar="A",
        help="The Ray cluster to run on: HOST:PORT, auto (RAY_ADDRESS, or one on this machine), or local (one of the run's own).  "
        "[default: that of `callboard up` if it is there, else local]",
    )
    kinds = click.Choice(["ray", "inline"])
    which = click.option("--runtime", type=kinds, default="ray", show_default=True, help="On Ray, or in this very process.")
    return which(where(hosts(coordinators(gathered))))


def opened(url: str | None, *, create: bool = False) -> "closing[Journal]":
    """The journal at ``url``, to be closed by ``with``.

    Raises ``BadInput`` where a file is missing that it does not ``create``; the journal of the home folder is empty then.
    """
    from orchestrator.journal import address_of, open_journal

    if url is None and not create and not os.path.exists(address_of(None) or ""):
        return closing(open_journal("memory:"))
    return closing(open_journal(url, must_exist=not create))


def found(journal: "Journal", text: str) -> "RunRow":
    """The run that ``text`` means: an id, the beginning of exactly one, or ``last``. Raises ``BadInput``."""
    from protocols.failures import BadInput

    rows = [row for row in journal.runs() if row.seq]  # the others were claimed, and never began
    if not rows:
        raise BadInput("this journal holds no runs yet; start one with `callboard run TARGET`, or name another journal with --store")
    if text == "last":
        return rows[0]
    exact = [row for row in rows if row.run == text]
    alike = exact or [row for row in rows if row.run.startswith((text, f"run-{text}"))] if text else []
    if not alike:
        raise BadInput(f"no run is called {text!r}; `callboard runs` lists them")
    if len(alike) > 1:
        some = ", ".join(row.run for row in alike[:4]) + (", …" if len(alike) > 4 else "")
        raise BadInput(f"{text!r} begins {len(alike)} runs ({some}); write more of it")
    return alike[0]
