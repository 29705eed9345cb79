"""Leases: room for calls, reserved before they leave and settled after."""

from collections import deque

from orchestrator.ledger import as_usage, times
from orchestrator.reducer.state import Decisions, Fetch, RunState, TaskState
from protocols import messages as m
from protocols.budget import Usage, amount
from protocols.envelope import Envelope

LEASE_CALLS = 8
"""A lease covers at most this many calls like the one that asked, so that little is locked away, or lost with a host."""

ONE_TOOL_CALL = Usage(tool_calls=1)
OF_THE_RUN = "of the run"


def model_called(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Settle a model call."""
    body = entry.body
    assert isinstance(body, m.ModelCalled)
    return _settled(state, _stepped(state, entry.seq, body, failed=body.failure is not None), body.usage)


def tool_called(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Settle a tool call, if the tool ran."""
    body = entry.body
    assert isinstance(body, m.ToolCalled)
    me = _stepped(state, entry.seq, body)
    return _settled(state, me, ONE_TOOL_CALL) if body.ran else []


def tool_intended(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Keep the place of an intent, so that a later attempt knows of it."""
    body = entry.body
    assert isinstance(body, m.ToolIntended)
    _stepped(state, entry.seq, body)
    return []


def _stepped(state: RunState, seq: int, body: m.ModelCalled | m.ToolIntended | m.ToolCalled, *, failed: bool = False) -> TaskState | None:
    """The task that took a step; the number of the entry is kept while another attempt may need it."""
    me = state.tasks.get(body.task)
    if me is not None and me.attempt == body.attempt and me.open:
        me.steps.append((seq, failed))
    return me


def _settled(state: RunState, me: TaskState | None, used: Usage) -> Decisions:
    if me is None:
        return []
    state.used.add(used)
    state.ledger.settle(state.account(me), amount(used))
    return serve(state)


def lease_asked(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Queue an ask; the queue is answered in order."""
    body = entry.body
    assert isinstance(body, m.LeaseAsked)
    me = state.tasks.get(body.task)
    if me is None or not me.at_work or me.attempt != body.attempt:
        return []
    state.account(me)
    state.typical[me.task.role] = amount(body.need)
    state.asks.append(body)
    return serve(state)


def serve(state: RunState) -> Decisions:
    """Answer the ask that waits longest, if it can be answered now; folding the answer serves the next."""
    if not state.asks or state.closing:
        return []
    ask = state.asks[0]
    need = amount(ask.need)
    short = state.ledger.shortage(ask.task, need)
    if short is None:
        share = state.ledger.room(ask.task, need) // max(state.at_work, 1)
        lease = as_usage(times(need, max(1, min(LEASE_CALLS, share))))
        return [m.LeaseGranted(task=ask.task, attempt=ask.attempt, ask=ask.ask, lease=lease)]
    waiting = {one.task for one in state.asks} | set(state.families)
    idle = sum(state.ledger.held(name, short.dimension, below=short.account) for name in waiting)
    if state.ledger.accounts[short.account].reserved[short.dimension] > idle:
        return []  # somebody who is at work holds some of it and will give it back
    return [m.LeaseDenied(task=ask.task, attempt=ask.attempt, ask=ask.ask, limit=str(short))]


def lease_answered(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Take the answered ask off the queue and reserve what was granted."""
    body = entry.body
    assert isinstance(body, (m.LeaseGranted, m.LeaseDenied))
    state.asks = deque(ask for ask in state.asks if (ask.task, ask.attempt, ask.ask) != (body.task, body.attempt, body.ask))
    if isinstance(body, m.LeaseGranted):
        state.ledger.reserve(body.task, amount(body.lease))
    elif body.limit.endswith(OF_THE_RUN):
        state.exhausted = body.limit
    return serve(state)


def give_back(state: RunState, task: str, *, lost: bool = False) -> None:
    """Close the lease of a task that works no more; what a lost host held counts as used, for nobody can say how much was."""
    if task in state.ledger.accounts:
        if lost:
            state.ledger.write_off(task)
        else:
            state.ledger.release(task)
        if state.asks:
            state.asks = deque(ask for ask in state.asks if ask.task != task)
