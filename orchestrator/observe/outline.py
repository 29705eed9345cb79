"""Which tasks of a run a trace shows, and which it folds into one line: a run of 100,000 tasks is still read on one screen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.observe.summary import State, TaskSummary
from protocols.budget import NOTHING, Usage
from protocols.failures import BadInput
from protocols.team import PLANNER

MOST_ALIKE = 12
"""Siblings of one role that are shown one by one; more are folded."""

SHOWN_OF_FOLD = 3
"""How many of the slowest, and of the failed, stay in sight beside a fold."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Many siblings of one role in one line: median (``middle``) and 95th percentile (``high``) of their milliseconds at work."""

    role: str
    merge: bool
    size: int
    states: dict[State, int]
    usage: Usage
    middle: int
    high: int


@dataclass(frozen=True, slots=True)
class Branch:
    """A task that is shown, with what it delegated."""

    task: TaskSummary
    below: tuple["Branch | Fold", ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """What is shown of a run: the planner's tasks, the plan's, and the merge's."""

    plan: tuple[Branch | Fold, ...] = ()
    work: tuple[Branch | Fold, ...] = ()
    merge: tuple[Branch | Fold, ...] = ()

    def shown(self) -> set[str]:
        """The ids of all tasks that are shown."""
        found: set[str] = set()
        left: list[Branch | Fold] = [*self.plan, *self.work, *self.merge]
        while left:
            item = left.pop()
            if isinstance(item, Branch):
                found.add(item.task.task)
                left.extend(item.below)
        return found


def outline(tasks: Iterable[TaskSummary], *, only: str | None = None, slowest: int | None = None, everything: bool = False) -> Outline:
    """What to show of ``tasks``: all but what is too alike, or task ``only`` and what it delegated, or the ``slowest`` few.

    Raises ``BadInput`` when there is no task ``only``.
    """
    children: dict[str | None, list[TaskSummary]] = {}
    every: dict[str, TaskSummary] = {}
    for task in tasks:
        every[task.task] = task
        children.setdefault(task.parent, []).append(task)
    if only is not None:
        if only not in every:
            raise BadInput(f"the run has no task {only!r}; `callboard trace RUN --all` shows every task")
        root = Branch(every[only], _siblings(children.get(only, ()), children, None, everything))
        return _sorted_out([root])
    keep = None if slowest is None else _slowest(every, slowest)
    return _sorted_out(_siblings(children.get(None, ()), children, keep, everything))


def _slowest(every: dict[str, TaskSummary], number: int) -> set[str]:
    keep: set[str] = set()
    for task in sorted(every.values(), key=lambda task: -task.seconds)[:number]:
        at: TaskSummary | None = task
        while at is not None and at.task not in keep:
            keep.add(at.task)
            at = every.get(at.parent) if at.parent else None
    return keep


def _siblings(
    siblings: Sequence[TaskSummary], children: dict[str | None, list[TaskSummary]], keep: set[str] | None, everything: bool
) -> tuple[Branch | Fold, ...]:
    alike: dict[tuple[str, bool], list[TaskSummary]] = {}
    for task in siblings:
        alike.setdefault((task.role, task.merge), []).append(task)
    found: list[Branch | Fold] = []
    for (role, merge), group in alike.items():
        if keep is not None:
            shown = {task.task for task in group} & keep
        elif everything or len(group) <= MOST_ALIKE:
            shown = {task.task for task in group}
        else:
            failed = [task for task in group if task.state is State.FAILED][:SHOWN_OF_FOLD]
            slow = sorted(group, key=lambda task: -task.seconds)[:SHOWN_OF_FOLD]
            shown = {task.task for task in (*slow, *failed)}
        for task in group:
            if task.task in shown:
                found.append(Branch(task, _siblings(children.get(task.task, ()), children, keep, everything)))
        if len(shown) < len(group):
            found.append(_fold(role, merge, [task for task in group if task.task not in shown]))
    return tuple(found)


def _fold(role: str, merge: bool, group: list[TaskSummary]) -> Fold:
    states = dict.fromkeys(State, 0)
    usage = NOTHING
    for task in group:
        states[task.state] += 1
        usage += task.usage
    took = sorted(round(task.seconds * 1000) for task in group)
    return Fold(role, merge, len(group), states, usage, took[len(took) // 2], took[min(len(took) * 95 // 100, len(took) - 1)])


def _sorted_out(items: Iterable[Branch | Fold]) -> Outline:
    plan: list[Branch | Fold] = []
    work: list[Branch | Fold] = []
    merge: list[Branch | Fold] = []
    for item in items:
        like = item.task if isinstance(item, Branch) else item
        (merge if like.merge else plan if like.role == PLANNER else work).append(item)
    return Outline(tuple(plan), tuple(work), tuple(merge))
