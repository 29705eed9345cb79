"""Allowances: what is drawn for a run, while it works, from limits that hold over many runs. Who asks the store is the shell."""

from orchestrator.ledger import ALLOWANCE, RUN
from orchestrator.reducer.leases import LEASE_CALLS, comes_back, serve
from orchestrator.reducer.state import Decisions, Fetch, RunState
from protocols import messages as m
from protocols.budget import Amount, amount
from protocols.envelope import Envelope


def asked(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """One ask at a time is at the store; what is given for it serves the others too."""
    body = entry.body
    assert isinstance(body, m.AllowanceAsked)
    state.drawing = body
    return []


def granted(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Bound the run by what was drawn for it, and answer who waits."""
    body = entry.body
    assert isinstance(body, m.AllowanceGranted)
    state.drawing = None
    state.ledger.allow(body.total)
    return serve(state)


def denied(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Deny the ask, if it still waits and still does not fit; else serve it, or whoever waits now."""
    body = entry.body
    assert isinstance(body, m.AllowanceDenied)
    asked, state.drawing = state.drawing, None
    if asked is None or (asked.task, asked.attempt, asked.ask) != (body.task, body.attempt, body.ask) or not waits(state, asked):
        return serve(state)
    state.refused = body.limit
    return [m.LeaseDenied(task=body.task, attempt=body.attempt, ask=body.ask, limit=body.limit)]


def waits(state: RunState, asked: m.AllowanceAsked) -> bool:
    """Whether this ask is the next to be answered, and still does not fit into the allowance."""
    if not state.asks or (asked.task, asked.attempt, asked.ask) != (state.asks[0].task, state.asks[0].attempt, state.asks[0].ask):
        return False
    short = state.ledger.shortage(asked.task, amount(asked.need), whole=state.spares(asked.task))
    return short is not None and short.account == ALLOWANCE


def most(state: RunState, asked: m.AllowanceAsked) -> int:
    """How many calls' worth to draw at a time: what agents at work could lease, and no more than the run's own limits leave."""
    left = state.ledger.accounts[RUN].room(amount(asked.need), whole=state.spares(asked.task))
    return max(min(LEASE_CALLS * max(state.at_work, 1), left), 1)


def is_idle(state: RunState, need: Amount) -> bool:
    """Whether nothing of what was drawn may come back by itself: all who hold some of it wait for more."""
    return not any(needed and comes_back(state, ALLOWANCE, dimension) for dimension, needed in enumerate(need))
