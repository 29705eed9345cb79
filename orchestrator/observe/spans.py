"""The trace as spans, named after OpenTelemetry's semantic conventions for generative AI.

Source: https://github.com/open-telemetry/semantic-conventions-genai (status: development). A run is ``invoke_workflow``, a task
``invoke_agent`` (the planner's ``plan``), a model call ``chat``, a tool call ``execute_tool``. Attempts, turns and delegations
have no name there: they are plain spans with ``callboard.*`` attributes. Ids are digests of the place in the run, so reading a
journal twice gives the same spans.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.observe.figures import clean
from orchestrator.observe.summary import RunSummary, State, TaskSummary
from orchestrator.observe.trace import Attempt, Outcome, Step
from protocols.budget import Usage
from protocols.chat import ToolCall
from protocols.failures import Failure
from protocols.messages import ModelCalled, ReviewAsked, ReviewDecided, SubtasksAsked, ToolCalled, ToolIntended
from protocols.record import Record
from protocols.team import PLANNER

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Span(Record):
    """One span. Times are nanoseconds since the epoch (UTC); ``status`` is ``unset``, ``ok`` or ``error``."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str | None
    kind: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    status: str
    status_message: str = ""
    attributes: dict[str, Any]


def spans(run: RunSummary, tasks: Iterable[TaskSummary], attempts: Iterable[Attempt], *, full: bool = False) -> Iterator[Span]:
    """The spans of a run: its own, then its tasks', then its attempts' with their turns and calls. ``full`` adds contents."""
    maker = _Maker(run)
    yield maker.run()
    for task in tasks:
        yield maker.task(task)
    for attempt in attempts:
        yield from maker.attempt(attempt, full)


def trace_id(run: RunSummary) -> str:
    """The trace that the run was started in, else one of its own."""
    found = _TRACEPARENT.fullmatch(run.traceparent or "")
    return found[1] if found else hashlib.sha256(run.run.encode()).hexdigest()[:32]


class _Maker:
    def __init__(self, run: RunSummary) -> None:
        self._run = run
        self._trace = trace_id(run)

    def run(self) -> Span:
        run = self._run
        outside = _TRACEPARENT.fullmatch(run.traceparent or "")
        attributes = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": run.team,
            "gen_ai.conversation.id": run.run,
            "callboard.status": run.status.value,
            "callboard.user": run.user,
            **_used(run.usage),
        }
        span = self._span("invoke_workflow " + run.team, (), None, run.began, run.ended or run.last, attributes, run.failure)
        changes = {"parent_span_id": outside[2] if outside else None, "status": span.status if run.ended else "unset"}
        return span.model_copy(update=changes)

    def task(self, task: TaskSummary) -> Span:
        operation = "plan" if task.role == PLANNER else "invoke_agent"
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.agent.name": task.role,
            "gen_ai.agent.id": task.task,
            "gen_ai.conversation.id": self._run.run,
            "callboard.task": task.task,
            "callboard.state": task.state.value,
            "callboard.attempts": task.attempts,
            **({"callboard.merge": True} if task.merge else {}),
            **({"callboard.entry": task.entry} if task.entry else {}),
            **_used(task.usage),
        }
        above = ("task", task.parent) if task.parent else ()
        began = task.began or task.ended or self._run.last
        ended = task.ended if task.state in (State.DONE, State.FAILED) else max(self._run.last, began)
        failure = task.failure if task.state is State.FAILED else None
        span = self._span(f"{operation} {task.role}", ("task", task.task), above, began, ended, attributes, failure)
        return span if task.state in (State.DONE, State.FAILED) else span.model_copy(update={"status": "unset"})

    def attempt(self, attempt: Attempt, full: bool) -> Iterator[Span]:
        here: tuple[object, ...] = ("attempt", attempt.task, attempt.number)
        attributes = {
            "callboard.task": attempt.task,
            "callboard.attempt": attempt.number,
            "callboard.host": attempt.host,
            "callboard.outcome": attempt.outcome.value,
        }
        above = ("task", attempt.task)
        span = self._span(f"attempt {attempt.number}", here, above, attempt.began, attempt.ended, attributes, attempt.failure)
        if attempt.outcome is Outcome.LOST:
            attributes["error.type"] = "lost"
            span = span.model_copy(update={"status": "error", "status_message": attempt.note, "attributes": attributes})
        elif attempt.outcome in (Outcome.RUNNING, Outcome.IN_REVIEW):
            span = span.model_copy(update={"status": "unset"})
        yield span
        for turn in attempt.turns:
            place = (*here, "turn", turn.number)
            where = {"callboard.task": attempt.task, "callboard.turn": turn.number}
            yield self._span(f"turn {turn.number}", place, here, turn.began, turn.ended, where, None)
            for at, step in enumerate(turn.steps):
                yield self._step(step, (*place, at), place, attempt.task, full)

    def _step(self, step: Step, here: tuple[object, ...], above: tuple[object, ...], task: str, full: bool) -> Span:
        attributes: dict[str, Any] = {"callboard.task": task, "callboard.step": step.ordinal}
        said = step.said
        if isinstance(said, ModelCalled):
            name, kind = f"chat {_model(said)[1]}", "client"
            attributes |= _chat(said, full)
        elif isinstance(said, SubtasksAsked):
            name, kind = "delegate", "internal"
            attributes["callboard.subtasks"] = [task.id for task in said.tasks]
        elif isinstance(said, ReviewAsked):
            name, kind = "review", "internal"
            attributes |= {"callboard.review.kind": said.kind.value, "callboard.review.message": said.message}
        elif isinstance(said, ReviewDecided):
            name, kind = "review_decision", "internal"
            attributes |= {"callboard.review.decision": said.decision.value, "callboard.review.user": said.user}
            attributes |= {"callboard.review.note": said.note} if said.note else {}
        else:
            name, kind = f"execute_tool {clean(step.name)}", "internal"
            attributes |= _tool(said, full)
        failure = step.failure if step.outcome is Outcome.FAILED else None
        span = self._span(name, here, above, step.began, step.ended, attributes, failure, kind)
        if step.outcome is Outcome.IN_DOUBT:
            message = step.failure.message if step.failure else "announced and never reported: it may or may not have happened"
            attributes["error.type"] = "effect_in_doubt"
            return span.model_copy(update={"status": "error", "status_message": message, "attributes": attributes})
        return span if step.outcome not in (Outcome.RUNNING, Outcome.IN_REVIEW) else span.model_copy(update={"status": "unset"})

    def _span(
        self,
        name: str,
        here: tuple[object, ...],
        above: tuple[object, ...] | None,
        began: int,
        ended: int,
        attributes: dict[str, Any],
        failure: Failure | None,
        kind: str = "internal",
    ) -> Span:
        if failure:
            attributes = {
                **attributes,
                "error.type": failure.verdict.value,
                "callboard.failure.severity": failure.severity.value,
                "callboard.failure.retryable": failure.retryable,
                **({"callboard.failure.evidence": list(failure.evidence)} if failure.evidence else {}),
            }
        return Span(
            name=name,
            trace_id=self._trace,
            span_id=self._id(here),
            parent_span_id=None if above is None else self._id(above),
            kind=kind,
            start_time_unix_nano=began * 1_000_000,
            end_time_unix_nano=max(ended, began) * 1_000_000,
            status="error" if failure else "ok",
            status_message=failure.message if failure else "",
            attributes=attributes,
        )

    def _id(self, place: tuple[object, ...]) -> str:
        return hashlib.sha256(json.dumps([self._run.run, *place]).encode()).hexdigest()[:16]


