"""Leases: room for calls, reserved before they leave and settled after."""

from collections import deque

from orchestrator.ledger import ALLOWANCE, as_usage, times
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
    return _settled(state, stepped(state, entry.seq, body, failed=body.failure is not None), body.usage)


def tool_called(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Settle a tool call, if the tool ran."""
    body = entry.body
    assert isinstance(body, m.ToolCalled)
    me = stepped(state, entry.seq, body)
    return _settled(state, me, ONE_TOOL_CALL) if body.ran else []


def tool_intended(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Keep the place of an intent, so that a later attempt knows of it."""
    body = entry.body
    assert isinstance(body, m.ToolIntended)
    stepped(state, entry.seq, body)
    return []


def stepped(
    state: RunState, seq: int, body: m.ModelCalled | m.ToolIntended | m.ToolCalled | m.ReviewAsked, *, failed: bool = False
) -> TaskState | None:
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
    whole = state.spares(ask.task)
    short = state.ledger.shortage(ask.task, need, whole=whole)
    if short is None:
        share = state.ledger.room(ask.task, need, whole=whole) // max(state.at_work, 1)
        lease = as_usage(times(need, max(1, min(LEASE_CALLS, share))))
        return [m.LeaseGranted(task=ask.task, attempt=ask.attempt, ask=ask.ask, lease=lease)]
    if short.account == ALLOWANCE:
        return [] if state.drawing else [m.AllowanceAsked(task=ask.task, attempt=ask.attempt, ask=ask.ask, need=ask.need)]
    if comes_back(state, short.account, short.dimension):
        return []
    return [m.LeaseDenied(task=ask.task, attempt=ask.attempt, ask=ask.ask, limit=str(short))]


def comes_back(state: RunState, account: str, dimension: int) -> bool:
    """Whether somebody who is at work, and waits for nobody, holds some of what an account has promised and will give it back."""
    waiting = {one.task for one in state.asks} | set(state.families)
    idle = sum(state.ledger.held(name, dimension, below=account) for name in waiting)
    return state.ledger.accounts[account].reserved[dimension] > idle


def lease_answered(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Take the answered ask off the queue and reserve what was granted."""
    body = entry.body
    assert isinstance(body, (m.LeaseGranted, m.LeaseDenied))
    asked = next((ask for ask in state.asks if (ask.task, ask.attempt, ask.ask) == (body.task, body.attempt, body.ask)), None)
    state.asks = deque(ask for ask in state.asks if ask is not asked)
    if isinstance(body, m.LeaseGranted):
        state.ledger.reserve(body.task, amount(body.lease))
    elif asked is not None and not asked.final:
        pass  # a cheaper model goes on with it
    elif body.limit.endswith(OF_THE_RUN) or body.limit == state.refused:
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
