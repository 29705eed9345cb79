"""Merge trees: how many results become one without ever meeting in one message. Pure."""

from collections.abc import Sequence

from protocols.plan import Task, ref
from protocols.team import MERGE, MergeSpec


def tree(spec: MergeSpec, results: Sequence[tuple[str, str]]) -> list[Task]:
    """The merge's tasks over ``results``, (task id, role) pairs in plan order; the last task gives the run's output.

    A node takes at most ``fan_in`` items. With ``spec.role`` its input is their list; else it is ``{level, final, items}``,
    and the items of the first level are ``{role, index, value}``, so that a vote can weigh them.
    """
    role = spec.role or MERGE
    level, tasks = 1, []
    below: list[str] = [task for task, _ in results]
    while True:
        groups = [below[at : at + spec.fan_in] for at in range(0, len(below), spec.fan_in)]
        names = []
        for number, group in enumerate(groups):
            name = f"{MERGE}/{level}/{number}"
            names.append(name)
            items: list[object] = [ref(task) for task in group]
            if not spec.role and level == 1:
                start = number * spec.fan_in
                items = [{"role": results[start + at][1], "index": start + at, "value": item} for at, item in enumerate(items)]
            node = items if spec.role else {"level": level, "final": len(groups) == 1, "items": items}
            tasks.append(Task(id=name, role=role, input=node))
        if len(groups) == 1:
            return tasks
        below, level = names, level + 1
