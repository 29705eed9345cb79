"""Reviews: a task waits for a person at no host, without a lease, and goes on with what was decided."""

from orchestrator.reducer.attempts import leave
from orchestrator.reducer.fallback import output_of
from orchestrator.reducer.graph import make_ready
from orchestrator.reducer.leases import give_back, serve, stepped
from orchestrator.reducer.state import Decisions, Fetch, Phase, RunState, TaskState
from protocols import messages as m
from protocols.envelope import Envelope
from protocols.failures import BadInput


def review_asked(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """The agent's work is over until a person has decided; in a run that is ending nobody is asked, and its doubt is its end."""
    body = entry.body
    assert isinstance(body, m.ReviewAsked)
    me = stepped(state, entry.seq, body)
    if me is None or me.attempt != body.attempt:
        return []
    give_back(state, body.task)
    asked = me.awaits_answer if body.kind is m.ReviewKind.FALLBACK else me.at_work or me.phase is Phase.READY
    if asked and state.stopping is None:
        if me.at_work:
            leave(state, me)
            me.reviewed += not body.counted
        elif me.phase is Phase.READY:  # its last attempt left a write in doubt
            state.ready[me.task.role].remove(me.task.id)
        state.families.pop(body.task, None)
        me.phase, me.review, me.host = Phase.IN_REVIEW, body, None
        state.in_review += 1
    return serve(state)


def review_decided(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """The task is tried again with the decision, or ends. One who comes too late decides nothing."""
    body = entry.body
    assert isinstance(body, m.ReviewDecided)
    me = state.tasks.get(body.task)
    if me is None or me.phase is not Phase.IN_REVIEW or me.review is None or me.review.step != body.step:
        return []
    if body.attempt not in (0, me.review.attempt):
        return []
    if body.decision is m.Decision.FAIL:
        why = f"{body.user} ended it: {body.note}" if body.note else f"{body.user} ended it"
        return [m.TaskClosed(task=body.task, failure=me.undecided(why))]
    if me.review.kind is m.ReviewKind.FALLBACK:
        return _answered(state, me, body)
    me.review = None
    state.in_review -= 1
    if body.decision is not m.Decision.RETRY:
        me.settle(body.step)
    me.steps.append((entry.seq, False))
    make_ready(state, me, first=True)
    return []


def _answered(state: RunState, me: TaskState, body: m.ReviewDecided) -> Decisions:
    """The output that a person gave. One that can't be read is none, and the task waits on."""
    schema = state.request.team.roles[me.task.role].output_schema
    if body.decision is not m.Decision.DONE or body.result is None:
        return []
    try:
        output = output_of(body.result, schema)
    except BadInput:
        return []
    return [m.TaskEnded(task=body.task, attempt=me.attempt, output=m.Value(inline=output))]
