"""Proofs: the entries of a run's journal that show why its tasks failed, read in one pass once it is known which did."""

from collections import deque
from collections.abc import Iterator, Mapping

from orchestrator.journal.port import Entry, Journal
from orchestrator.observe.figures import brief
from orchestrator.observe.history import unpacked
from protocols.failures import Failure, Verdict
from protocols.messages import (
    AttemptsLost,
    CancelRequested,
    DeadlinePassed,
    Dispatched,
    LeaseDenied,
    Message,
    ModelCalled,
    ReviewAsked,
    ReviewDecided,
    RunResumed,
    SubtasksAsked,
    SubtasksEnded,
    TaskClosed,
    TaskEnded,
    TasksAdded,
    ToolCalled,
    ToolIntended,
)
from protocols.plan import Task, needs
from protocols.record import Record

MOST = 5
"""Entries that prove one failure."""

LOOKED_AT = 24
"""Of a task's steps so many are looked at, the last ones."""

WIDTH = 160

_OF_A_TASK = (ModelCalled, ToolCalled, ToolIntended, LeaseDenied, ReviewAsked, ReviewDecided, SubtasksAsked, SubtasksEnded)
_ENDS = (TaskEnded, TaskClosed)
_STOPS = (CancelRequested, DeadlinePassed)
_TOLD = {kind.__name__ for kind in (*_OF_A_TASK, *_ENDS, *_STOPS, AttemptsLost, Dispatched, RunResumed, TasksAdded)}
_REFUSED = frozenset({Verdict.HALLUCINATED_TOOL, Verdict.BAD_ARGUMENTS})


class Proof(Record):
    """An entry that shows why a task failed, and in words what it says."""

    entry: int
    what: str


