"""The stages of a run: planning, working, merging, and its end."""

from typing import Any

from pydantic import ValidationError

from orchestrator.ledger import RUN, bounds, minus
from orchestrator.observe.figures import count, money
from orchestrator.reducer.leases import serve
from orchestrator.reducer.state import Act, Decisions, Fetch, Kind, Phase, RunState, TaskState
from orchestrator.reducer.tree import Leaf, tree
from protocols import messages as m
from protocols.budget import UNLIMITED, amount
from protocols.envelope import Envelope
from protocols.failures import Failure, Verdict
from protocols.plan import Plan, Task, problems
from protocols.team import PLANNER

CHUNK = 500
"""Tasks in one ``TasksAdded``, so that a large plan is never one huge entry."""


def requested(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """A run begins with its plan, or with asking for one."""
    plan = state.request.plan
    return [_ask_planner(state, number=1)] if plan is None else accept(state, fetch(plan))


def cancel_requested(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Somebody stops the run."""
    body = entry.body
    assert isinstance(body, m.CancelRequested)
    return _stop(state, Failure(verdict=Verdict.CANCELLED, message=body.reason))


def pause_requested(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Somebody has the run rest."""
    state.paused = True
    return []


def continue_requested(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Somebody has the run go on."""
    state.paused = False
    return []


def budget_changed(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Bound the run anew; whoever waits may fit now. Where it has more than before, it is exhausted only when it is again."""
    body = entry.body
    assert isinstance(body, m.BudgetChanged)
    before = state.ledger.limits
    limits = (UNLIMITED if body.lifted else before).model_copy(update=body.budget.model_dump(exclude_none=True))
    state.ledger.bound(limits)
    had, has = dict(bounds(before)), dict(bounds(limits))
    if any(place not in has or has[place] > limit for place, limit in had.items()):
        state.exhausted = None
    return serve(state)


def deadline_passed(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """The run's seconds are over."""
    seconds = state.ledger.limits.seconds
    if seconds is None:  # it was given more time at that very moment
        return []
    return _stop(state, Failure(verdict=Verdict.DEADLINE, message=f"the run's {seconds:g} seconds are over"))


def run_ended(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """The run is final."""
    body = entry.body
    assert isinstance(body, m.RunEnded)
    state.act, state.status, state.closing = Act.ENDED, body.status, True
    state.output, state.failure, state.ended = body.output, body.failure, entry.at
    return []


def accept(state: RunState, raw: Any) -> Decisions:
    """Check a plan; one that passes becomes tasks."""
    team = state.request.team
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        return _no_plan(state, Failure(verdict=Verdict.PLAN, message=f"the plan is malformed: {error.errors()[0]['msg']}"))
    roles = [name for name in team.roles if name != PLANNER]
    wrong = problems(plan, roles, most_tasks=team.most_tasks, known=state.tasks)
    if wrong:
        message = f"the plan did not pass the checks: {wrong[0]}"
        return _no_plan(state, Failure(verdict=Verdict.PLAN, message=message, evidence=tuple(wrong)))
    return [*_chunks(plan.tasks, merge=False)]


def onward(state: RunState) -> Decisions:
    """What follows when a stage is complete; nothing while it is not, or while somebody who was closed has still to stop."""
    if state.closing or state.act is Act.ENDED or state.leaving:
        return []
    if state.stopping is not None:
        if state.at_work:
            return []
        cancelled = state.stopping.verdict is Verdict.CANCELLED
        return [_end(state, m.Status.CANCELLED if cancelled else m.Status.BUDGET, state.stopping)]
    if state.open:
        return []
    if state.act is Act.PLANNING:
        last = next(task for task in reversed(state.tasks.values()) if task.kind is Kind.PLAN)
        # A planner that succeeded has its tasks, or their refusal, on the way.
        return [] if last.failure is None else _no_plan(state, last.failure)
    if state.act is Act.WORKING:
        return _worked(state)
    root = state.tasks[state.merge[-1]]
    if root.phase is Phase.DONE:
        return [_end(state, _standing(state), _first_failure(state), root.output)]
    failed = next(task for name in state.merge if (task := state.tasks[name]).phase is Phase.FAILED)
    return [_end(state, _unless_exhausted(state, m.Status.FAILED), failed.failure)]


def _stop(state: RunState, why: Failure) -> Decisions:
    held: Decisions = []
    if state.stopping is None and state.act is not Act.ENDED:
        state.stopping = why
        in_review = [me for me in state.tasks.values() if me.phase is Phase.IN_REVIEW]
        held = [m.TaskClosed(task=me.task.id, failure=me.undecided(f"nobody decided before the end: {why.message}")) for me in in_review]
    return [*held, *onward(state)]


def _ask_planner(state: RunState, number: int) -> m.TasksAdded:
    failures = [
        {"task": lost.task.id, "role": lost.task.role, "verdict": lost.failure.verdict.value, "message": lost.failure.message}
        for lost in state.failures()
        if lost.failure
    ]
    done = [name for name in state.plan if state.tasks[name].phase is Phase.DONE]
    ask = {"goal": state.request.goal, "failures": failures[:50], "done": done[:500]}
    return m.TasksAdded(tasks=(Task(id=f"plan/{number}", role=PLANNER, input=ask),))


def _no_plan(state: RunState, failure: Failure) -> Decisions:
    if state.plan:  # an earlier plan was carried out: what it brought gets merged
        state.act = Act.WORKING
        return _merged(state)
    return [_end(state, _unless_exhausted(state, m.Status.FAILED), failure)]


def _worked(state: RunState) -> Decisions:
    team = state.request.team
    failed = next(state.failures(), None)
    if failed is not None and team.planned and state.generation <= team.replans and state.exhausted is None:
        return [_ask_planner(state, number=state.generation + 1)]
    return _merged(state)


def _merged(state: RunState) -> Decisions:
    spec = state.request.team.merge
    results = state.results()
    if not results:
        return [_end(state, _unless_exhausted(state, m.Status.FAILED), _first_failure(state))]
    if spec.kind == "tree":
        return [*_chunks(tree(spec, _leaves(state, results)), merge=True)]
    output = results[-1].output if spec.kind == "only" else None
    return [_end(state, _standing(state), _first_failure(state), output)]


def _leaves(state: RunState, results: list[TaskState]) -> list[Leaf]:
    if not state.request.team.merge.labelled:
        return [Leaf(done.task.id, done.task.role) for done in results]
    lost = {one.task.id for one in state.failures() if not one.taken}
    ends = [me for name in state.plan if (me := state.tasks[name]).is_result or name in lost]
    return [Leaf(me.task.id, me.task.role, me.standing, me.failure or (me.fallen[-1].failure if me.fallen else None)) for me in ends]


def _chunks(tasks: list[Task] | tuple[Task, ...], *, merge: bool) -> list[m.TasksAdded]:
    starts = range(0, len(tasks), CHUNK)
    return [m.TasksAdded(tasks=tuple(tasks[at : at + CHUNK]), merge=merge, more=at + CHUNK < len(tasks)) for at in starts]


def _unless_exhausted(state: RunState, status: m.Status) -> m.Status:
    return m.Status.BUDGET if state.exhausted else status


def _standing(state: RunState) -> m.Status:
    """Done when every task has its result, a fallback's too, and even if a limit was reached on the way."""
    return m.Status.DONE if next(state.failures(), None) is None else _unless_exhausted(state, m.Status.PARTIAL)


def _first_failure(state: RunState) -> Failure | None:
    failed = [one.failure for one in state.failures() if one.failure]
    if failed and state.exhausted is not None:
        return Failure(verdict=Verdict.BUDGET, message=f"the limit on {state.exhausted} was reached{_lost(state)}")
    return next((one for one in failed if one.verdict is not Verdict.DEPENDENCY), None)


def _lost(state: RunState) -> str:
    """What of the limits was not used, as far as anybody knows, but written off."""
    _, micros, *calls, _ = minus(state.ledger.accounts[RUN].settled, amount(state.spent()))
    if not any(calls):
        return ""
    cost = f" ({money(micros)})" if micros else ""
    return f"; {count(sum(calls), 'call')}{cost} that lost hosts had reserved counted as used"


def _end(state: RunState, status: m.Status, failure: Failure | None, output: m.Value | None = None) -> m.RunEnded:
    state.closing = True
    done = sum(state.tasks[name].phase is Phase.DONE for name in state.plan)
    return m.RunEnded(status=status, output=output, failure=failure, usage=state.spent(), succeeded=done, failed=len(state.plan) - done)
