"""The review queue: what waits for a person, and what was decided, folded from the journal with all that it says of each case."""

from collections.abc import Iterator
from typing import Any

from orchestrator.journal.port import Entry, Journal, RunRow
from orchestrator.observe.figures import moment
from orchestrator.observe.history import unpacked
from protocols.failures import Verdict
from protocols.messages import (
    AttemptsLost,
    CancelRequested,
    DeadlinePassed,
    Decision,
    Dispatched,
    ReviewAsked,
    ReviewDecided,
    ReviewKind,
    RunEnded,
    RunResumed,
    TaskClosed,
    ToolCalled,
    ToolIntended,
)
from protocols.record import Record


class Review(Record):
    """One question to a person. Times in milliseconds (UTC); ``began`` is when the call did, 0 when it did not.

    ``evidence`` is what the journal holds of this place, a line each. ``decision``, ``user``, ``note`` and ``decided`` say what became of
    it; ``is_open`` that nothing has yet, and somebody may decide. One that is neither open nor decided was left by a run or task that
    ended: nobody knows.
    """

    run: str
    task: str
    step: int
    attempt: int
    kind: ReviewKind
    tool: str
    arguments: dict[str, Any] | str
    key: str
    message: str
    began: int
    asked: int
    evidence: tuple[str, ...] = ()
    is_open: bool = True
    decision: Decision | None = None
    user: str = ""
    note: str = ""
    decided: int = 0


def reviews(journal: Journal, run: str) -> list[Review]:
    """Every question of ``run``, in the order asked; then the writes of which nobody knew the end when it ended, and nobody was asked."""
    # most runs ask nothing and write nothing, and their entries are not even unpacked
    tasks = {
        said.task
        for entry in journal.read(run)
        if entry.tag in (ReviewAsked.__name__, ToolIntended.__name__) and isinstance(said := unpacked(entry), ReviewAsked | ToolIntended)
    }
    if not tasks:
        return []
    fold = _Fold(run, tasks)
    for entry in journal.read(run):
        if entry.tag in _TAGS:
            fold.add(entry)
    return fold.reviews


def waiting(journal: Journal, rows: list[RunRow]) -> Iterator[Review]:
    """What waits for a person in these runs."""
    for row in rows:
        if not row.ended:
            yield from (review for review in reviews(journal, row.run) if review.is_open)


def unknown(journal: Journal, run: str) -> int:
    """How many writes of a run that has ended may or may not have happened."""
    found = reviews(journal, run)
    return sum(one.kind is ReviewKind.EFFECT_IN_DOUBT and not one.is_open and one.decision in (None, Decision.FAIL) for one in found)


