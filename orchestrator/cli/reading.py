"""``callboard runs``, ``show`` and ``journal``: what the journal holds, without anything running."""

import json
import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options, reviewing, streams

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.cli.report import Report, TaskLine
    from orchestrator.observe.summary import RunSummary
    from protocols.messages import FellBack

MOST_FAILURES = 10
"""Failed tasks that ``show`` names."""


@click.command(epilog=options.examples("callboard runs", "callboard runs --limit 5 --json"))
@options.store
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first.")
@options.as_json
@options.debug
def runs(store: str | None, limit: int, as_json: bool) -> int:
    """List the newest runs."""
    from orchestrator.cli.skipping import Skipping
    from orchestrator.observe.figures import duration, moment, money
    from orchestrator.observe.history import glance
    from orchestrator.observe.summary import WAITING

    with options.opened(store) as journal:
        rows = [row for row in journal.runs() if row.seq]  # the others were claimed, and never began
        reading = Skipping()
        found = list(reading.each(islice(rows, limit), lambda row: glance(journal, row)))
    if as_json:
        hidden = {"roles", "models", "tasks", "traceparent"}
        listed = [run.model_dump(mode="json", exclude=hidden) | {"standing": run.standing} for run in found]
        streams.write_json({"runs": listed, "total": len(rows)}, sys.stdout)
        return reading.exit
    if not rows:
        streams.note("no runs yet; start one with `callboard run TARGET`")
        return 0
    lines = [("run", "team", "status", "tasks", "cost", "time", "began", "goal")]
    for run in found:
        began = moment(run.began)[:19].replace("T", " ")
        tasks = f"{run.succeeded:,}/{run.planned:,}"
        lines.append((run.run, run.team, run.standing, tasks, money(run.usage.micros), duration(run.milliseconds), began, run.goal))
    widths = [max(len(line[at]) for line in lines) for at in range(7)]
    for line in lines:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(line[:7], widths, strict=True)), line[7]]).rstrip())
    if len(rows) > limit:
        streams.note(f"… and {len(rows) - limit:,} older; --limit {len(rows)} lists all")
    if any(run.ended is None for run in found):
        streams.note("an unfinished run is at work, or was interrupted: `callboard resume RUN` goes on with it")
    if any(run.standing == WAITING for run in found):
        streams.note("`callboard reviews` lists what waits for a person")
    return reading.exit


@click.command(
    short_help="Show what a run came to.",
    epilog=options.examples("callboard show last", "callboard show last --output", "callboard show run-1ng7w8r --json"),
)
@options.run_id
@options.store
@click.option("--output", "only_output", is_flag=True, help="Only the run's output, as `run` gave it.")
@options.as_json
@options.debug
def show(run_id: str, store: str | None, only_output: bool, as_json: bool) -> int:
    """Show what a run came to: status, cost by role and model, failures, output."""
    from orchestrator.cli import report
    from orchestrator.observe.history import History

    with options.opened(store) as journal:
        row = options.found(journal, run_id)
        history = History(row.run).read(journal.read(row.run))
        found, summary = report.of_history(journal, history), history.summary()
    if only_output:
        if found.output is not None and as_json:
            streams.write_json(found.output, sys.stdout)
        elif found.output is not None:
            streams.write_output(found.output, sys.stdout)
        else:
            streams.note(f"{row.run} has no output")
        return 0
    if as_json:
        about = summary.model_dump(mode="json", include={"team", "goal", "user", "target", "forked", "began", "ended", "resumed", "lost"})
        costs = summary.model_dump(mode="json", include={"roles", "models"})
        streams.write_json(found.as_json() | about | costs, sys.stdout)
        return 0
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    for part in _shown(summary, found):
        console.print(part, soft_wrap=True)
    if row.ended:
        with options.opened(store) as journal:
            reviewing.mention(journal, row.run)
    return 0