def _used(usage: Usage) -> dict[str, int]:
    tokens = {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}
    return {**tokens, "callboard.usage.micros": usage.micros}


def _model(said: ModelCalled) -> tuple[str, str]:
    provider, colon, name = said.model.partition(":")
    return (provider, name) if colon else ("_OTHER", said.model)


def _chat(said: ModelCalled, full: bool) -> dict[str, Any]:
    provider, model = _model(said)
    found: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        **_used(said.usage),
    }
    if said.cached:
        found["callboard.cached"] = True
    if said.cut is not None:
        found |= {"callboard.cut": said.cut.how, "callboard.cut.messages": said.cut.messages, "callboard.cut.tokens": said.cut.tokens}
    if said.hedged:
        found["callboard.hedged"] = True
    if said.shortened:
        found |= {"gen_ai.request.max_tokens": said.shortened.tokens, "callboard.shortened": True}
    if said.reply:
        found["gen_ai.response.finish_reasons"] = [said.reply.finish.value]
    if full:
        found["gen_ai.input.messages"] = [
            {"role": message.role, "parts": _parts(message.content, message.tool_calls)} for message in said.said
        ]
        if said.reply:
            parts = _parts(said.reply.text or ", ".join(said.reply.labels), said.reply.tool_calls)
            found["gen_ai.output.messages"] = [{"role": "assistant", "parts": parts, "finish_reason": said.reply.finish.value}]
    return found


def _parts(text: str, calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    texts = [{"type": "text", "content": text}] * bool(text)
    return [*texts, *({"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments} for call in calls)]


def _tool(said: ToolCalled | ToolIntended, full: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": said.call.name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": said.call.id,
    }
    if full:
        found["gen_ai.tool.call.arguments"] = said.call.arguments
    if isinstance(said, ToolCalled):
        found |= {"callboard.effect": said.effect, "callboard.ran": said.ran, "callboard.again": said.again}
        found |= {"callboard.settled": said.settled} if said.settled else {}
        if full:
            found["gen_ai.tool.call.result"] = said.content
    return found
