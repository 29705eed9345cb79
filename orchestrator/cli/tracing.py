"""``callboard trace``: every step of a run, as a tree for people or as spans for programs."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options
from protocols.failures import BadInput

if TYPE_CHECKING:
    from orchestrator.observe.history import History
    from orchestrator.observe.outline import Outline
    from orchestrator.observe.spans import Span
    from orchestrator.observe.trace import Attempt

WIDTH = 160
"""Columns of a trace that is not written to a terminal."""


@click.command(
    short_help="Show every step of a run as a tree.",
    epilog=options.examples("callboard trace last", "callboard trace last --slowest 3 --full", "callboard trace last --json"),
)
@options.run_id
@options.store
@click.option("--task", metavar="ID", help="Only this task and what it delegated.")
@click.option("--slowest", type=click.IntRange(1), metavar="N", help="Only the N slowest tasks; the others are folded.")
@click.option("--full", is_flag=True, help="With contents: messages, arguments, results, evidence.")
@click.option("--all", "everything", is_flag=True, help="Fold nothing.")
@click.option("--json", "as_json", is_flag=True, help="All spans as one JSON object, named by OpenTelemetry's GenAI conventions.")
@options.debug
def trace(run_id: str, store: str | None, task: str | None, slowest: int | None, full: bool, everything: bool, as_json: bool) -> int:
    """Show a run as a tree: tasks, turns, model and tool calls, with durations, tokens and money."""
    from orchestrator.observe.history import History
    from orchestrator.observe.outline import outline
    from orchestrator.observe.trace import attempts

    if task is not None and slowest is not None:
        raise BadInput("--task and --slowest choose the tasks in two ways; use one of them")
    with options.opened(store) as journal:
        run = options.found(journal, run_id).run
        history = History(run).read(journal.read(run))
        everything = everything or (as_json and slowest is None)
        shown = outline(history.tasks(), only=task, slowest=slowest, everything=everything)
        only = shown.shown()
        found = attempts(journal.read(run), only)
        if as_json:
            _write_spans(history, only, found, full)
        else:
            _draw(history, shown, found, full=full, everything=everything)
    return 0


def _write_spans(history: "History", only: set[str], found: "Iterable[Attempt]", full: bool) -> None:
    from orchestrator.observe.spans import spans, trace_id

    summary = history.summary()
    tasks = (task for task in history.tasks() if task.task in only)
    # span by span: a large run's trace is never in memory at once
    sys.stdout.write(f'{{"run": {json.dumps(summary.run)}, "trace_id": "{trace_id(summary)}", "spans": [')
    for number, span in enumerate(spans(summary, tasks, found, full=full)):
        sys.stdout.write((", " if number else "") + _line(span))
    sys.stdout.write("]}\n")
    sys.stdout.flush()


def _line(span: "Span") -> str:
    return json.dumps(span.model_dump(mode="json"), ensure_ascii=False)


def _draw(history: "History", shown: "Outline", found: "Iterable[Attempt]", *, full: bool, everything: bool) -> None:
    from rich.console import Console

    from orchestrator.observe.drawing import draw

    tried: dict[str, list[Attempt]] = {}
    for attempt in found:
        tried.setdefault(attempt.task, []).append(attempt)
    for tries in tried.values():
        tries.sort(key=lambda attempt: attempt.number)
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, width=None if terminal else WIDTH)
    console.print(draw(history.summary(), shown, tried, full=full, everything=everything))
