"""``callboard cost``: what runs cost and who pays, from the journal alone."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options, streams

if TYPE_CHECKING:
    from orchestrator.observe.costs import Cost

_BY = ("run", "user", "role", "model", "task", "day")
_TITLES = ("model calls", "tool calls", "tokens in", "tokens out", "cost")


@click.command(
    short_help="Show what runs cost, by run, user, role, model, task or day.",
    epilog=options.examples(
        "callboard cost --since 7d --by user", "callboard cost --run last --by task", "callboard cost --by model --json"
    ),
)
@click.option("--by", type=click.Choice(_BY), default="run", show_default=True, help="What a row stands for.")
@options.since
@click.option("--user", metavar="U", help="Only runs for this user.")
@click.option("--run", "run_id", metavar="RUN", help="Only this run.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many rows, the dearest first; --json has all.")
@options.store
@options.as_json
@options.debug
def cost(by: str, since: int, user: str | None, run_id: str | None, limit: int, store: str | None, as_json: bool) -> int:
    """Show what runs cost: model and tool calls, tokens, and money to the millionth.

    The rows add up to what the budgets were charged. What was written off with lost hosts is a row of its own, and calls of a model
    whose price is not known are counted as unpriced: their money is not in the sum.
    """
    from orchestrator.observe.costs import By, Costs, runs_since
    from orchestrator.observe.figures import spent

    costs, counted = Costs(By(by), since), 0
    with options.opened(store) as journal:
        rows = [options.found(journal, run_id)] if run_id is not None else journal.runs()
        for row in runs_since(journal, rows, since, user):
            costs.add(journal, row.run)
            counted += 1
    found, total, shared = costs.rows(), costs.total(), costs.shared.total()
    if as_json:
        listed = [row.model_dump(mode="json") for row in found]
        whole = {**total.usage.model_dump(mode="json"), "unpriced": total.unpriced}
        counts = {"rows": listed, "total": whole, "shared": shared.model_dump(mode="json")}
        streams.write_json({"by": by, "since": since or None, "runs": counted, **counts}, sys.stdout)
        return 0
    if not found:
        streams.note("nothing was spent there; `callboard runs` lists what ran")
        return 0
    _show(by, found, total, limit)
    if any(costs.shared.counts):
        streams.note(f"forks share {spent(shared)} with the runs they were forked from: counted there, once")
    return 0


def _show(by: str, found: "Sequence[Cost]", total: "Cost", limit: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from orchestrator.observe.figures import clean

    table = Table(by, *_TITLES, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in found[:limit]:
        table.add_row(clean(_named(row)), *_cells(row))
    table.add_row("total", *_cells(total), style="bold")
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200).print(table)
    if len(found) > limit:
        streams.note(f"… and {len(found) - limit:,} more rows, which the total includes; --limit {len(found)} lists all")
    if total.unpriced:
        streams.note("the price of unpriced calls is not known: give the model a price to have them in the sum")


def _named(row: "Cost") -> str:
    if row.lost:
        return f"{row.key} (written off)".strip()
    return row.key or "(tools)"


def _cells(row: "Cost") -> list[str]:
    from orchestrator.observe.figures import money

    used = row.usage
    paid = [money(used.micros)] * (used.micros > 0 or row.unpriced < max(used.model_calls, 1))
    cost = " + ".join([*paid, *([f"{row.unpriced:,} unpriced"] * bool(row.unpriced))])
    return [*(f"{number:,}" for number in (used.model_calls, used.tool_calls, used.input_tokens, used.output_tokens)), cost]
