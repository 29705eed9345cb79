"""The meter: counts what runs do, from the messages that their coordinator journals. Pure Python; how numbers leave is not its business.

A message is heard before the reducer folds it and counts once it is durable. Replay goes past the meter, so nothing counts twice.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from orchestrator.ledger import RUN
from orchestrator.observe import metrics
from orchestrator.observe.logs import get_logger
from orchestrator.observe.metrics import Kind, Metric
from orchestrator.reducer.attempts import is_tried_again, what_follows
from orchestrator.reducer.state import Phase, RunState
from orchestrator.throttle import Throttle
from protocols import messages as m
from protocols.budget import COUNTED
from protocols.failures import Failure

Labels = tuple[str, ...]
Increment = tuple[Metric, Labels, float]
"""A metric, its labels' values, and what to add; for a histogram the seconds to observe."""

Fact = tuple[Any, ...]
"""What a message says that counts: the function that makes increments of it, and that function's arguments. Equal facts are kept
once with their number, because most tasks of a large run are alike."""

Counts = dict[tuple[Metric, Labels, int], float]
"""What was added, by metric and labels. The last part of a key is the bucket of a histogram, else -1."""

Levels = dict[tuple[Metric, Labels], float]
"""Where the gauges stand."""

MOST_VALUES = 50
"""A label has at most this many values, ``OTHER`` among them for all that come later. Teams are many, and so are their roles."""

OTHER = "other"
_OPEN_ENDED = frozenset(("role", "model", "tool"))

log = get_logger("meter")


class Meter:
    """Gathers increments. ``hear`` each message, then ``commit`` when all heard are durable or ``discard`` when they will not be.

    ``urgent`` is called by a commit that ended a run: what started the run may end this process next.
    """

    def __init__(self, urgent: Callable[[], None] = lambda: None) -> None:
        self._urgent = urgent
        self._heard: dict[Fact, int] = {}
        self._counted: Counts = {}
        self._values: dict[str, set[str]] = {}
        self._refusals: Counter[str] = Counter()
        self._broken = False

    def hear(self, state: RunState, message: m.Message) -> None:
        """Take in a message that ``state`` is about to fold. Whatever goes wrong in here is logged once and harms no run."""
        fact_in = _FACTS.get(type(message))
        if fact_in is None:
            return
        try:
            fact = fact_in(state, message)
            if fact is not None:
                self._heard[fact] = self._heard.get(fact, 0) + 1
        except Exception:
            self._complain()

    def commit(self) -> None:
        """What was heard is durable."""
        if not self._heard:
            return
        heard, self._heard = self._heard, {}
        try:
            for (increments, *said), number in heard.items():
                for metric, labels, value in increments(*said):
                    self._add(metric, labels, value, number)
            if any(increments is _run_increments for increments, *_ in heard):
                self._urgent()
        except Exception:
            self._complain()

    def _add(self, metric: Metric, labels: Labels, value: float, number: int) -> None:
        bucket = -1
        if metric.kind is Kind.HISTOGRAM:
            bucket, value = bisect_left(metric.buckets, value), 1
        key = (metric, self._bounded(metric, labels), bucket)
        self._counted[key] = self._counted.get(key, 0) + value * number

    def discard(self) -> None:
        """What was heard did not happen."""
        self._heard.clear()

    def take(self) -> Counts:
        """What has become durable since the last time."""
        counted, self._counted = self._counted, {}
        return counted

    def levels(self, states: Iterable[RunState], throttles: Iterable[Throttle] = (), now: float = 0.0) -> Levels:
        """The gauges, over these runs and throttles together, whose clock says ``now``. What providers refused is counted on the way."""
        found: Levels = {(metrics.RUNS_AT_WORK, ()): 0}
        for state in states:
            for metric, labels, value in _levels(state):
                key = (metric, self._bounded(metric, labels))
                found[key] = found.get(key, 0) + value
        for throttle in throttles:
            for metric, value in _calls(throttle, now):
                key = (metric, self._bounded(metric, (throttle.model,)))
                found[key] = max(found.get(key, 0), value) if metric is metrics.CIRCUIT else found.get(key, 0) + value
            self._count_refusals(throttle)
        return found

    def _count_refusals(self, throttle: Throttle) -> None:
        """They are not journalled as such, so they count as soon as they are seen."""
        more = throttle.refusals - self._refusals[throttle.model]
        if more:
            self._refusals[throttle.model] += more
            self._add(metrics.REFUSALS, (throttle.model,), more, 1)

    def _bounded(self, metric: Metric, labels: Labels) -> Labels:
        return tuple(self._value(name, value) if name in _OPEN_ENDED else value for name, value in zip(metric.labels, labels, strict=True))

    def _value(self, name: str, value: str) -> str:
        known = self._values.setdefault(name, {OTHER})
        if value not in known:
            if len(known) >= MOST_VALUES:
                return OTHER
            known.add(value)
        return value

    def _complain(self) -> None:
        if not self._broken:
            self._broken = True
            log.exception("a metric could not be counted; others may be missing too, and this is not said again")


