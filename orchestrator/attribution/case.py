"""Failed tasks of a run as cases for a judge: the steps of the task itself and of those whose work went into it, from the journal.

In a case a task is who acts: two tasks of one role are two agents.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from orchestrator.attribution.trajectory import Actor, Step, Trajectory
from orchestrator.journal.port import Entry, Journal
from orchestrator.observe.figures import brief
from orchestrator.observe.history import unpacked
from orchestrator.observe.output import content
from protocols.chat import ToolCall
from protocols.failures import Failure
from protocols.messages import FellBack, Message, ModelCalled, RunRequested, SubtasksAsked, TaskClosed, TaskEnded, TasksAdded, ToolCalled
from protocols.plan import needs

MOST_TASKS = 50
"""Tasks in one case: the failed one and those nearest to it."""

TEXT = 20_000
"""Characters of a step that a judge sees."""

_TOLD = {kind.__name__ for kind in (FellBack, ModelCalled, SubtasksAsked, TaskClosed, TaskEnded, ToolCalled)}


def cases(journal: Journal, run: str, failed: Collection[str]) -> dict[str, Trajectory]:
    """The case of each of these tasks of ``run``, by task; in two passes over the run, and with the contents of few tasks at a time."""
    goal, into, roles = _graph(journal.read(run))
    among = {task: _nearest(task, into) for task in failed}
    wanted = set().union(*among.values()) if among else set()
    told: list[tuple[str, Step]] = []
    ends: dict[str, Failure | None] = {}
    stepped: set[str] = set()
    for entry in journal.read(run):
        if entry.tag in _TOLD:
            said = unpacked(entry)
            if (task := getattr(said, "task", "")) in wanted:
                if isinstance(said, FellBack):
                    roles[task] = said.to.role or said.role
                elif isinstance(said, TaskEnded | TaskClosed):
                    ends[task] = said.failure
                    if task not in stepped:  # plain Python, or a model that never answered: the result is the one step
                        told.append((task, _own(task, _output(journal, said), entry.seq, None, roles[task])))
                else:
                    made = _steps(said, entry.seq, roles[task])
                    told += [(task, step) for step in made]
                    if any(step.actor is Actor.AGENT for step in made):
                        stepped.add(task)
    return {
        task: Trajectory(
            steps=tuple(step for name, step in told if name in near),
            goal=goal,
            failure=end.message if (end := ends.get(task)) else "",
            task=task,
            verdict=end.verdict if end else None,
        )
        for task, near in among.items()
    }


def _graph(entries: Iterable[Entry]) -> tuple[str, Mapping[str, list[str]], dict[str, str]]:
    """The goal; by task the tasks whose work goes into it, those it needs and those it delegated; and by task its role."""
    goal, into, roles = "", dict[str, list[str]](), dict[str, str]()
    for entry in entries:
        if entry.tag == TasksAdded.__name__:
            added = unpacked(entry)
            assert isinstance(added, TasksAdded)
            for task in added.tasks:
                roles[task.id] = task.role
                into.setdefault(task.id, []).extend(needs(task))
                if added.parent is not None:
                    into.setdefault(added.parent, []).append(task.id)
        elif entry.tag == RunRequested.__name__:
            asked = unpacked(entry)
            assert isinstance(asked, RunRequested)
            goal = brief(asked.goal, 2000) if asked.goal is not None else ""
    return goal, into, roles


def _nearest(task: str, into: Mapping[str, list[str]]) -> set[str]:
    found, queue = {task}, deque([task])
    while queue:
        for name in into.get(queue.popleft(), ()):
            if name not in found and len(found) < MOST_TASKS:
                found.add(name)
                queue.append(name)
    return found


def _steps(said: Message, seq: int, role: str) -> list[Step]:
    match said:
        case ModelCalled(reply=None):
            text, verdict = (said.failure.message, said.failure.verdict) if said.failure else ("", None)
            return [Step(who=said.model, actor=Actor.TOOL, text=text, failed=True, entry=seq, verdict=verdict)]
        case ModelCalled():
            assert said.reply is not None
            return [_own(said.task, said.reply.text, seq, said.step, role, said.reply.tool_calls)]
        case ToolCalled():
            text, verdict = said.content[:TEXT], said.failure.verdict if said.failure else None
            failed = verdict is not None
            return [Step(who=said.call.name, actor=Actor.TOOL, text=text, failed=failed, ordinal=said.step, entry=seq, verdict=verdict)]
        case SubtasksAsked():
            calls = tuple(ToolCall(id="", name=task.role, arguments={"task": task.id}) for task in said.tasks)
            return [_own(said.task, "", seq, said.step, role, calls)]
    return []


def _output(journal: Journal, said: Message) -> str:
    output = said.output if isinstance(said, TaskEnded) else None
    return "" if output is None else brief(content(journal, output), TEXT)


def _own(task: str, text: str, seq: int, ordinal: int | None, role: str, calls: tuple[ToolCall, ...] = ()) -> Step:
    return Step(who=task, actor=Actor.AGENT, text=text[:TEXT], calls=calls, role=role, ordinal=ordinal, entry=seq)
