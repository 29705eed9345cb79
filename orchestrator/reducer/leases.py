"""Leases: room for calls, reserved before they leave and settled after."""

from collections import deque

from orchestrator.ledger import ALLOWANCE, as_usage, least, minus, most, plus, times
from orchestrator.reducer.state import Decisions, Fetch, RunState, TaskState
from protocols import messages as m
from protocols.budget import ZERO, Amount, Usage, amount, lasted
from protocols.envelope import Envelope
from protocols.failures import Verdict

LEASE_CALLS = 8
"""A lease covers at most this many calls like the one that asked, so that little is locked away, or lost with a host."""

ONE_TOOL_CALL = Usage(tool_calls=1)
OF_THE_RUN = "of the run"


def model_called(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Settle a model call."""
    body = entry.body
    assert isinstance(body, m.ModelCalled)
    me = stepped(state, entry.seq, body, failed=body.failure is not None)
    if me is not None:
        me.shortened += bool(body.shortened)
        me.losses = me.losses if body.reply is None else 0
    return _settled(state, me, body, body.usage)


def tool_called(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Settle a tool call, if the tool ran."""
    body = entry.body
    assert isinstance(body, m.ToolCalled)
    me = stepped(state, entry.seq, body)
    in_doubt = body.failure is not None and body.failure.verdict is Verdict.EFFECT_IN_DOUBT
    if me is not None and not in_doubt and (body.ran or body.settled):
        me.settle(body.step)
        me.losses = me.losses if body.failure is not None else 0
    return _settled(state, me, body, ONE_TOOL_CALL) if body.ran else []


def tool_intended(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Keep the place of an intent, so that a later attempt knows of it, and that its end is not known yet."""
    body = entry.body
    assert isinstance(body, m.ToolIntended)
    me = stepped(state, entry.seq, body)
    if me is not None:
        me.settle(body.step)
        me.doubts = (*me.doubts, body)
    return []


def stepped(
    state: RunState, seq: int, body: m.ModelCalled | m.ToolIntended | m.ToolCalled | m.ReviewAsked, *, failed: bool = False
) -> TaskState | None:
    """The task that took a step; the number of the entry is kept while another attempt may need it."""
    me = state.tasks.get(body.task)
    if me is not None and me.attempt == body.attempt and me.open:
        me.steps.append((seq, failed))
    return me


def _settled(state: RunState, me: TaskState | None, body: m.ModelCalled | m.ToolCalled, usage: Usage) -> Decisions:
    if me is None:
        return []
    used = amount(usage)
    state.used.add(usage)
    state.ledger.settle(state.account(me), used)
    if body.attempt > me.before:  # of the role that has it now
        me.spent = plus(me.spent, used)
        me.worked, me.until = me.worked + lasted(body.began, body.ended, me.until), max(me.until, body.ended)
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
    if body.now and state.asks[0] is not body:
        return [m.LeaseDenied(task=body.task, attempt=body.attempt, ask=body.ask, limit="")]
    return serve(state)


def serve(state: RunState) -> Decisions:
    """Answer the ask that waits longest, if it can be answered now; folding the answer serves the next."""
    if not state.asks or state.closing:
        return []
    ask = state.asks[0]
    need, lacks = amount(ask.need), lacking(ask)
    whole = state.spares(ask.task)
    short = state.ledger.shortage(ask.task, lacks, whole=whole)
    if short is None:
        share = state.ledger.room(ask.task, need, whole=whole) // max(state.at_work, 1)
        ahead = minus(times(need, min(LEASE_CALLS, share)), amount(ask.have))
        return [m.LeaseGranted(task=ask.task, attempt=ask.attempt, ask=ask.ask, lease=as_usage(most(lacks, ahead)))]
    if ask.now:
        return [m.LeaseDenied(task=ask.task, attempt=ask.attempt, ask=ask.ask, limit=str(short))]
    drawn = ask == state.scarce
    if short.account == ALLOWANCE and not drawn:
        return _draw(state, ask, as_usage(lacks))
    if short.account != ALLOWANCE and comes_back(state, short.account, short.dimension):
        return []
    rest = None if ask.least is None else state.ledger.rest(ask.task, lacks, amount(ask.least), whole=whole, above=drawn)
    if rest is None and short.account == ALLOWANCE:
        return _draw(state, ask, ask.least or as_usage(lacks))
    if rest is None:
        return [m.LeaseDenied(task=ask.task, attempt=ask.attempt, ask=ask.ask, limit=str(short))]
    if state.ledger.shortage(ask.task, rest, whole=whole) is not None:
        return _draw(state, ask, as_usage(rest))
    limit = str(short) if short.account != ALLOWANCE else state.refused or ""
    return [m.LeaseGranted(task=ask.task, attempt=ask.attempt, ask=ask.ask, lease=as_usage(rest), limit=limit)]


def lacking(ask: m.LeaseAsked) -> Amount:
    """What an agent has too little of for its next call: what it holds and has no use for is used first."""
    return most(minus(amount(ask.need), amount(ask.have)), ZERO)


def _draw(state: RunState, ask: m.LeaseAsked, need: Usage) -> Decisions:
    return [] if state.drawing else [m.AllowanceAsked(task=ask.task, attempt=ask.attempt, ask=ask.ask, need=need)]


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
    else:
        exhausts(state, body.limit)
    return serve(state)


def exhausts(state: RunState, limit: str) -> None:
    """Somebody had to stop at a limit: the run's end says so, if it is the run's, or one above it."""
    if limit and (limit.endswith(OF_THE_RUN) or limit == state.refused):
        state.exhausted = limit


def give_back(state: RunState, task: str, *, lost: bool = False) -> None:
    """Close the lease of a task that works no more; what a lost host held counts as used, for nobody can say how much was.

    Against its role's limits, which are to last for another attempt, it counts as one call.
    """
    if task in state.ledger.accounts:
        if lost:
            me = state.tasks[task]
            call = state.typical.get(me.task.role, ZERO)
            me.spent = plus(me.spent, least(state.ledger.write_off(task), call))
        else:
            state.ledger.release(task)
        if state.asks:
            state.asks = deque(ask for ask in state.asks if ask.task != task)