class _Case:
    """What is known of one failed task: its task, its steps (entry, message) and what stopped or lost it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.steps: deque[tuple[int, Message]] = deque(maxlen=LOOKED_AT)
        self.given: Proof | None = None
        self.attempt = 0  # the one at work
        self.losses: deque[Proof] = deque(maxlen=MOST)

    def lose(self, seq: int, how: str) -> None:
        """The attempt at work is at work no more."""
        self.losses.append(Proof(entry=seq, what=f"attempt {self.attempt} {how}"))
        self.attempt = 0


def proofs(journal: Journal, run: str, failures: Mapping[str, Failure]) -> dict[str, tuple[Proof, ...]]:
    """By failed task of ``run`` the entries that show why it failed so, at most ``MOST``, in the order of the journal."""
    return _Reading(failures).read(journal.read(run)) if failures else {}


class _Reading:
    def __init__(self, failures: Mapping[str, Failure]) -> None:
        self._cases = {task: _Case(failure) for task, failure in failures.items()}
        self._tasks: dict[str, Task] = {}
        self._parents: dict[str, str] = {}
        self._ends: dict[str, Proof] = {}
        self._stop: Proof | None = None

    def read(self, entries: Iterator[Entry]) -> dict[str, tuple[Proof, ...]]:
        for entry in entries:
            if entry.tag in _TOLD:
                self._hear(unpacked(entry), entry.seq)
        found = {}
        for name, case in self._cases.items():
            unique = {one.entry: one for one in self._shown(name, case)}
            found[name] = tuple(unique[entry] for entry in sorted(unique)[-MOST:])
        return found

    def _hear(self, said: Message, seq: int) -> None:
        match said:
            case CancelRequested():
                self._stop = Proof(entry=seq, what=f"the run was cancelled: {brief(said.reason, WIDTH)}")
            case DeadlinePassed():
                self._stop = Proof(entry=seq, what="the run's seconds were over")
            case TasksAdded():
                self._tasks |= {task.id: task for task in said.tasks}
                if said.parent is not None:
                    self._parents |= {task.id: said.parent for task in said.tasks}
            case Dispatched():
                for item in said.items:
                    if item.task in self._cases:
                        case = self._cases[item.task]
                        case.attempt, case.given = item.attempt, Proof(entry=seq, what=f"attempt {item.attempt} was given to {item.host}")
            case AttemptsLost(returned=False):
                for task, attempt in said.tasks:
                    if task in self._cases and self._cases[task].attempt == attempt:
                        self._cases[task].lose(seq, f"was lost with {said.host}")
            case RunResumed(returned=False):
                for task, case in self._cases.items():
                    if case.attempt and (task, case.attempt) not in said.kept:
                        case.lose(seq, "was lost when another coordinator took the run over")
            case TaskEnded() | TaskClosed():
                how = "ended" if said.failure is None else f"failed with {said.failure.verdict.value}"
                self._ends[said.task] = Proof(entry=seq, what=f"task {said.task} {how}")
                if said.task in self._cases:
                    self._cases[said.task].attempt = 0
            case _:
                task = getattr(said, "task", "")
                if isinstance(said, _OF_A_TASK) and task in self._cases:
                    self._cases[task].steps.append((seq, said))

    def _shown(self, name: str, case: _Case) -> Iterator[Proof]:
        verdict = case.failure.verdict
        if verdict is Verdict.INFRASTRUCTURE:
            yield from case.losses
        elif verdict in (Verdict.DEPENDENCY, Verdict.UNDECIDED):
            task = self._tasks.get(name)
            yield from (self._ends[one] for one in (*(needs(task) if task else ()), *case.failure.evidence) if one in self._ends)
        elif verdict in (Verdict.CANCELLED, Verdict.DEADLINE):
            yield from self._stopped(name, case)
        else:
            yield from _steps(case)

    def _stopped(self, name: str, case: _Case) -> Iterator[Proof]:
        """Who or what stopped it, and what it did last."""
        parent = self._parents.get(name)
        if self._stop is not None and (case.given is None or self._stop.entry > case.given.entry):
            yield self._stop
        elif parent is not None and parent in self._ends:
            yield self._ends[parent]
        elif case.given is not None:
            yield case.given
        yield from (Proof(entry=seq, what=_words(said)) for seq, said in list(case.steps)[-2:])


def _steps(case: _Case) -> list[Proof]:
    """The steps that show it: those that failed so, or that were done again and again; and the last one."""
    verdict, steps = case.failure.verdict, list(case.steps)
    last = steps[-1:]
    match verdict:
        case Verdict.BUDGET:
            picked = [one for one in steps if isinstance(one[1], LeaseDenied)][-1:] or steps[-2:]
        case Verdict.LOOP:
            calls = [one for one in steps if isinstance(one[1], ToolCalled)]
            again = [one for one in calls if _call(one[1]) == _call(calls[-1][1])]
            picked = [*(again if len(again) > 1 else calls[1 - MOST :]), *last]
        case Verdict.PING_PONG:
            picked = [one for one in steps if isinstance(one[1], SubtasksAsked | SubtasksEnded)]
        case Verdict.HALLUCINATED_TOOL | Verdict.BAD_ARGUMENTS:
            picked = [*(one for one in steps if _verdict(one[1]) in _REFUSED), *last]
        case Verdict.TOOL_ERROR:
            picked = [one for one in steps if isinstance(one[1], ToolCalled) and one[1].failure is not None]
        case Verdict.PROVIDER:
            tries = [(seq, said) for seq, said in steps if isinstance(said, ModelCalled) and said.failure is not None]
            picked = [one for one in tries if one[1].step == tries[-1][1].step]
        case Verdict.EFFECT_IN_DOUBT:
            doubts = (ToolIntended, ReviewAsked, ReviewDecided)
            picked = [one for one in steps if isinstance(one[1], doubts) or _verdict(one[1]) is verdict]
        case Verdict.SCHEMA:
            picked = [one for one in steps if isinstance(one[1], ModelCalled)][-3:]
        case _:
            picked = last
    shown = [Proof(entry=seq, what=_words(said)) for seq, said in picked[-MOST:] or last]
    return shown or ([case.given] if case.given is not None else [])


def _call(said: Message) -> tuple[str, object] | None:
    return (said.call.name, said.call.arguments) if isinstance(said, ToolCalled) else None


def _verdict(said: Message) -> Verdict | None:
    failure = getattr(said, "failure", None)
    return None if failure is None else failure.verdict


def _words(said: Message) -> str:
    """What a step says, on one line."""
    match said:
        case ModelCalled(reply=None):
            return f"{said.model} failed: {_why(said.failure)}"
        case ModelCalled():
            assert said.reply is not None
            calls = ", ".join(f"{one.name} {brief(one.arguments, 60)}" for one in said.reply.tool_calls)
            return f"{said.model} asked for {brief(calls, WIDTH)}" if calls else f"{said.model} answered {brief(said.reply.text, WIDTH)!r}"
        case ToolCalled():
            call = f"{said.call.name} {brief(said.call.arguments, 60)}"
            if said.failure is not None:
                return f"{call} {'failed' if said.ran else 'was refused'}: {_why(said.failure)}"
            return f"{call} gave {brief(said.content, 60)!r}"
        case ToolIntended():
            return f"{said.call.name} {brief(said.call.arguments, 60)} was begun, under the key {brief(said.key)}"
        case LeaseDenied():
            return f"no room was left: {brief(said.limit, WIDTH)}"
        case ReviewAsked():
            return f"a person was asked: {brief(said.message, WIDTH)}"
        case ReviewDecided():
            return f"{brief(said.user)} decided: {said.decision.value}"
        case SubtasksAsked():
            return f"it asked for {', '.join(f'{one.role} {brief(one.input, 40)}' for one in said.tasks[:3])}"
        case SubtasksEnded(refused=Failure() as refused):
            return f"that was refused: {_why(refused)}"
        case SubtasksEnded():
            return f"its subtasks ended, {sum(one is not None for one in said.failures)} of {len(said.failures)} failed"
    return type(said).__name__


def _why(failure: Failure | None) -> str:
    return "" if failure is None else brief(failure.message, WIDTH)
