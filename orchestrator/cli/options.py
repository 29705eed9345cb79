"""Options and arguments that several commands share."""

import os
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import candidates

if TYPE_CHECKING:
    from orchestrator.journal.port import Journal, RunRow

_Command = Callable[..., Any]

store = click.option("--store", metavar="URL", help="The journal: a path or sqlite:///PATH.  [default: ~/.callboard/journal.db]")
debug = click.option("--debug", is_flag=True, expose_value=False, hidden=True)
as_json = click.option("--json", "as_json", is_flag=True, help="Exactly one JSON object on standard output.")
run_id = click.argument("run_id", metavar="RUN", shell_complete=candidates.runs)
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress and no summary.")


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
    if address not in (None, "auto"):
        return address
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else None
    there = warm.found()
    return named or (there.address if there else address)


def runtime(command: _Command) -> _Command:
    """``--runtime``, ``--address`` and ``--hosts``."""
    where = click.option(
        "--address",
        metavar="A",
        help="The Ray cluster to run on: HOST:PORT, auto (RAY_ADDRESS, or one on this machine), or local (one of the run's own).  "
        "[default: that of `callboard up` if it is there, else local]",
    )
    hosts = click.option("--hosts", type=click.IntRange(1, 1000), default=2, show_default=True, help="Host actors to start.")
    kinds = click.Choice(["ray", "inline"])
    which = click.option("--runtime", type=kinds, default="ray", show_default=True, help="On Ray, or in this very process.")
    return which(where(hosts(command)))


def opened(url: str | None) -> "closing[Journal]":
    """The journal at ``url``, to be closed by ``with``."""
    from orchestrator.journal import open_journal

    return closing(open_journal(url))


def found(journal: "Journal", text: str) -> "RunRow":
    """The run that ``text`` means: an id, the beginning of exactly one, or ``last``. Raises ``BadInput``."""
    from protocols.failures import BadInput

    rows = journal.runs()
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
