"""Delegation: tasks that an agent asks for while it works, bound by depth and by its own budget."""

from orchestrator.reducer.graph import reunion
from orchestrator.reducer.state import Decisions, Family, Fetch, Phase, RunState
from protocols import messages as m
from protocols.envelope import Envelope
from protocols.failures import Failure, Verdict
from protocols.plan import Plan, Task, problems


def subtasks_asked(state: RunState, entry: Envelope, fetch: Fetch) -> Decisions:
    """Park the parent and add its subtasks, or refuse them. Subtasks that an earlier attempt asked for are not done again."""
    body = entry.body
    assert isinstance(body, m.SubtasksAsked)
    me = state.tasks.get(body.task)
    if me is None or me.phase is not Phase.RUNNING or me.attempt != body.attempt:
        return []
    children = tuple(task.id for task in body.tasks)
    fresh = [task for task in body.tasks if task.id not in state.tasks]
    wrong = _wrong(state, body, fresh)
    if wrong:
        refused = Failure(verdict=Verdict.PLAN, message=f"the subtasks were refused: {wrong[0]}", evidence=tuple(wrong))
        return [m.SubtasksEnded(task=body.task, attempt=body.attempt, step=body.step, refused=refused)]
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
        me.phase = Phase.RUNNING
        state.working[me.task.role] += 1
    return []


def _wrong(state: RunState, body: m.SubtasksAsked, fresh: list[Task]) -> list[str]:
    team, me = state.request.team, state.tasks[body.task]
    foreign = [one.id for one in body.tasks if one.id in state.tasks and state.tasks[one.id].parent != body.task]
    if foreign:
        return [f"{name!r} belongs to another task" for name in foreign]
    if not fresh:
        return []
    if me.depth >= team.depth:
        return [f"delegation goes at most {team.depth} deep and {body.task!r} is at {me.depth}"]
    return problems(Plan(tasks=tuple(fresh)), list(team.roles), most_tasks=team.most_tasks, known=state.tasks)