def _task_ended(state: RunState, body: m.TaskEnded) -> Fact | None:
    me = state.tasks.get(body.task)
    if me is None or me.attempt != body.attempt or me.phase is Phase.READY:  # of another attempt, or taken for lost already
        return None
    if me.awaits_answer and body.failure is None:
        return _task_increments, me.task.role, None
    if me.phase is Phase.IN_REVIEW:  # counted when it was asked, which is not always followed by a word of its end
        return _duration_increments, me.task.role, body.ended - body.began
    failure = body.failure
    goes_on = failure is not None and (is_tried_again(state, me, body) or what_follows(state, me, failure))
    last = me.at_work and not goes_on
    return _attempt_increments, me.task.role, failure, last, body.ended - body.began


def _attempt_increments(role: str, failure: Failure | None, last: bool, milliseconds: int) -> Iterator[Increment]:
    yield metrics.ATTEMPTS, (role, _outcome(failure)), 1
    yield from _duration_increments(role, milliseconds)
    if last:
        yield from _task_increments(role, failure)


def _duration_increments(role: str, milliseconds: int) -> Iterator[Increment]:
    yield metrics.TASK_DURATION, (role,), milliseconds / 1000
    if milliseconds > 0:
        yield metrics.TASK_SECONDS, (role,), milliseconds / 1000


def _review_asked(state: RunState, body: m.ReviewAsked) -> Fact | None:
    me = state.tasks.get(body.task)
    waits = me is not None and me.attempt == body.attempt and me.at_work and state.stopping is None
    return (_review_increments, me.task.role) if me is not None and waits else None


def _review_increments(role: str) -> Iterator[Increment]:
    yield metrics.ATTEMPTS, (role, "in_review"), 1


def _task_closed(state: RunState, body: m.TaskClosed) -> Fact | None:
    me = state.tasks[body.task]
    return (_task_increments, me.task.role, body.failure) if me.open else None


def _fell_back(state: RunState, body: m.FellBack) -> Fact:
    return _fallback_increments, body.role, body.failure.verdict.value


def _fallback_increments(role: str, verdict: str) -> Iterator[Increment]:
    yield metrics.FALLBACKS, (role, verdict), 1


def _task_increments(role: str, failure: Failure | None) -> Iterator[Increment]:
    yield metrics.TASKS, (role, _outcome(failure)), 1
    if failure is not None:
        yield metrics.VERDICTS, (role, failure.verdict.value, failure.severity.value, "true" if failure.retryable else "false"), 1


def _lost(state: RunState, body: m.AttemptsLost) -> Fact:
    found = ((state.tasks.get(name), attempt) for name, attempt in body.tasks)
    roles = tuple(me.task.role for me, attempt in found if me is not None and me.attempt == attempt and me.at_work)
    return _loss_increments, roles, "stopped" if body.returned else "lost"


