"""``callboard cancel``, ``pause`` and ``continue``: ask whoever works on a run to stop, rest or go on."""

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options, reviewing, streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.journal.port import Journal
    from protocols.messages import ContinueRequested, Message, PauseRequested

WAIT_SECONDS = 5.0
"""How long the run's coordinator is given to hear what is asked of it."""

STOP_SECONDS = 30.0
"""How long a coordinator that has heard it is given to end the run."""

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
        how = "had ended already" if _ended(journal, run) else _asked(journal, run, reason)
    if how is None:
        streams.note(f"nothing is working on {run}; closing it")
        asyncio.run(_abandon(run, store, reason))
        how = "was closed: nothing was working on it"
    with options.opened(store) as journal:
        from orchestrator.observe.history import summarize

        status = summarize(journal, run).status.value
        streams.note(f"{run} {how} ({status})")
        reviewing.mention(journal, run)
    if as_json:
        streams.write_json({"run": run, "status": status, "how": how}, sys.stdout)
    return 0


def _asked(journal: "Journal", run: str, reason: str) -> str | None:
    """What came of asking; ``None`` where nobody has heard it. What a coordinator has heard is left to it, however long it takes."""
    from protocols import codec
    from protocols.messages import CancelRequested

    journal.post(run, codec.pack(CancelRequested(reason=reason)))
    if not _becomes(lambda: _ended(journal, run) or not journal.posts([run]), WAIT_SECONDS):
        return None
    ended = _becomes(lambda: _ended(journal, run), STOP_SECONDS)
    return "was cancelled" if ended else "is stopping: what it has at work has not ended yet"


def heard(journal: "Journal", run: str, asked: "Message") -> bool:
    """Ask this of whoever works on a run: whether it is heard soon. Else it is kept for whoever takes the run up."""
    from protocols import codec

    journal.post(run, codec.pack(asked))
    return _becomes(lambda: not journal.posts([run]), WAIT_SECONDS)


def _becomes(true: "Callable[[], bool]", seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    return found


def _ended(journal: "Journal", run: str) -> bool:
    row = journal.row(run)
    return row is not None and row.ended


@click.command(
    short_help="Have a run rest until `callboard continue`.",
    epilog=options.examples("callboard pause last", "callboard pause run-1ng7w8r"),
)
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
    from protocols.failures import BadInput
    from protocols.messages import ContinueRequested

    with options.opened(store) as journal:
        row = options.found(journal, run_id)
        if row.ended:
            raise BadInput(f"{row.run} has ended; `callboard runs` lists those that have not")
        waits = False
        if isinstance(asked, ContinueRequested) and not _paused(journal, row.run):
            how = "was not paused"
        else:
            waits = not heard(journal, row.run, asked)
    if waits:
        streams.note(f"nothing is working on {row.run}; this is kept for when it is resumed")
    else:
        streams.note(f"{row.run} {how}")
    if as_json:
        streams.write_json({"run": row.run, "how": "kept" if waits else how}, sys.stdout)
    return 0


def _paused(journal: "Journal", run: str) -> bool:
    """Whether a run rests, or may have been asked to by a word that nobody has heard yet."""
    from orchestrator.observe.history import summarize

    return bool(journal.posts([run])) or summarize(journal, run).paused


async def _abandon(run: str, store: str | None, reason: str) -> None:
    from orchestrator.board import Board

    async with Board(runtime="inline", store=store) as board:
        handle = await board.abandon(run, reason)
        await handle.result()
