"""Merge trees: how many results become one without ever meeting in one message. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from protocols.failures import Failure
from protocols.plan import Task, ref
from protocols.team import MERGE, MergeSpec


class Leaf(NamedTuple):
    """A task of the plan whose output is to be merged, or that has none: ``failure`` is why it failed, or why a fallback took over."""

    task: str
    role: str
    standing: str = "done"
    failure: Failure | None = None

    def part(self) -> dict[str, Any]:
        """The item of a labelled merge."""
        value = None if self.standing == "failed" else ref(self.task)
        failure = self.failure.model_dump(mode="json") if self.failure else None
        return {"task": self.task, "role": self.role, "standing": self.standing, "value": value, "failure": failure}


def tree(spec: MergeSpec, results: Sequence[Leaf]) -> list[Task]:
    """The merge's tasks over ``results``, in plan order; the last task gives the run's output.

    A node takes at most ``fan_in`` items: results, or parts if the merge is labelled. With ``spec.role`` its input is their list; else it
    is ``{level, final, items}``, and the items of the first level are ``{role, index, value}``, so that a vote can weigh them.
    """
    role = spec.role or MERGE
    level, tasks = 1, []
    below = list(results)
    while True:
        groups = [below[at : at + spec.fan_in] for at in range(0, len(below), spec.fan_in)]
        names = []
        for number, group in enumerate(groups):
            name = f"{MERGE}/{level}/{number}"
            names.append(Leaf(name, role))
            items: list[object] = [leaf.part() if spec.labelled else ref(leaf.task) for leaf in group]
            if not spec.role and level == 1:
                start = number * spec.fan_in
                items = [{"role": group[at].role, "index": start + at, "value": item} for at, item in enumerate(items)]
            node = items if spec.role else {"level": level, "final": len(groups) == 1, "items": items}
            tasks.append(Task(id=name, role=role, input=node))
        if len(groups) == 1:
            return tasks
        below, level = names, level + 1
