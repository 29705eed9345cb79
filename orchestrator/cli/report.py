"""What a run came to, as one value: made from a result that just came in, or from the journal, and told the same way."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.text import Text

from orchestrator.cli import exits
from orchestrator.journal.port import Journal
from orchestrator.observe.figures import brief, count, duration, money, spent
from orchestrator.observe.history import History
from orchestrator.observe.output import output
from orchestrator.observe.summary import State
from protocols.budget import NOTHING, Usage
from protocols.failures import Failure
from protocols.messages import FellBack, Status
from protocols.record import Record

if TYPE_CHECKING:
    from orchestrator.board import RunResult

SLOWEST = 3
"""Tasks named as the slowest in a summary."""

_STATES = (State.DONE, State.FAILED, State.RUNNING, State.IN_REVIEW, State.WAITING)
_COLOURS = {Status.DONE: "green", Status.FAILED: "red"}


class TaskLine(Record):
    """One task's outcome; ``seconds`` at work. ``fallbacks`` says who failed at it and took over, ``shortened`` how many of its model
    calls had too little room for a whole reply."""

    task: str
    role: str
    status: str
    attempts: int
    seconds: float
    usage: Usage
    failure: Failure | None = None
    fallbacks: tuple[FellBack, ...] = ()
    shortened: int = 0


class Report(Record):
    """One run's outcome; ``seconds`` from its beginning to its end."""

    run: str
    status: Status
    output: Any = None
    failure: Failure | None = None
    usage: Usage = NOTHING
    seconds: float = 0.0
    tasks: tuple[TaskLine, ...] = ()

    @property
    def exit(self) -> exits.Exit:
        """The exit code that says so."""
        return exits.of_run(self.status, self.failure)

    @property
    def shortened(self) -> int:
        """How many model calls had too little room for a whole reply."""
        return sum(line.shortened for line in self.tasks)

    @property
    def fallen_back(self) -> tuple[TaskLine, ...]:
        """The tasks that a fallback took over."""
        return tuple(line for line in self.tasks if line.fallbacks)

    def as_json(self) -> dict[str, Any]:
        """The one object of ``--json``. Money is in ``cost_micros``, integer millionths."""
        fields = self.model_dump(mode="json")
        counts = Counter(line.status for line in self.tasks)
        return {
            "run": self.run,
            "status": fields["status"],
            "exit_code": int(self.exit),
            "output": fields["output"],
            "failure": fields["failure"],
            "usage": fields["usage"],
            "cost_micros": self.usage.micros,
            "seconds": round(self.seconds, 3),
            "tasks": {"total": len(self.tasks), **{state.value: counts[state.value] for state in _STATES}},
            "fallen_back": len(self.fallen_back),
            "shortened": self.shortened,
            "outcomes": fields["tasks"],
        }


def of_result(result: "RunResult", seconds: float) -> Report:
    """The report of a run that just ended."""
    lines = (
        TaskLine(
            task=one.task,
            role=one.role,
            status=str(getattr(one.status, "value", one.status)),
            attempts=one.attempts,
            seconds=one.seconds,
            usage=one.usage,
            failure=one.failure,
            fallbacks=one.fallbacks,
            shortened=one.shortened,
        )
        for one in result.tasks
    )
    return Report(
        run=result.run_id,
        status=result.status,
        output=to_jsonable_python(result.output, fallback=str),
        failure=result.failure,
        usage=result.usage,
        seconds=seconds,
        tasks=tuple(lines),
    )


def of_history(journal: Journal, history: History) -> Report:
    """The report of a run from its journal, which ``history`` has read to its end."""
    summary = history.summary()
    lines = (
        TaskLine(
            task=task.task,
            role=task.role,
            status=task.state.value,
            attempts=task.attempts,
            seconds=task.seconds,
            usage=task.usage,
            failure=task.failure,
            fallbacks=task.fallbacks,
            shortened=task.shortened,
        )
        for task in history.tasks()
    )
    return Report(
        run=summary.run,
        status=summary.status,
        output=output(journal, history),
        failure=summary.failure,
        usage=summary.usage,
        seconds=summary.milliseconds / 1000,
        tasks=tuple(lines),
    )


def tell(report: Report, console: Console, *, hint: str | None) -> None:
    """The summary for people: how it ended, tasks, money, tokens, calls, time, and the slowest tasks."""
    done = sum(line.status == State.DONE.value for line in report.tasks)
    line = Text.assemble((report.status.value, f"bold {_COLOURS.get(report.status, 'yellow')}"), f" · {count(done, 'task')} done")
    if failed := len(report.tasks) - done:
        line.append(f", {failed:,} not", "red")
    if report.fallen_back:
        line.append(f", {len(report.fallen_back):,} by a fallback", "yellow")
    if report.shortened:
        line.append(f" · {count(report.shortened, 'model call')} shortened", "yellow")
    line.append(f" · {duration(round(report.seconds * 1000))}")
    line.append(f" · {spent(report.usage) or 'no calls'}")
    if not report.usage.micros:
        line.append(f" · {money(0)}")
    console.print(line, soft_wrap=True)
    if report.failure:
        console.print(Text(f"  {report.failure.verdict.value}: {brief(report.failure.message, 300)}", "red"), soft_wrap=True)
    if names := _slowest(report.tasks):
        console.print(Text(f"  slowest: {names}", "dim"), soft_wrap=True)
    if hint:
        console.print(Text(f"  every step: {hint}", "dim"), soft_wrap=True)


def _slowest(tasks: Iterable[TaskLine]) -> str:
    slow = sorted((line for line in tasks if line.seconds > 0), key=lambda line: -line.seconds)[:SLOWEST]
    return ", ".join(f"{line.task} {duration(round(line.seconds * 1000))}" for line in slow)