class _Fold:
    def __init__(self, run: str, tasks: set[str]) -> None:
        self.reviews: list[Review] = []
        self._run, self._tasks = run, tasks
        self._attempts: dict[str, int] = {}
        self._hosts: dict[str, tuple[int, str]] = {}  # of each task at work, the attempt and its host
        self._doubts: dict[tuple[str, int], tuple[ToolIntended, int]] = {}  # announced, and not heard of since
        self._told: dict[tuple[str, int], list[str]] = {}
        self._steps: dict[str, list[int]] = {}  # where each task at work has announced something
        self._stopping = False

    def add(self, entry: Entry) -> None:
        said = unpacked(entry)
        match said:
            case Dispatched():
                given = [item for item in said.items if item.task in self._tasks]
                self._hosts |= {item.task: (item.attempt, item.host) for item in given}
                self._attempts |= {item.task: item.attempt for item in given}
            case AttemptsLost():
                for task, attempt in said.tasks:
                    if self._hosts.get(task) == (attempt, said.host):
                        self._lose(task, entry.at, "it was stopped with the run" if said.returned else f"its host {said.host} was lost")
            case RunResumed():
                for task in [task for task, (attempt, _) in self._hosts.items() if (task, attempt) not in said.kept]:
                    why = "another coordinator took the run over, and no host had it any more"
                    self._lose(task, entry.at, "the run was forked" if said.returned else why)
            case ToolIntended() if said.task in self._tasks:
                _, host = self._hosts.get(said.task, (0, "a host"))
                self._steps.setdefault(said.task, []).append(said.step)
                self._note(said.task, said.step, entry.at, f"attempt {said.attempt} on {host} announced {said.call.name}")
                self._doubts[said.task, said.step] = said, entry.at
            case ToolCalled() if said.task in self._tasks and said.effect == "write":
                how = said.failure.message if said.failure else "it was carried out"
                self._note(said.task, said.step, entry.at, f"attempt {said.attempt} reported: {how}")
                if said.failure is None or said.failure.verdict is not Verdict.EFFECT_IN_DOUBT:
                    self._doubts.pop((said.task, said.step), None)
            case ReviewAsked():
                self._ask(said, entry.at)
            case ReviewDecided():
                self._decide(said, entry.at)
            case TaskClosed():
                self._close(said.task)
            case CancelRequested() | DeadlinePassed():
                self._stopping = True
            case RunEnded():
                for review in self.reviews:
                    self._close(review.task)
                self._leave()

    def _lose(self, task: str, at: int, why: str) -> None:
        attempt, _ = self._hosts.pop(task)
        for step in self._steps.pop(task, ()):
            self._note(task, step, at, f"attempt {attempt} was lost: {why}")

    def _note(self, task: str, step: int, at: int, line: str) -> None:
        self._told.setdefault((task, step), []).append(f"{moment(at)}  {line}")

    def _ask(self, said: ReviewAsked, at: int) -> None:
        fallen = said.kind is ReviewKind.FALLBACK
        if self._stopping or (not fallen and self._attempts.get(said.task) != said.attempt):
            return
        self._hosts.pop(said.task, None)
        self._steps.pop(said.task, None)
        self._doubts.pop((said.task, said.step), None)
        self.reviews.append(self._review(said, said.kind, said.message, at))

    def _leave(self) -> None:
        """Nobody will be asked any more."""
        for said, at in self._doubts.values():
            why = f"{said.call.name} was begun, the run ended before anybody knew how it ended, and nobody was asked"
            self.reviews.append(self._review(said, ReviewKind.EFFECT_IN_DOUBT, why, at).model_copy(update={"is_open": False}))
        self._doubts.clear()

    def _review(self, said: ReviewAsked | ToolIntended, kind: ReviewKind, message: str, at: int) -> Review:
        return Review(
            run=self._run,
            task=said.task,
            step=said.step,
            attempt=said.attempt,
            kind=kind,
            tool=said.call.name,
            arguments=said.call.arguments,
            key=said.key,
            message=message,
            began=said.began,
            asked=at,
            evidence=tuple(self._told.get((said.task, said.step), ())),
        )

    def _decide(self, said: ReviewDecided, at: int) -> None:
        when = said.at or at
        changes = {"is_open": False, "decision": said.decision, "user": said.user, "note": said.note, "decided": when}
        for place, review in enumerate(self.reviews):
            settles = review.kind is not ReviewKind.FALLBACK or said.decision in (Decision.DONE, Decision.FAIL)
            meant = (review.task, review.step) == (said.task, said.step) and said.attempt in (0, review.attempt)
            if review.is_open and settles and meant:
                self.reviews[place] = review.model_copy(update=changes)
                self._note(said.task, said.step, when, f"{said.user} decided: {said.decision.value}")

    def _close(self, task: str) -> None:
        self.reviews = [one.model_copy(update={"is_open": False}) if one.task == task else one for one in self.reviews]


_TAGS = {
    kind.__name__
    for kind in (
        AttemptsLost,
        CancelRequested,
        DeadlinePassed,
        Dispatched,
        ReviewAsked,
        ReviewDecided,
        RunEnded,
        RunResumed,
        TaskClosed,
        ToolCalled,
        ToolIntended,
    )
}
