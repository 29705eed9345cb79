"""Forks: runs that begin with the first entries of another run, and go on by themselves.

What the shared entries hold is done: it is not done again, and its cost counts. What was at work at the cut is given out again with its
recorded steps, as after a lost host, so a write that was announced and has no end there is in doubt. What the other run did after the
cut, the fork may do again, as its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agents.role import Role
from orchestrator import code, reducer
from orchestrator.journal.port import Entry, Journal
from orchestrator.link import now
from orchestrator.reducer.state import Act, RunState
from orchestrator.replay import reader
from orchestrator.team import unmet_among
from protocols import codec, ids
from protocols import messages as m
from protocols.budget import Limits
from protocols.envelope import Envelope
from protocols.failures import BadInput, StorageError
from protocols.plan import Plan, Task

_SAME = object()


def fork(journal: Journal, run: str, at: int, new: str | None = None, *, goal: Any = _SAME, models: Mapping[str, str] | None = None) -> str:
    """Write a run that shares entries 1 to ``at`` of ``run``, and what was decided on the last of them; returns its id, ``new`` if given.

    It is carried on by resuming it. ``models`` are roles and the model ids that they have from here on: what was recorded with another
    model is not read back. A ``goal`` can take the place of the old one only where nothing was done about that yet. Raises ``BadInput``.
    """
    row = journal.row(run)
    if row is None or row.seq == 0:
        raise BadInput(f"there is no run {run!r} in this journal; `callboard runs` lists those there are")
    if not 1 <= at <= row.seq:
        raise BadInput(f"run {run} has entries 1 to {row.seq}, and no {at}; `callboard journal {run}` lists them")
    new = new or ids.new_run_id()
    if not ids.is_run_id(new):
        raise BadInput(f"{new!r} can't name a run; use at most 100 letters, digits, dots, dashes and underscores, and not 'last'")
    if journal.row(new) is not None:
        raise BadInput(f"run {new!r} exists already; choose another id")
    entries = [entry._replace(run=new) for entry in journal.read(run, 0, at)]
    request = codec.unpack(entries[0].body)
    if not isinstance(request, m.RunRequested):
        raise StorageError(f"run {run!r} does not begin with its request; its journal is damaged")
    request = request.model_copy(update={"forked": (run, at)})
    paused = max(now() - entries[-1].at, 0) / 1000
    request = request.model_copy(update={"budget": _longer(request.budget, paused)})  # the time between the cut and now is nobody's
    entries = [_with_more_time(entry, paused) for entry in entries]
    if goal is not _SAME:
        entries = _undone(entries)
        request = _with_goal(journal, request, goal)
    if models:
        request = _with_models(journal, request, models)
    entries[0] = entries[0]._replace(body=codec.pack(request))
    entries += _decided(journal, entries, request)
    journal.append(entries, {new: journal.claim(new)})
    return new


def _longer(budget: Limits, seconds: float) -> Limits:
    return budget if budget.seconds is None else budget.model_copy(update={"seconds": budget.seconds + seconds})


def _with_more_time(entry: Entry, seconds: float) -> Entry:
    """The entry; one with which the run was given another time has as much more of it."""
    if entry.tag != m.BudgetChanged.__name__:
        return entry
    changed = codec.unpack(entry.body)
    assert isinstance(changed, m.BudgetChanged)
    return entry._replace(body=codec.pack(changed.model_copy(update={"budget": _longer(changed.budget, seconds)})))


def _decided(journal: Journal, entries: list[Entry], request: m.RunRequested) -> list[Entry]:
    """What followed from the last of ``entries`` in the same transaction, for a run is never cut between a cause and its decisions; and
    then that nobody has in the fork what was at work at the cut."""
    fetch = reader(journal)
    state = reducer.begin(entries[0].run, entries[0].at, request)
    pending: list[m.Message] = []
    more: list[Entry] = []
    cause = 1
    for entry in entries:
        message = codec.unpack(entry.body)
        if pending and type(pending[-1]) is type(message):
            pending.pop()
        else:
            cause, pending = entry.seq, []
        state, decided = reducer.step(state, Envelope(entry.run, entry.seq, entry.at, message), fetch)
        pending += reversed(decided)
        _check(state, cause)
    own: list[m.Message] = [m.ContinueRequested(user=request.user)] if state.paused else []  # who forks it has it go on
    own.append(m.RunResumed(epoch=1, returned=True))
    at = entries[-1].at
    while pending or own:
        if not pending:
            pending, at = [own.pop()], now()
        message = pending.pop()
        entry = Entry(state.run, state.seq + 1, at, type(message).__name__, codec.pack(message))
        more.append(entry)
        state, decided = reducer.step(state, Envelope(entry.run, entry.seq, entry.at, message), fetch)
        pending += reversed(decided)
        _check(state, cause)
    return more


def _check(state: RunState, cause: int) -> None:
    if state.act is Act.ENDED or state.stopping is not None:
        ends = "ended the run" if state.act is Act.ENDED else "stopped the run"
        raise BadInput(f"what entry {cause} led to {ends}, so nothing is left to go on with; fork at {max(cause - 1, 1)} or before")


def _undone(entries: list[Entry]) -> list[Entry]:
    """The request alone. Raises ``BadInput`` when work on its goal had begun."""
    begun = next((entry.seq for entry in entries if entry.tag == m.Dispatched.__name__), None)
    if begun is not None:
        raise BadInput(f"with entry {begun} work on the old goal began; with another goal fork at {begun - 1} or before")
    return entries[:1]


def _with_goal(journal: Journal, request: m.RunRequested, goal: Any) -> m.RunRequested:
    if request.plan is None:
        return request.model_copy(update={"goal": goal})
    plan = Plan.model_validate(reader(journal)(request.plan))
    first = plan.tasks[0]
    if plan.tasks != (Task(id=first.role, role=first.role, input=request.goal),):
        raise BadInput(f"team {request.team.name!r} has a fixed plan, which no goal changes; leave the goal out")
    _cast(journal, request)[first.role].read_input(goal)
    plan = Plan(tasks=(first.model_copy(update={"input": goal}),))
    return request.model_copy(update={"goal": goal, "plan": m.Value(inline=plan.model_dump(exclude_defaults=True))})


def _with_models(journal: Journal, request: m.RunRequested, models: Mapping[str, str]) -> m.RunRequested:
    cast = _cast(journal, request)
    changed: dict[str, Role] = {}
    for name, model in models.items():
        if name not in cast:
            raise BadInput(f"team {request.team.name!r} has no role {name!r}; its roles are: {', '.join(cast)}")
        if cast[name].model is None:
            raise BadInput(f"role {name!r} uses no model, so none can take its place")
        changed[name] = replace(cast[name], model=model)
    wrong = unmet_among(changed.values(), request.budget)
    if wrong:
        raise BadInput(wrong[0])
    specs = request.team.roles | {name: role.spec() for name, role in changed.items()}
    packed = journal.put_blob(code.pack(cast | changed))
    return request.model_copy(update={"team": request.team.model_copy(update={"roles": specs}), "code": packed})


def _cast(journal: Journal, request: m.RunRequested) -> dict[str, Role]:
    if request.code is None:
        raise BadInput("this run's journal does not hold its team's code; start the run anew")
    return dict(code.unpack(journal.get_blob(request.code.digest)))
