"""Fallbacks: a task at which a role failed goes to whoever that role names, with the same input, instead of failing."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.reducer.graph import make_ready, orphaned
from orchestrator.reducer.leases import serve
from orchestrator.reducer.state import Decisions, Fetch, Phase, RunState, TaskState
from protocols import messages as m
from protocols.budget import ZERO
from protocols.chat import ToolCall
from protocols.envelope import Envelope
from protocols.failures import UNPASSED, BadInput, Failure, Verdict
from protocols.team import BY_TURNS, FallbackSpec

MOST_FALLBACKS = 3
"""A task changes hands at most this often; the last one's failure is the task's."""

CONCLUSION = FallbackSpec(verdicts=(Verdict.BUDGET,), kind="conclude")
"""What follows, unless the role says otherwise, where a budget had no room for an agent's next turn."""


def fallback(state: RunState, me: TaskState, failure: Failure) -> m.FellBack | None:
    """What follows when ``me`` can't be tried again by its role; ``None`` when it fails."""
    if state.stopping is not None:
        return None
    own = (
        []
        if me.fallen
        else [FallbackSpec(verdicts=() if one == "*" else (one,), role=role) for one, role in (me.task.fallback or {}).items()]
    )
    declared = [to for to in state.request.team.roles[me.task.role].fallbacks if not (to.kind == "conclude" and me.concludes)]
    to = None
    for specs in (own, declared):
        to = to or next((one for one in specs if failure.verdict in one.verdicts), None)
        to = to or next((one for one in specs if not one.verdicts and failure.verdict not in UNPASSED), None)
    to = to or (CONCLUSION if failure.limit and _has_begun(state, me) else None)
    if to is None or (to.kind != "conclude" and sum(one.to.kind != "conclude" for one in me.fallen) >= MOST_FALLBACKS):
        return None
    return m.FellBack(task=me.task.id, attempt=me.attempt, role=me.task.role, to=to, failure=failure)


def _has_begun(state: RunState, me: TaskState) -> bool:
    """Whether its agent works by turns and had one, so that it can be told to conclude; once."""
    role = state.request.team.roles[me.task.role]
    return role.strategy in BY_TURNS and role.model is not None and not me.concludes and any(not failed for _, failed in me.steps)


def fell_back(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """The task, which its last attempt left ready, changes hands."""
    body = entry.body
    assert isinstance(body, m.FellBack)
    me = state.tasks[body.task]
    if me.phase is not Phase.READY or me.attempt != body.attempt:
        return serve(state)  # it was closed meanwhile
    state.ready[me.task.role].remove(me.task.id)
    me.phase, me.losses = Phase.WAITING, 0
    me.fallen, me.before, me.reviewed = (*me.fallen, body), body.attempt, 0
    if not me.concludes:
        me.steps, me.doubts, me.spent, me.worked, me.delegated = [], (), ZERO, 0, 0
    decisions = orphaned(state, me)
    return [*decisions, *_given(state, me, body.to, body.failure)]


def _given(state: RunState, me: TaskState, to: FallbackSpec, failure: Failure) -> Decisions:
    if to.kind == "answer":
        return [m.TaskEnded(task=me.task.id, attempt=me.attempt, output=m.Value(inline=to.answer))]
    if to.kind == "person":
        why = f"role {me.task.role!r} failed ({failure.verdict.value}: {failure.message}); {to.question}"
        asked = ToolCall(id="", name=me.task.role, arguments={"input": me.task.input})
        step, key = me.first, f"{state.run}/{me.task.id}"
        kind = m.ReviewKind.FALLBACK
        return [m.ReviewAsked(task=me.task.id, attempt=me.attempt, step=step, kind=kind, call=asked, key=key, message=why)]
    if to.role is not None:
        me.task = me.task.model_copy(update={"role": to.role})
    state.renew(me)
    make_ready(state, me)
    return serve(state)


def output_of(text: str, schema: Mapping[str, Any]) -> Any:
    """The output that a person wrote: JSON, or plain words where the output is text. Raises ``BadInput`` when it is neither."""
    try:
        value = json.loads(text)
        return text if schema.get("type") == "string" and not isinstance(value, str) else value
    except ValueError as error:
        if schema.get("type") == "string":
            return text
        raise BadInput(f"the result is not JSON: {error}; give one that fits {json.dumps(schema)[:300]}") from None
