"""Delegation: tasks that an agent asks for while it works, bound by depth and by its own budget, and never handed round in circles."""

import hashlib
from collections.abc import Iterator

from pydantic_core import to_json

from agents.repetition import canonical
from orchestrator.reducer.graph import reunion
from orchestrator.reducer.leases import OF_THE_RUN
from orchestrator.reducer.state import Decisions, Family, Fetch, Phase, RunState, TaskState
from protocols import messages as m
from protocols.budget import narrowed
from protocols.envelope import Envelope
from protocols.failures import Failure, Verdict
from protocols.plan import Plan, Task, problems
from protocols.team import Strategy

SUBTASKS_OF_THE_RUN = f"subtasks {OF_THE_RUN}"
MOST_ASKED = 3
"""The same subtask, by role and input, asked for again below one task of the plan, whichever model asks: the third time it is refused.
Equal subtasks in one list count once: who asks for several answers at a time means it."""
MOST_SUBTASKS = 10_000
"""Below one task of the plan, at all depths, unless its limits say otherwise: what delegates without end comes to one by itself."""


def subtasks_asked(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Park the parent and add its subtasks, or refuse them. Subtasks that an earlier attempt asked for are not done again."""
    body = entry.body
    assert isinstance(body, m.SubtasksAsked)
    me = state.tasks.get(body.task)
    if me is None or me.phase is not Phase.RUNNING or me.attempt != body.attempt:
        return []
    children = tuple(task.id for task in body.tasks)
    fresh = [task for task in body.tasks if task.id not in state.tasks]
    line = [me, *_above(state, me)]
    marks = {_mark(line[-1].task.id, task): task for task in fresh}
    refused = (
        _wrong(state, body, fresh)
        or next((why for mark, task in marks.items() if (why := _again(state, line, task, mark))), None)
        or _too_many(state, line, len(fresh))
    )
    if refused:
        return [m.SubtasksEnded(task=body.task, attempt=body.attempt, step=body.step, refused=refused)]
    for mark, task in marks.items():
        state.subtasks.setdefault(mark, []).append(task.id)
    state.delegated += len(fresh)
    for above in line:
        above.delegated += len(fresh)
    waiting = len(fresh) + sum(name in state.tasks and state.tasks[name].open for name in children)
    me.phase = Phase.PARKED  # it no longer counts against its role's concurrency, or its children could wait for it
    state.working[me.task.role] -= 1
    family = state.families[body.task] = Family(body, children, waiting)
    if fresh:
        return [m.TasksAdded(tasks=tuple(fresh), parent=body.task)]
    return [] if waiting else [reunion(state, family)]


def subtasks_ended(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """The parent works on."""
    body = entry.body
    assert isinstance(body, m.SubtasksEnded)
    me = state.tasks[body.task]
    if me.phase is Phase.PARKED and me.attempt == body.attempt:
        state.families.pop(body.task, None)
        me.phase, me.until = Phase.RUNNING, entry.at  # it waited for them, and was not at work
        state.working[me.task.role] += 1
    return []


def _wrong(state: RunState, body: m.SubtasksAsked, fresh: list[Task]) -> Failure | None:
    team, me = state.request.team, state.tasks[body.task]
    foreign = [one.id for one in body.tasks if one.id in state.tasks and state.tasks[one.id].parent != body.task]
    before = [one.id for one in body.tasks if one.id in state.tasks and state.tasks[one.id].series != me.hands]
    if foreign:
        found = [f"{name!r} belongs to another task" for name in foreign]
    elif before:
        named = f"{body.task}/{me.task.role}/1"
        found = [
            f"role {me.fallen[-1].role!r}, which had this task before, asked for {name!r}; choose another id, like {named!r}"
            for name in before
        ]
    elif not fresh:
        found = []
    elif me.depth >= team.depth:
        found = [f"delegation goes at most {team.depth} deep and {body.task!r} is at {me.depth}"]
    else:
        found = problems(Plan(tasks=tuple(fresh)), list(team.roles), most_tasks=team.most_tasks, known=state.tasks)
    if not found:
        return None
    return Failure(verdict=Verdict.PLAN, message=f"the subtasks were refused: {found[0]}", evidence=tuple(found))


def _again(state: RunState, line: list[TaskState], task: Task, mark: str) -> Failure | None:
    """Why ``task`` would go round: ``line`` is who asks, and who asked for that, up to the task of the plan."""
    for above in line:
        if above.task.role == task.role and _mark(line[-1].task.id, above.task) == mark:
            return _refusal(f"role {task.role!r} was given this very input in {above.task.id!r}, which waits for it", [above])
    if state.request.team.roles[line[0].task.role].strategy is Strategy.FUNCTION:
        return None  # code that recurses or asks again means it
    roles = [task.role, *(one.task.role for one in line[:3])]
    if len(roles) == 4 and roles[:2] == roles[2:] and roles[0] != roles[1]:
        return _refusal(f"roles {roles[0]!r} and {roles[1]!r} hand work to each other", line[:3])
    asked = state.subtasks.get(mark, ())
    if len(asked) >= MOST_ASKED - 1:
        before = [state.tasks[name] for name in asked]
        return _refusal(f"role {task.role!r} was given this very input {len(asked)} times already{_outcome(before[-1])}", before)
    return None


def _too_many(state: RunState, line: list[TaskState], count: int) -> Failure | None:
    """Why there may not be so many more subtasks: a limit of who asks, of a task above that, or of the run."""
    if not count:
        return None
    for above in line:
        role = state.request.team.roles[above.task.role]
        limit = narrowed(role.limits, above.task.limits).subtasks
        if limit is None and above is line[-1]:
            limit = MOST_SUBTASKS
        if limit is not None and above.delegated + count > limit:
            return _short(f"task {above.task.id!r} of role {role.name!r}", limit, above.delegated, count)
    limit = state.ledger.limits.subtasks
    if limit is not None and state.delegated + count > limit:
        return _short("the run", limit, state.delegated, count).model_copy(update={"limit": SUBTASKS_OF_THE_RUN})
    return None


def _short(who: str, limit: int, made: int, count: int) -> Failure:
    message = f"the limit on subtasks of {who} is {limit:,}: it has {made:,} and {count:,} more were asked for; raise limits=subtasks"
    return Failure(verdict=Verdict.BUDGET, message=message)


def _refusal(why: str, tasks: list[TaskState]) -> Failure:
    message = f"the subtasks were refused: {why}. Do it yourself, ask for something else, or answer with what you know"
    return Failure(verdict=Verdict.PING_PONG, message=message, evidence=tuple(one.task.id for one in tasks))


def _outcome(one: TaskState) -> str:
    if one.failure is not None:
        return f"; the last time it failed: {one.failure.message[:200]}"
    if one.output is not None and one.output.blob is None:
        return f"; the last time it answered: {to_json(one.output.inline).decode()[:200]}"
    return ""


def _above(state: RunState, me: TaskState) -> Iterator[TaskState]:
    while me.parent is not None:
        me = state.tasks[me.parent]
        yield me


def _mark(root: str, task: Task) -> str:
    """The same for the same role and input below the same task of the plan, however the input is spelled."""
    return hashlib.sha256(repr((root, task.role, canonical(task.input))).encode("utf-8", "replace")).hexdigest()
