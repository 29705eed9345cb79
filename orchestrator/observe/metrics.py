"""The metrics there are: names, meanings and labels. What counts them, what exports them and the Grafana board all read this list.

Names follow Prometheus. Ray puts ``ray_`` before each, and ``_total`` behind a counter. No label holds the id of a run, a task or a
user, so the number of series does not grow with the work done.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What Prometheus takes a metric for."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric; two are equal only when they are the same one. ``buckets`` are a histogram's upper bounds, in seconds."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> str:
        """Its name in Prometheus; a histogram's is that of its buckets, because its sum is no use (see ``METRICS``)."""
        return f"ray_{self.name}" + {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_bucket"}[self.kind]


def _counter(name: str, about: str, *labels: str) -> Metric:
    return Metric(f"callboard_{name}", Kind.COUNTER, about, labels)


def _gauge(name: str, about: str, *labels: str) -> Metric:
    return Metric(f"callboard_{name}", Kind.GAUGE, about, labels)


def _durations(name: str, about: str, *labels: str) -> Metric:
    return Metric(f"callboard_{name}", Kind.HISTOGRAM, about, labels, BUCKETS)


BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0)

RUNS_AT_WORK = _gauge("runs_at_work", "runs that have not ended")
RUNS = _counter("runs", "runs that ended, by how: done, partial, failed, budget, cancelled", "status")
READY = _gauge("tasks_ready", "tasks that wait for a free place on a host", "role")
AGENTS = _gauge("agents_at_work", "agents at work, without those that wait for tasks they delegated", "role")
IN_REVIEW = _gauge("tasks_in_review", "tasks that wait for a person's decision")
TASKS = _counter("tasks", "tasks that ended: done or failed", "role", "outcome")
ATTEMPTS = _counter(
    "attempts",
    "attempts that ended: done, failed (some are tried again), in_review, stopped with their run, or lost with their host",
    "role",
    "outcome",
)
VERDICTS = _counter("verdicts", "tasks that failed, by why, and whether trying again may help", "role", "verdict", "severity", "retryable")
FALLBACKS = _counter("fallbacks", "tasks that went to the fallback of a role that failed, by why", "role", "verdict")
TASK_SECONDS = _counter("task_seconds", "time at work, of attempts that were done or failed", "role")
TASK_DURATION = _durations("task_duration_seconds", "how long each of these attempts took", "role")
MODEL_CALLS = _counter("model_calls", "model calls: done, failed, or cached, where nobody was asked", "role", "model", "outcome")
MODEL_SECONDS = _counter("model_seconds", "time in model calls", "role", "model")
MODEL_DURATION = _durations("model_duration_seconds", "how long each model call took", "role", "model")
TOKENS = _counter("tokens", "tokens used: input or output", "role", "model", "kind")
MICROS = _counter("money_micros", "money spent, in millionths of a currency unit", "role", "model")
TOOL_CALLS = _counter("tool_calls", "tool calls: done, failed, cached, or refused before the tool ran", "role", "tool", "outcome")
TOOL_SECONDS = _counter("tool_seconds", "time in tools", "role", "tool")
TOOL_DURATION = _durations("tool_duration_seconds", "how long each call of a tool took", "role", "tool")
BUDGET_LEFT = _gauge("budget_left", "what runs at work may still use of a limit of theirs: neither used nor reserved", "dimension")

WINDOW = _gauge("calls_allowed", "calls of a model that may be under way at once: as declared, or as far as it is known by now", "model")
UNDER_WAY = _gauge("calls_under_way", "calls of a model that have a turn", "model")
WAITING = _gauge("calls_waiting", "calls of a model that wait for a turn, or nearly as many: at least half of them", "model")
CIRCUIT = _gauge("circuit", "whether a model's provider is asked: 0 as usual, 1 by one call that probes, 2 not at all", "model")
REFUSALS = _counter("refusals", "calls for which a model's provider had no room: 429, 503 or overloaded", "model")

METRICS = (
    RUNS_AT_WORK,
    RUNS,
    READY,
    AGENTS,
    IN_REVIEW,
    TASKS,
    ATTEMPTS,
    VERDICTS,
    FALLBACKS,
    TASK_SECONDS,
    TASK_DURATION,
    MODEL_CALLS,
    MODEL_SECONDS,
    MODEL_DURATION,
    TOKENS,
    MICROS,
    TOOL_CALLS,
    TOOL_SECONDS,
    TOOL_DURATION,
    BUDGET_LEFT,
    WINDOW,
    UNDER_WAY,
    WAITING,
    CIRCUIT,
    REFUSALS,
)
"""Every metric. Ray rebuilds a histogram from the middles of its buckets: right for quantiles, wrong for sums. So each has a counter
of seconds beside it, and averages are seconds by calls."""


def table() -> Iterator[str]:
    """The metrics as lines of a Markdown table, under their names in Prometheus."""
    yield "| metric | kind | labels | what it says |"
    yield "| --- | --- | --- | --- |"
    for metric in METRICS:
        yield f"| `{metric.series}` | {metric.kind} | {', '.join(metric.labels)} | {metric.about} |"
