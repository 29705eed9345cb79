"""Allowances: what is drawn for a run, while it works, from limits that hold over many runs. Who asks the store is the shell."""

from orchestrator.ledger import ALLOWANCE, RUN, as_usage, halves, minus, plus
from orchestrator.reducer.leases import LEASE_CALLS, comes_back, lacking, serve
from orchestrator.reducer.state import Decisions, Fetch, RunState
from protocols import messages as m
from protocols.budget import SPOKEN, Amount, amount
from protocols.envelope import Envelope

CLOSE = 4
"""What is drawn for a call that has too little room is found by halves, down to one part in so many between its least and the whole."""


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
    asked, state.drawing = state.drawing, None
    if asked is not None and _is_next(state, asked) and amount(asked.need) != lacking(state.asks[0]):
        state.scarce = state.asks[0]
    state.ledger.allow(body.total)
    return serve(state)


def denied(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Deny the ask, if it still waits and still does not fit, nor less of it; else serve it, or whoever waits now."""
    body = entry.body
    assert isinstance(body, m.AllowanceDenied)
    asked, state.drawing = state.drawing, None
    if asked is None or (asked.task, asked.attempt, asked.ask) != (body.task, body.attempt, body.ask) or not waits(state, asked):
        return serve(state)
    state.refused = body.limit
    less = _less(state.asks[0], amount(asked.need)) if body.limit.startswith(SPOKEN[:2]) else None
    if less is not None:
        return [m.AllowanceAsked(task=body.task, attempt=body.attempt, ask=body.ask, need=as_usage(less))]
    return [m.LeaseDenied(task=body.task, attempt=body.attempt, ask=body.ask, limit=body.limit)]


def waits(state: RunState, asked: m.AllowanceAsked) -> bool:
    """Whether this ask is the next to be answered, and still does not fit into the allowance."""
    if not _is_next(state, asked):
        return False
    short = state.ledger.shortage(asked.task, amount(asked.need), whole=state.spares(asked.task))
    return short is not None and short.account == ALLOWANCE


def _is_next(state: RunState, asked: m.AllowanceAsked) -> bool:
    return bool(state.asks) and (asked.task, asked.attempt, asked.ask) == (state.asks[0].task, state.asks[0].attempt, state.asks[0].ask)


def _less(ask: m.LeaseAsked, refused: Amount) -> Amount | None:
    """What to draw where ``refused`` was too much: half of what is above the least, and, where that is not much more, the least."""
    if ask.least is None:
        return None
    least, whole = amount(ask.least), lacking(ask)
    above = minus(refused, least)
    if not any(one > 0 for one in above):
        return None
    near = all(one * CLOSE <= all_ for one, all_ in zip(above, minus(whole, least), strict=True))
    return least if near else minus(refused, halves(above))


def most(state: RunState, asked: m.AllowanceAsked) -> int:
    """How many calls' worth to draw at a time: what agents at work could lease, and no more than the run's own limits leave."""
    left = state.ledger.accounts[RUN].room(amount(asked.need), whole=state.spares(asked.task))
    return max(min(LEASE_CALLS * max(state.at_work, 1), left), 1)


def beside(state: RunState, asked: m.AllowanceAsked) -> Amount:
    """What the run is to have beside what is asked: what agents hold, and what is kept of that for who may take the whole."""
    account = state.ledger.accounts[ALLOWANCE]
    if state.spares(asked.task):
        return account.reserved
    tokens, micros, models, tools, turns = (kept if need else 0 for kept, need in zip(account.kept, amount(asked.need), strict=True))
    return plus(account.reserved, (tokens, micros, models, tools, turns))


def is_idle(state: RunState, need: Amount) -> bool:
    """Whether nothing of what was drawn may come back by itself: all who hold some of it wait for more."""
    return not any(needed and comes_back(state, ALLOWANCE, dimension) for dimension, needed in enumerate(need))
