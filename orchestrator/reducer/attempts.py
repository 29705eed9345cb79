"""Attempts: tasks given to hosts, and how they end, fail, are lost and tried again."""

from collections.abc import Iterator

from orchestrator.ledger import RUN
from orchestrator.reducer.fallback import fallback
from orchestrator.reducer.graph import close, make_ready
from orchestrator.reducer.leases import exhausts, give_back, serve
from orchestrator.reducer.stages import accept, onward
from orchestrator.reducer.state import Decisions, Fetch, Kind, Phase, RunState, TaskState
from protocols import messages as m
from protocols.budget import amount
from protocols.envelope import Envelope
from protocols.failures import Failure, Verdict

MOST_LOSSES = 4
"""A task whose host was lost more often than this, with nothing done in between, is not tried again: it may be what ends them."""


def dispatched(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Tasks leave the queue for their hosts, some with a first lease."""
    body = entry.body
    assert isinstance(body, m.Dispatched)
    for item in body.items:
        me = state.tasks[item.task]
        role = me.task.role
        state.ready[role].remove(item.task)
        me.phase, me.attempt, me.host, me.began = Phase.RUNNING, item.attempt, item.host, entry.at
        state.working[role] = state.working.get(role, 0) + 1
        state.at_work += 1
        if item.lease is not None:
            state.ledger.reserve(state.account(me), amount(item.lease))
    return []


def task_ended(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """An attempt ended: the task closes, or is tried again."""
    body = entry.body
    assert isinstance(body, m.TaskEnded)
    me = state.tasks.get(body.task)
    if me is None or me.attempt != body.attempt:
        return []
    give_back(state, body.task)
    _gone(state, me)
    if me.awaits_answer and body.failure is None:
        state.in_review -= me.phase is Phase.IN_REVIEW
        me.ended, me.review = entry.at, None
        return _done(state, me, body.output, fetch)
    if me.phase is Phase.IN_REVIEW and not me.awaits_answer:
        me.usage = body.usage
    if not me.at_work:  # closed meanwhile, or in review
        return [*serve(state), *onward(state)]
    leave(state, me)
    me.usage, me.ended = body.usage, entry.at
    failure = body.failure
    if failure is None:
        return _done(state, me, body.output, fetch)
    if is_tried_again(state, me, body):
        while me.steps and me.steps[-1][1]:  # what failed last is what the next attempt does anew
            me.steps.pop()
        make_ready(state, me)
        return serve(state)
    if failure.verdict is Verdict.BUDGET:
        exhausts(state, failure.limit)
    next_ = what_follows(state, me, failure)
    if next_ is not None:
        make_ready(state, me)
        return [next_]
    return [*close(state, me, None, failure), *serve(state), *onward(state)]


def _done(state: RunState, me: TaskState, output: m.Value | None, fetch: Fetch) -> Decisions:
    output = output or m.Value()
    decisions = close(state, me, output, None)
    if me.kind is Kind.PLAN and state.stopping is None:
        decisions += accept(state, fetch(output))
    return [*decisions, *serve(state), *onward(state)]


def what_follows(state: RunState, me: TaskState, failure: Failure) -> m.ReviewAsked | m.TaskClosed | m.FellBack | None:
    """What follows when ``me`` can't be tried again by its role; ``None`` when it fails with this ``failure``.

    Nobody takes over who could make a write a second time of which nobody knows whether it happened: a person is asked first, and where
    it is a subtask's, which ends with ``me``, that is the end.
    """
    if state.stopping is None and failure.verdict is not Verdict.EFFECT_IN_DOUBT:
        if me.doubts:
            begun = me.doubts[0]
            why = f"{begun.call.name} was begun and may or may not have happened; the task ended before that was known ({failure.message})"
            return m.ReviewAsked(
                task=me.task.id, attempt=me.attempt, step=begun.step, call=begun.call, key=begun.key, message=why, began=begun.began
            )
        below = next(_doubts_below(state, me), None)
        if below is not None:
            why = f"{failure.message}; and {below.call.name}, begun by its subtask {below.task!r}, may or may not have happened"
            failure = Failure(verdict=Verdict.EFFECT_IN_DOUBT, message=why, evidence=(below.key, *failure.evidence))
            return m.TaskClosed(task=me.task.id, failure=failure)
    return fallback(state, me, failure)


def _doubts_below(state: RunState, me: TaskState) -> Iterator[m.ToolIntended]:
    family = state.families.get(me.task.id)
    for child in (state.tasks[name] for name in family.children) if family is not None else ():
        yield from child.doubts if child.open else ()
        yield from _doubts_below(state, child)


def is_tried_again(state: RunState, me: TaskState, ended: m.TaskEnded) -> bool:
    """Whether an attempt that ended like this is followed by another."""
    retryable = ended.failure is not None and ended.failure.retryable
    return retryable and state.may_try_again(me) and state.stopping is None


def task_closed(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """A task ends without a result of its own; one that is at work keeps its lease until its host has stopped it."""
    body = entry.body
    assert isinstance(body, m.TaskClosed)
    me = state.tasks[body.task]
    if not me.open:
        return []
    if me.at_work:
        leave(state, me)
        me.leaving, state.leaving = True, state.leaving + 1
    elif me.phase is Phase.READY:
        state.ready[me.task.role].remove(me.task.id)
    elif me.phase is Phase.IN_REVIEW:
        state.in_review -= 1
    me.ended = entry.at
    return [*close(state, me, None, body.failure), *onward(state)]


def lost(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Some attempts are at work no more."""
    body = entry.body
    assert isinstance(body, m.AttemptsLost)
    decisions: Decisions = []
    for name, attempt in reversed(body.tasks):
        me = state.tasks.get(name)
        if me is not None and me.attempt == attempt:
            decisions += _take_back(state, me, returned=body.returned)
    return _taken_back(state, decisions)


def resumed(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """A new coordinator: whatever was at work is lost, but for what its host still has."""
    body = entry.body
    assert isinstance(body, m.RunResumed)
    kept = set(body.kept)
    decisions: Decisions = []
    for me in state.tasks.values():
        if (me.task.id, me.attempt) not in kept and (me.at_work or me.leaving or state.holds(me)):
            decisions += _take_back(state, me, returned=body.returned)
    if body.returned:
        state.inherited = state.ledger.accounts[RUN].settled
    return _taken_back(state, decisions)


def leave(state: RunState, me: TaskState) -> None:
    """A task is no longer at work."""
    if me.phase is Phase.RUNNING:
        state.working[me.task.role] -= 1
    state.at_work -= 1


def _gone(state: RunState, me: TaskState) -> None:
    """A task that was closed while at work has stopped."""
    state.leaving -= me.leaving
    me.leaving = False


def _take_back(state: RunState, me: TaskState, *, returned: bool) -> Decisions:
    """An attempt is at work no more; one that was lost, and not ``returned``, may have used all that it held."""
    give_back(state, me.task.id, lost=not returned)
    _gone(state, me)
    if not me.at_work:
        return []
    leave(state, me)
    me.losses += not returned
    make_ready(state, me, first=True)
    if me.losses > MOST_LOSSES:
        message = f"its host was lost {me.losses} times; look for what it does to the process (memory, native code)"
        failure = Failure(verdict=Verdict.INFRASTRUCTURE, message=message)
        return [what_follows(state, me, failure) or m.TaskClosed(task=me.task.id, failure=failure)]
    state.families.pop(me.task.id, None)
    return []


def _taken_back(state: RunState, decisions: Decisions) -> Decisions:
    """An ask is answered once: what falls back, or is asked of a person, serves the queue itself."""
    asks = [] if any(isinstance(one, (m.FellBack, m.ReviewAsked)) for one in decisions) else serve(state)
    return [*decisions, *asks, *onward(state)]
