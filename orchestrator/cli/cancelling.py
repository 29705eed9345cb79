"""``callboard cancel``: ask whoever works on a run to stop it, and close it when nobody does."""

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options, streams

if TYPE_CHECKING:
    from orchestrator.journal.port import Journal

WAIT_SECONDS = 5.0
"""How long the run's coordinator is given to end it."""

_LOOK_SECONDS = 0.1


@click.command(epilog=options.examples("callboard cancel last", "callboard cancel run-1ng7w8r --reason 'wrong goal'"))
@options.run_id
@options.store
@click.option("--reason", default="cancelled by request", show_default=True, help="Why, for the journal.")
@options.as_json
@options.debug
def cancel(run_id: str, store: str | None, reason: str, as_json: bool) -> int:
    """Stop a run. Tasks at work are stopped, what is done stays in the journal."""
    with options.opened(store) as journal:
        run = options.found(journal, run_id).run
        how = "had ended already" if _ended(journal, run) else "was cancelled" if _asked(journal, run, reason) else None
    if how is None:
        streams.note(f"nothing is working on {run}; closing it")
        asyncio.run(_abandon(run, store, reason))
        how = "was closed: nothing was working on it"
    with options.opened(store) as journal:
        from orchestrator.observe.history import summarize

        status = summarize(journal, run).status.value
    streams.note(f"{run} {how} ({status})")
    if as_json:
        streams.write_json({"run": run, "status": status, "how": how}, sys.stdout)
    return 0


def _asked(journal: "Journal", run: str, reason: str) -> bool:
    """Whether the run ended within ``WAIT_SECONDS`` of being asked to."""
    from protocols import codec
    from protocols.messages import CancelRequested

    journal.post(run, codec.pack(CancelRequested(reason=reason)))
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        if _ended(journal, run):
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _ended(journal: "Journal", run: str) -> bool:
    return any(row.run == run and row.ended for row in journal.runs())


async def _abandon(run: str, store: str | None, reason: str) -> None:
    from orchestrator.board import Board

    async with Board(runtime="inline", store=store) as board:
        handle = await board.abandon(run, reason)
        await handle.result()
