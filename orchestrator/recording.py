"""Recordings: what a run's journal holds of each of its tasks, and models that play a team's calls again from it."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from agents.models.recorded import PROVIDER, RecordedModel
from protocols import codec
from protocols import messages as m
from protocols.failures import BadInput, Failure, Verdict
from protocols.plan import Task

if TYPE_CHECKING:
    from agents.models.port import Model
    from agents.role import Role
    from orchestrator.journal.port import Journal
    from orchestrator.team import Team


_TOLD = {
    kind.__name__
    for kind in (
        m.TasksAdded,
        m.Dispatched,
        m.ModelCalled,
        m.ToolCalled,
        m.SubtasksAsked,
        m.TaskEnded,
        m.TaskClosed,
        m.FellBack,
        m.ReviewDecided,
        m.RunEnded,
    )
}


class Step(NamedTuple):
    """One call of a task, the number of its entry, the role that made it, and how often the task had fallen back by then."""

    seq: int
    call: m.ModelCalled | m.ToolCalled
    role: str
    fallen: int


@dataclass(slots=True)
class RecordedTask:
    """One task of a run: its calls of all attempts, what it delegated at which step, and how it ended, if it did.

    ``added`` and ``closed`` are the numbers of the entries that added and ended it, ``role`` is the one that had it last.
    """

    task: Task
    role: str
    parent: str | None
    added: int
    attempt: int = 0
    steps: list[Step] = field(default_factory=list)
    delegated: dict[int, m.SubtasksAsked] = field(default_factory=dict)
    fallen: list[m.FellBack] = field(default_factory=list)
    decided: m.ReviewDecided | None = None
    end: m.TaskEnded | m.TaskClosed | None = None
    closed: int = 0

    @property
    def failure(self) -> Failure | None:
        """Why it failed, if it did."""
        return self.end.failure if self.end is not None else None

    def failure_of(self, role: str) -> Failure | None:
        """Why ``role`` failed at it, if it did: at its end, or before a fallback took over."""
        return next((one.failure for one in self.fallen if one.role == role), self.failure if role == self.role else None)

    @property
    def output(self) -> m.Value | None:
        """What it gave, if it gave something."""
        return self.end.output if isinstance(self.end, m.TaskEnded) else None

    def models(self) -> list[Step]:
        """Its model calls in the order of their steps, one a step, without those that a tool made while it ran: they are part of what
        the tool gave. Those that were cut off came to nothing, and are left out."""
        found: dict[int, Step] = {}
        earliest: dict[int, int] = {}
        for one in reversed(self.steps):
            if isinstance(one.call, m.ToolCalled):
                earliest[one.call.attempt] = min(earliest.get(one.call.attempt, one.call.step), one.call.step)
            elif earliest.get(one.call.attempt, one.call.step) >= one.call.step and not _cut_off(one.call):
                found.setdefault(one.call.step, one)
        return [found[step] for step in sorted(found)]

    def tools(self) -> list[Step]:
        """Its tool calls in the order of their steps, each as its last try left it."""
        found: list[Step] = []
        for one in sorted((step for step in self.steps if isinstance(step.call, m.ToolCalled)), key=lambda step: step.call.step):
            assert isinstance(one.call, m.ToolCalled)
            if one.call.again:
                continue
            before = found[-1].call if found else None
            if isinstance(before, m.ToolCalled) and before.step == one.call.step and _in_doubt(before):
                found.pop()  # it was settled since
            found.append(one)
        return found


class Recording:
    """A run as its journal has it: the request, every task, and the end. Raises ``BadInput`` when the run is not in the journal."""

    def __init__(self, journal: "Journal", run: str) -> None:
        self.run = run
        self.tasks: dict[str, RecordedTask] = {}
        self.end: m.RunEnded | None = None
        self.ended = 0
        request: m.RunRequested | None = None
        for entry in journal.read(run):
            if entry.tag == m.RunRequested.__name__:
                message = codec.unpack(entry.body)
                request = message if isinstance(message, m.RunRequested) else None
            elif entry.tag in _TOLD:
                self._add(entry.seq, codec.unpack(entry.body))
        if request is None:
            raise BadInput(f"there is no run {run!r} in this journal; `callboard runs` lists those there are")
        self.request = request

    def calls(self) -> Iterator[tuple[str, m.ModelCalled]]:
        """Every model call and the role that made it, task by task."""
        for told in self.tasks.values():
            yield from ((step.role, step.call) for step in told.steps if isinstance(step.call, m.ModelCalled))

    def _add(self, seq: int, message: m.Message) -> None:
        match message:
            case m.TasksAdded():
                for task in message.tasks:
                    self.tasks.setdefault(task.id, RecordedTask(task, task.role, message.parent, seq))
            case m.Dispatched():
                for item in message.items:
                    told = self.tasks[item.task]
                    told.attempt, told.end, told.closed = item.attempt, None, 0
            case m.ModelCalled() | m.ToolCalled():
                told = self.tasks[message.task]
                told.steps.append(Step(seq, message, told.role, len(told.fallen)))
            case m.SubtasksAsked():
                self.tasks[message.task].delegated[message.step] = message
            case m.TaskEnded() | m.TaskClosed():
                told = self.tasks[message.task]
                if isinstance(message, m.TaskClosed) or (message.attempt == told.attempt and told.end is None):
                    told.end, told.closed = message, seq
            case m.ReviewDecided():
                self.tasks[message.task].decided = message
            case m.FellBack():
                told = self.tasks[message.task]
                told.fallen.append(message)
                told.role, told.end, told.closed = message.to.role or told.role, None, 0
            case m.RunEnded():
                self.end, self.ended = message, seq


def recorded_run(model: object) -> str | None:
    """The run that the model id ``recorded:RUN`` names; ``None`` for any other model."""
    if not isinstance(model, str) or not model.startswith(f"{PROVIDER}:"):
        return None
    return model.removeprefix(f"{PROVIDER}:")


def replaying(team: "Team", run: str, journal: "Journal") -> "Team":
    """``team`` with every model played by what it answered in ``run``.

    Only models are: tools run. Raises ``BadInput`` when the run is not in the journal, asked no model, or a role's model of then is
    not known here.
    """
    calls: dict[str, list[m.ModelCalled]] = defaultdict(list)
    for role_name, call in Recording(journal, run).calls():
        calls[role_name].append(call)
    if not calls:
        raise BadInput(f"run {run!r} asked no model, so there is nothing to play again; choose another run")

    def played(name: str, role: "Role") -> "list[Model]":
        return [RecordedModel(run, name, model, made) for model, made in originals(role, calls[name], run)]

    return team.with_models(played)


def originals(role: "Role", calls: "list[m.ModelCalled]", run: str) -> "list[tuple[Model, list[m.ModelCalled]]]":
    """The models that answered ``role`` then, in the order in which they took over, each with its calls; as for ``original``."""
    order = [model if isinstance(model, str) else model.id for model in role.models]
    used = sorted(dict.fromkeys(call.model for call in calls), key=lambda one: order.index(one) if one in order else 0)
    return [(original(role, then, run), [call for call in calls if call.model == then]) for then in used] or [
        (original(role, None, run), [])
    ]


def original(role: "Role", then: str | None, run: str) -> "Model":
    """The model that ``role`` had ``then``, for its profile, price and worst case; it is not called. Raises ``BadInput``."""
    from agents.models.registry import resolve

    own = role.model
    assert own is not None
    if then is None:
        return resolve(own) if isinstance(own, str) else own
    known = next((model for model in role.models if not isinstance(model, str) and model.id == then), None)
    if known is not None:
        return known
    try:
        return resolve(then)
    except BadInput:
        raise BadInput(f"role {role.name!r} had the model {then} in run {run!r}; give it that model again to play the run") from None


def _cut_off(call: m.ModelCalled) -> bool:
    return call.failure is not None and call.failure.verdict is Verdict.CANCELLED


def _in_doubt(call: m.ToolCalled) -> bool:
    return call.failure is not None and call.failure.verdict is Verdict.EFFECT_IN_DOUBT
