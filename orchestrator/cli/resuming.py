"""``callboard resume``: go on with one run that was interrupted, or with all of them."""

import asyncio
import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli import candidates, options, streams
from protocols.failures import BadInput, CallboardError

if TYPE_CHECKING:
    from orchestrator.cli.report import Report
    from orchestrator.cli.skipping import Skipping


@click.command(epilog=options.examples("callboard resume last", "callboard resume run-1ng7w8r --runtime inline", "callboard resume --all"))
@click.argument("run_id", metavar="[RUN]", required=False, shell_complete=candidates.runs)
@click.option("--all", "every", is_flag=True, help="Every run that has not ended; those at work elsewhere are taken over.")
@options.runtime
@options.store
@options.as_json
@options.quiet
@options.debug
def resume(run_id: str | None, every: bool, place: options.Place, store: str | None, as_json: bool, quiet: bool) -> int:
    """Go on with a run that was interrupted. One that has ended gives its output again."""
    from orchestrator.cli.running import carry_on

    if (run_id is None) is not every:
        raise BadInput("name one run, or say --all")
    return _all(place, store, as_json) if run_id is None else carry_on(run_id, place, store, as_json, quiet)


def _all(place: options.Place, store: str | None, as_json: bool) -> int:
    from orchestrator.cli import modelling
    from orchestrator.cli.skipping import Skipping
    from orchestrator.observe.history import unpacked
    from protocols.messages import RunRequested

    reading = Skipping()
    with streams.kept() as out:
        with options.opened(store) as journal:
            rows = [row for row in reversed(journal.runs()) if row.seq and not row.ended]
            firsts = dict(reading.each(rows, lambda row: (row.run, unpacked(journal.pick(row.run, [1])[0]))))
        runs = list(firsts)
        teams = [first.team for first in firsts.values() if isinstance(first, RunRequested)]
        modelling.have(sorted({model for team in teams for role in team.roles.values() for model in role.models()}))
        streams.note(f"{len(runs)} runs have not ended" if runs else "every run has ended; nothing to resume")
        reports = asyncio.run(_results(runs, place, store, reading)) if runs else []
        if as_json:
            streams.write_json({"runs": [report.as_json() for report in reports]}, out)
    return max(int(reading.exit), *(int(report.exit) for report in reports), 0)


async def _results(runs: list[str], place: options.Place, store: str | None, reading: "Skipping") -> "list[Report]":
    from orchestrator.board import Board
    from orchestrator.cli import report
    from orchestrator.cli.running import elsewhere

    began = time.monotonic()
    async with Board(store=store, **place._asdict()) as board:
        if place.address is not None:
            streams.note(f"on the cluster at {place.address}{elsewhere(place.address)}")

        async def result(run: str) -> "Report | None":
            try:
                ended = await (await board.resume(run)).result()
            except CallboardError as error:  # the others go on
                reading.skip(run, error)
                return None
            streams.note(f"{run} has ended: {ended.status.value}")
            return report.of_result(ended, time.monotonic() - began)

        return [report for report in await asyncio.gather(*(result(run) for run in runs)) if report is not None]