def _shown(summary: "RunSummary", found: "Report") -> "list[RenderableType]":
    from rich.table import Table
    from rich.text import Text

    from orchestrator.observe.drawing import headline
    from orchestrator.observe.figures import brief, clean, duration, moment, money
    from orchestrator.observe.summary import WAITING

    facts = [("goal", summary.goal), ("user", summary.user), ("target", summary.target or ""), ("began", moment(summary.began))]
    if summary.forked:
        facts.append(("forked", "{} at entry {}".format(*summary.forked)))
    parts: list[RenderableType] = [headline(summary)]
    parts += [Text.assemble((f"  {name:<8}", "dim"), clean(value)) for name, value in facts if value]
    if summary.failure:
        parts.append(Text(f"  {summary.failure.verdict.value}: {brief(summary.failure.message, 300)}", "red"))
    if summary.standing == WAITING:
        parts.append(Text(f"  `callboard reviews --run {summary.run}` shows what somebody has to decide", "yellow"))
    costs = Table("role", *("tasks", "done", "failed", "at work", "model calls", "tool calls", "tokens", "cost"), box=None)
    for column in costs.columns[1:]:
        column.justify = "right"
    for name, role in summary.roles.items():
        used = role.usage
        numbers = (role.tasks, role.done, role.failed, duration(round(role.seconds * 1000)), used.model_calls, used.tool_calls)
        cells = [f"{cell:,}" if isinstance(cell, int) else cell for cell in (*numbers, used.tokens)]
        costs.add_row(clean(name), *cells, money(used.micros))
    parts += [Text(), costs]
    for name, role in summary.roles.items():
        if role.cut:
            told = f"  {clean(name)}: {role.cut:,} of its model calls did not show the whole conversation, to fit the model's context"
            parts.append(Text(told, "yellow"))
        if role.shortened:
            told = f"  {clean(name)}: {role.shortened:,} of its model calls had to be short, to fit what was left of a limit"
            parts.append(Text(told, "yellow"))
    for name, usage in summary.models.items():
        parts.append(Text(f"  {clean(name)}: {usage.model_calls:,} calls, {usage.tokens:,} tokens, {money(usage.micros)}", "dim"))
    failed = [line for line in found.tasks if line.failure and line.status == "failed"]
    if failed:
        parts += [Text(), Text("failed", "bold red")]
        parts += [
            Text(f"  {line.task} · {line.failure.verdict.value}: {brief(line.failure.message, 200)}")
            for line in failed[:MOST_FAILURES]
            if line.failure
        ]
    if len(failed) > MOST_FAILURES:
        parts.append(Text(f"  … and {len(failed) - MOST_FAILURES:,} more", "dim"))
    if found.fallen_back:
        parts += [Text(), Text("by a fallback", "bold yellow")]
        parts += [Text(line) for one in found.fallen_back[:MOST_FAILURES] for line in _fallen(one)]
    if len(found.fallen_back) > MOST_FAILURES:
        parts.append(Text(f"  … and {len(found.fallen_back) - MOST_FAILURES:,} more", "dim"))
    if found.output is not None:
        parts += [Text(), Text.assemble(("output  ", "bold"), brief(found.output, 200)), Text("  all of it: --output", "dim")]
    return parts


def _fallen(line: "TaskLine") -> list[str]:
    from orchestrator.observe.figures import brief

    def told(one: "FellBack") -> str:
        return f"{one.role} failed ({one.failure.verdict.value}: {brief(one.failure.message, 120)}), {one.to.who} took over"

    return [f"  {line.task} · {told(one)}" for one in line.fallbacks]


@click.command(epilog=options.examples("callboard journal last", "callboard journal last --after 100 --json"))
@options.run_id
@options.store
@click.option("--json", "as_json", is_flag=True, help="One JSON line an entry: seq, at, tag, body.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only entries after this one.")
@options.debug
def journal(run_id: str, store: str | None, as_json: bool, after: int) -> int:
    """Print the entries of a run, in order."""
    from orchestrator.observe.figures import brief, moment
    from orchestrator.observe.history import unpacked

    with options.opened(store) as opened:
        row = options.found(opened, run_id)
        if after and after >= row.seq:
            streams.note(f"{row.run} has {row.seq:,} entries so far, and none after {after:,}")
        for entry in opened.read(row.run, after):
            body = unpacked(entry).model_dump(mode="json", exclude_defaults=True)
            if as_json:
                line = {"seq": entry.seq, "at": moment(entry.at), "tag": entry.tag, "body": body}
                sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
            else:
                sys.stdout.write(f"{entry.seq:>6}  {moment(entry.at)}  {entry.tag:<15}  {brief(body, 140)}\n")
    sys.stdout.flush()
    return 0
