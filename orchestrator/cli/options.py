"""Options and arguments that several commands share."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orchestrator.journal.port import Journal, RunRow

_Command = Callable[..., Any]

store = click.option("--store", metavar="URL", help="The journal: a path or sqlite:///PATH.  [default: ~/.callboard/journal.db]")
debug = click.option("--debug", is_flag=True, expose_value=False, hidden=True)
as_json = click.option("--json", "as_json", is_flag=True, help="Exactly one JSON object on standard output.")
run_id = click.argument("run_id", metavar="RUN")
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress and no summary.")


def runtime(command: _Command) -> _Command:
    """``--runtime`` and ``--hosts``."""
    hosts = click.option("--hosts", type=click.IntRange(1, 1000), default=2, show_default=True, help="Host actors to start.")
    kinds = click.Choice(["ray", "inline"])
    which = click.option("--runtime", type=kinds, default="ray", show_default=True, help="On Ray, or in this very process.")
    return which(hosts(command))


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