def _resumed(state: RunState, body: m.RunResumed) -> Fact:
    at_work = (me for me in state.tasks.values() if me.at_work)
    return _loss_increments, tuple(me.task.role for me in at_work if (me.task.id, me.attempt) not in body.kept), "lost"


def _loss_increments(roles: tuple[str, ...], outcome: str) -> Iterator[Increment]:
    for role in roles:
        yield metrics.ATTEMPTS, (role, outcome), 1


def _model_called(state: RunState, body: m.ModelCalled) -> Fact | None:
    me = state.tasks.get(body.task)
    if me is None:
        return None
    used = (body.usage.input_tokens, body.usage.output_tokens, body.usage.micros)
    return _model_increments, me.task.role, body.model, "cached" if body.cached else _outcome(body.failure), body.ended - body.began, *used


def _model_increments(role: str, model: str, outcome: str, milliseconds: int, given: int, made: int, micros: int) -> Iterator[Increment]:
    yield metrics.MODEL_CALLS, (role, model, outcome), 1
    yield metrics.MODEL_DURATION, (role, model), milliseconds / 1000
    amounts = (
        (metrics.MODEL_SECONDS, (role, model), milliseconds / 1000),
        (metrics.TOKENS, (role, model, "input"), given),
        (metrics.TOKENS, (role, model, "output"), made),
        (metrics.MICROS, (role, model), micros),
    )
    yield from (one for one in amounts if one[2] > 0)


def _tool_called(state: RunState, body: m.ToolCalled) -> Fact | None:
    me = state.tasks.get(body.task)
    if me is None:
        return None
    if body.settled == "cache":
        return _tool_increments, me.task.role, body.call.name, "cached", None
    if not body.ran:  # its name may be one that the model made up
        return _tool_increments, me.task.role, OTHER, "refused", None
    return _tool_increments, me.task.role, body.call.name, _outcome(body.failure), body.ended - body.began


def _tool_increments(role: str, tool: str, outcome: str, milliseconds: int | None) -> Iterator[Increment]:
    yield metrics.TOOL_CALLS, (role, tool, outcome), 1
    if milliseconds is not None:
        yield metrics.TOOL_DURATION, (role, tool), milliseconds / 1000
        if milliseconds > 0:
            yield metrics.TOOL_SECONDS, (role, tool), milliseconds / 1000


def _run_ended(state: RunState, body: m.RunEnded) -> Fact:
    return _run_increments, body.status.value


def _run_increments(status: str) -> Iterator[Increment]:
    yield metrics.RUNS, (status,), 1


def _outcome(failed: object) -> str:
    return "done" if failed is None else "failed"


_FACTS: dict[type[m.Message], Callable[[RunState, Any], Fact | None]] = {
    m.RunEnded: _run_ended,
    m.TaskEnded: _task_ended,
    m.ReviewAsked: _review_asked,
    m.TaskClosed: _task_closed,
    m.FellBack: _fell_back,
    m.AttemptsLost: _lost,
    m.RunResumed: _resumed,
    m.ModelCalled: _model_called,
    m.ToolCalled: _tool_called,
}


def _calls(throttle: Throttle, now: float) -> Iterator[tuple[Metric, float]]:
    yield metrics.WINDOW, throttle.window
    yield metrics.UNDER_WAY, throttle.out
    yield metrics.WAITING, throttle.wanted
    yield metrics.CIRCUIT, throttle.circuit(now)


def _levels(state: RunState) -> Iterator[Increment]:
    yield metrics.RUNS_AT_WORK, (), 1
    for role, queue in state.ready.items():
        yield metrics.READY, (role,), len(queue)
    for role, count in state.working.items():
        yield metrics.AGENTS, (role,), count
    yield metrics.IN_REVIEW, (), state.in_review
    account = state.ledger.accounts[RUN]
    for index, limit in account.bounds:
        yield metrics.BUDGET_LEFT, (COUNTED[index],), max(limit - account.settled[index] - account.reserved[index], 0)
