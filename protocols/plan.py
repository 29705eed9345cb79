"""Plans: a goal as a graph of tasks, and the checks that every plan must pass before anything runs."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from protocols import ids
from protocols.budget import Limits
from protocols.failures import UNPASSED, Verdict
from protocols.record import Record

FROM = "$from"


def _is_none(value: object) -> bool:
    return value is None


class Task(Record):
    """One node of a plan: a role's work on one input.

    ``input`` is JSON; ``{"$from": "task-id"}`` anywhere inside it stands for that task's output (write ``ref("task-id")``).
    ``after`` names tasks that must end first although their output is not used. A ``tolerant`` task runs even when some of
    what it needs failed: a failed reference in a list is left out, elsewhere it is null.
    """

    id: str
    role: str
    input: Any = None
    after: tuple[str, ...] = ()
    tolerant: bool = False
    # A model that plans is shown neither of these: it would only guess them. Without them a plan is written as ever.
    limits: SkipJsonSchema[Limits | None] = Field(default=None, exclude_if=_is_none)
    """What it may use, where that is less than its role may."""
    fallback: SkipJsonSchema[dict[Verdict | Literal["*"], str] | None] = Field(default=None, exclude_if=_is_none)
    """By verdict, or ``"*"`` for all others, the role that takes it over from its own; what is not there is as its role says."""


class Plan(Record):
    """Tasks in the order in which their results are collected."""

    tasks: tuple[Task, ...]


class PlanAsk(Record):
    """What a planner is asked: the goal, and on a replan the tasks that failed (task, role, verdict, message) and those done."""

    goal: Any = None
    failures: tuple[dict[str, str], ...] = ()
    done: tuple[str, ...] = ()


def ref(task_id: str) -> dict[str, str]:
    """Stands for the output of ``task_id`` inside another task's input."""
    return {FROM: task_id}


def refs(value: Any) -> Iterator[str]:
    """The task ids that ``value`` refers to, in the order met."""
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get(FROM), str):
            yield value[FROM]
        else:
            for item in value.values():
                yield from refs(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs(item)


_GONE = object()


def resolve(value: Any, outputs: Mapping[str, Any]) -> Any:
    """``value`` with every reference replaced. A reference missing from ``outputs`` leaves its list, or becomes null."""
    found = _resolve(value, outputs)
    return None if found is _GONE else found


def _resolve(value: Any, outputs: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get(FROM), str):
            return outputs.get(value[FROM], _GONE)
        return {key: resolve(item, outputs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [found for item in value if (found := _resolve(item, outputs)) is not _GONE]
    return value


def needs(task: Task) -> tuple[str, ...]:
    """Every task that must end before ``task`` may start, without repeats."""
    if not task.after and not isinstance(task.input, (dict, list, tuple)):
        return ()
    return tuple(dict.fromkeys((*refs(task.input), *task.after)))


def problems(plan: Plan, roles: Collection[str], *, most_tasks: int, known: Collection[str] = ()) -> list[str]:
    """What is wrong with ``plan``, one sentence each; empty when it may run.

    ``roles`` are the names that exist, ``known`` the ids of tasks of the run that exist already.
    """
    found: list[str] = []
    if not plan.tasks:
        found.append("the plan has no tasks; give it at least one")
    if len(plan.tasks) > most_tasks:
        found.append(
            f"the plan has {len(plan.tasks)} tasks and at most {most_tasks} are allowed; plan fewer or raise the team's fan-out bound"
        )
    taken = set(known)
    for task in plan.tasks:
        if not ids.is_task_id(task.id):
            found.append(f"task id {task.id!r} is not allowed; use letters, digits and ._:@+/- and at most 200 of them")
        if task.id in taken:
            found.append(f"task id {task.id!r} is used twice; every task needs an id of its own")
        taken.add(task.id)
        if task.role not in roles:
            found.append(f"task {task.id!r} asks for role {task.role!r}, which does not exist{_nearest(task.role, roles)}")
        for verdict, other in (task.fallback or {}).items():
            if other not in roles:
                found.append(f"task {task.id!r} falls back to role {other!r}, which does not exist{_nearest(other, roles)}")
            elif other == task.role:
                found.append(f"task {task.id!r} falls back to role {other!r}, which has it already; name another")
            if verdict in UNPASSED:
                found.append(f"task {task.id!r} has a fallback for {verdict!s}, after which nobody takes over; leave it out")
    graph = {}
    for task in plan.tasks:
        graph[task.id] = wanted = needs(task)
        for other in wanted:
            if other not in taken:
                found.append(f"task {task.id!r} needs {other!r}, which is not in the plan{_nearest(other, taken)}")
    try:
        TopologicalSorter({task: wanted for task, wanted in graph.items() if wanted}).prepare()
    except CycleError as error:
        found.append(f"the plan goes in a circle: {' -> '.join(reversed(error.args[1]))}; remove one of these needs")
    return found[:20]


def _nearest(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(sorted(names)[:12]) or 'none'}"
