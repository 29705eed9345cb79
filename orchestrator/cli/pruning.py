"""``callboard prune``: forget old runs, and give their room back to the journal."""

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options, streams
from protocols.messages import Status

if TYPE_CHECKING:
    from orchestrator.cli.skipping import Skipping
    from orchestrator.journal.port import Journal, RunRow

SPARED_MS = 86_400_000
"""What was stored within the last day stays: an entry that refers to it may still be on its way."""


@click.command(
    short_help="Forget old runs, and what only they had stored.",
    epilog=options.examples(
        "callboard prune --older-than 30d --dry-run",
        "callboard prune --older-than 7d --status failed --status cancelled",
        "callboard prune --older-than 2026-01-31 --json",
    ),
)
@click.option("--older-than", metavar="WHEN", required=True, help="Last heard of before: 30d, 12h, or a date in UTC such as 2026-01-31.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in Status]),
    help="Only runs that ended so; running means unfinished ones, which are left alone otherwise.",
)
@click.option("--dry-run", is_flag=True, help="Only say which.")
@options.store
@options.as_json
@options.debug
def prune(older_than: str, statuses: tuple[str, ...], dry_run: bool, store: str | None, as_json: bool) -> int:
    """Forget runs that ended long ago, and the content that no other run refers to.

    A run that is taken up meanwhile is left as it is. A file keeps its size: what is stored later takes the room.
    """
    from orchestrator.cli import amounts
    from orchestrator.cli.skipping import Skipping
    from orchestrator.observe.figures import count, moment
    from protocols.failures import StaleEpoch

    before = amounts.since(older_than, "--older-than")
    gone: list[dict[str, object]] = []
    size, blobs, blob_bytes = 0, 0, 0
    reading = Skipping()
    with options.opened(store) as journal:
        for row, status in _old(journal, before, frozenset(statuses), reading):
            if not dry_run:
                try:
                    size += journal.forget(row.run, row.epoch)
                except StaleEpoch as error:
                    streams.note(str(error))
                    continue
            gone.append({"run": row.run, "status": status, "entries": row.seq, "last": moment(row.last)})
            if not as_json:
                click.echo(f"{row.run}  {status:<9}  {moment(row.last)[:10]}  {row.seq:,} entries")
        if not dry_run:
            blobs, blob_bytes = journal.sweep(min(before, time.time_ns() // 1_000_000 - SPARED_MS))
    if dry_run:
        streams.note(f"{count(len(gone), 'run')} would be forgotten; leave --dry-run out to do it")
    else:
        freed = f"{(size + blob_bytes) / 1e6:,.1f} MB freed, {blob_bytes / 1e6:,.1f} MB of it in {count(blobs, 'blob')}"
        streams.note(f"{count(len(gone), 'run')} forgotten, {freed}")
    if as_json:
        freed_bytes = {"entry_bytes": size, "blobs": blobs, "blob_bytes": blob_bytes}
        streams.write_json({"runs": gone, "dry_run": dry_run, **freed_bytes}, sys.stdout)
    return reading.exit


def _old(journal: "Journal", before: int, statuses: frozenset[str], reading: "Skipping") -> "Iterator[tuple[RunRow, str]]":
    """The runs to forget, oldest first, and how each stands. One without entries was claimed a moment ago, or never began."""
    from orchestrator.observe.history import glance

    old = [row for row in reversed(journal.runs()) if row.seq and row.last < before and (row.ended or Status.RUNNING in statuses)]
    for row, status in reading.each(old, lambda row: (row, glance(journal, row).status.value if row.ended else Status.RUNNING.value)):
        if not statuses or status in statuses:
            yield row, status
