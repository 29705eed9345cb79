"""``callboard cancel``, ``pause`` and ``continue``: ask whoever works on a run to stop, rest or go on."""

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options, streams

if TYPE_CHECKING:
    from orchestrator.journal.port import Journal
    from protocols.messages import ContinueRequested, PauseRequested

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
    row = journal.row(run)
    return row is not None and row.ended


@click.command(epilog=options.examples("callboard pause last", "callboard pause run-1ng7w8r"))
@options.run_id
@options.store
@options.as_json
@options.debug
def pause(run_id: str, store: str | None, as_json: bool) -> int:
    """Have a run rest: nothing is started and no call is made until `callboard continue`. Its seconds go on."""
    from protocols.messages import PauseRequested

    return _rest(run_id, store, as_json, PauseRequested(), "rests")


@click.command("continue", epilog=options.examples("callboard continue last", "callboard continue run-1ng7w8r"))
@options.run_id
@options.store
@options.as_json
@options.debug
def continue_(run_id: str, store: str | None, as_json: bool) -> int:
    """Have a run that was paused go on."""
    from protocols.messages import ContinueRequested

    return _rest(run_id, store, as_json, ContinueRequested(), "goes on")


def _rest(run_id: str, store: str | None, as_json: bool, asked: "PauseRequested | ContinueRequested", how: str) -> int:
    """Ask, and wait until it is heard; where nobody works on the run it is kept for whoever does."""
    from protocols import codec
    from protocols.failures import BadInput

    with options.opened(store) as journal:
        row = options.found(journal, run_id)
        if row.ended:
            raise BadInput(f"{row.run} has ended; `callboard runs` lists those that have not")
        journal.post(row.run, codec.pack(asked))
        until = time.monotonic() + WAIT_SECONDS
        while (waits := bool(journal.posts([row.run]))) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
    if waits:
        streams.note(f"nothing is working on {row.run}; this is kept for when it is resumed")
    else:
        streams.note(f"{row.run} {how}")
    if as_json:
        streams.write_json({"run": row.run, "how": "kept" if waits else how}, sys.stdout)
    return 0


async def _abandon(run: str, store: str | None, reason: str) -> None:
    from orchestrator.board import Board

    async with Board(runtime="inline", store=store) as board:
        handle = await board.abandon(run, reason)
        await handle.result()
