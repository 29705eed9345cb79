"""The graph of tasks: how new ones are connected, become ready, and close."""

from collections import deque
from collections.abc import Iterable

from orchestrator.reducer.state import Act, Decisions, Family, Fetch, Kind, Phase, RunState, TaskState
from protocols import messages as m
from protocols.envelope import Envelope
from protocols.failures import Failure, Verdict
from protocols.plan import Task, needs, refs
from protocols.team import PLANNER

LAST_STEPS = 3
"""Of a task that failed, so many are named."""


def tasks_added(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Take in tasks; those that need nothing are ready, and those whose need has failed already are closed."""
    body = entry.body
    assert isinstance(body, m.TasksAdded)
    parent = state.tasks.get(body.parent) if body.parent else None
    kind = _kind(body)
    if kind is Kind.WORK and state.act is Act.PLANNING:
        state.act, state.generation = Act.WORKING, state.generation + 1
    elif kind is Kind.PLAN:
        state.act = Act.PLANNING
    elif kind is Kind.MERGE:
        state.act = Act.MERGING
    depth = parent.depth + 1 if parent else 0
    for task in body.tasks:
        series = parent.hands if parent else 0
        state.tasks[task.id] = TaskState(task, kind, state.generation, parent=body.parent, depth=depth, series=series)
    state.open += len(body.tasks)
    names = [task.id for task in body.tasks]
    if kind is Kind.MERGE:
        state.merge += names
    if kind is not Kind.WORK:
        return _connect(state, body.tasks)
    state.plan += names
    if body.more:
        return []  # a task may need one of a later entry: all are connected with the last
    newest = (state.tasks[name] for name in state.plan)
    return _connect(state, [one.task for one in newest if one.generation == state.generation])


def _kind(body: m.TasksAdded) -> Kind:
    if body.parent is not None:
        return Kind.SUBTASK
    if body.merge:
        return Kind.MERGE
    return Kind.PLAN if body.tasks[0].role == PLANNER else Kind.WORK


def _connect(state: RunState, tasks: Iterable[Task]) -> Decisions:
    decisions: Decisions = []
    for task in tasks:
        me = state.tasks[task.id]
        failed = None
        for name in needs(task):
            other = state.tasks[name]
            if other.open:
                me.needs += 1
                state.dependents.setdefault(name, []).append(task.id)
            elif other.phase is Phase.FAILED and not task.tolerant:
                failed = other
        if me.kind is Kind.WORK:
            for name in refs(task.input):
                state.tasks[name].taken = True
        if failed is not None:
            decisions.append(m.TaskClosed(task=task.id, failure=_lacks(failed)))
        elif not me.needs:
            make_ready(state, me)
    return decisions


def make_ready(state: RunState, me: TaskState, *, first: bool = False) -> None:
    """Queue a task for dispatch; ``first`` puts one that was tried before ahead of the rest."""
    me.phase, me.host = Phase.READY, None
    queue = state.ready.setdefault(me.task.role, deque())
    if first:
        queue.appendleft(me.task.id)
    else:
        queue.append(me.task.id)


def close(state: RunState, me: TaskState, output: m.Value | None, failure: Failure | None) -> Decisions:
    """End a task; its dependents become ready or are closed, its own subtasks are closed, its parent may be answered."""
    me.phase = Phase.DONE if failure is None else Phase.FAILED
    me.output, me.failure = output, failure
    if failure is not None:
        me.entries = (*(seq for seq, _ in me.steps[-LAST_STEPS:]), state.seq)
    me.steps = []
    state.open -= 1
    decisions: Decisions = []
    for name in state.dependents.pop(me.task.id, ()):
        other = state.tasks[name]
        other.needs -= 1
        if not other.open:
            continue
        if failure is not None and not other.task.tolerant:
            decisions.append(m.TaskClosed(task=name, failure=_lacks(me)))
        elif not other.needs and other.phase is Phase.WAITING:
            make_ready(state, other)
    decisions += orphaned(state, me)
    if me.parent is not None and (siblings := state.families.get(me.parent)) is not None and me.task.id in siblings.children:
        siblings.open -= 1
        if siblings.open == 0:
            decisions.append(reunion(state, siblings))
    return decisions


def orphaned(state: RunState, me: TaskState) -> Decisions:
    """The ends of the subtasks that ``me`` waited for, and waits for no more."""
    family = state.families.pop(me.task.id, None)
    decisions: Decisions = []
    for child in (state.tasks[name] for name in family.children) if family is not None else ():
        if child.open:
            left = Failure(verdict=Verdict.CANCELLED, message=f"{me.task.id!r}, which asked for it, has ended")
            why = child.undecided(left.message) if child.phase is Phase.IN_REVIEW else left
            decisions.append(m.TaskClosed(task=child.task.id, failure=why))
    return decisions


def reunion(state: RunState, family: Family) -> m.SubtasksEnded:
    """The answer to a parent whose subtasks have all ended."""
    children = [state.tasks[name] for name in family.children]
    return m.SubtasksEnded(
        task=family.asked.task,
        attempt=family.asked.attempt,
        step=family.asked.step,
        outputs=tuple(child.output for child in children),
        failures=tuple(child.failure for child in children),
    )


def _lacks(other: TaskState) -> Failure:
    assert other.failure is not None
    message = f"it needs {other.task.id!r}, which failed ({other.failure.verdict.value}: {other.failure.message})"
    return Failure(verdict=Verdict.DEPENDENCY, message=message, evidence=(other.task.id,))
