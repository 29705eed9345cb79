"""What every attempt did: its turns, and in each turn the model and tool calls, read from the journal in one pass.

Attempts come out as they end, so that a run of any size can be streamed; what is kept meanwhile are the attempts at work.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.journal.port import Entry
from orchestrator.observe.history import unpacked
from protocols.budget import NOTHING, Usage
from protocols.failures import Failure, Verdict
from protocols.messages import (
    AttemptsLost,
    Dispatched,
    Message,
    ModelCalled,
    ReviewAsked,
    ReviewDecided,
    RunResumed,
    SubtasksAsked,
    SubtasksEnded,
    TaskClosed,
    TaskEnded,
    ToolCalled,
    ToolIntended,
)

Said = ModelCalled | ToolCalled | ToolIntended | SubtasksAsked | ReviewAsked | ReviewDecided
"""The messages that are steps of an attempt."""


class Outcome(StrEnum):
    """How an attempt, or a step of it, came out."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    IN_DOUBT = "in_doubt"  # a write that may or may not have happened
    IN_REVIEW = "in_review"  # it waits for a person's decision


class Kind(StrEnum):
    """What a step is."""

    MODEL = "model"
    TOOL = "tool"
    DELEGATION = "delegation"
    REVIEW = "review"


@dataclass(frozen=True, slots=True)
class Step:
    """One model call, tool call, delegation, question to a person, or decision of one.

    Times in milliseconds (UTC); ``said`` is the entry that reported it."""

    kind: Kind
    ordinal: int
    name: str
    began: int
    ended: int
    outcome: Outcome
    usage: Usage
    failure: Failure | None
    said: Said

    @property
    def summary(self) -> bool:
        """Whether it is a model call that summarises what no longer fits the context."""
        return isinstance(self.said, ModelCalled) and self.said.cut is not None and self.said.cut.how == "summary"


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call (with its retries, and the summary that made room for it) and the tool calls that it led to; only tool calls in a role
    without a model."""

    number: int
    steps: tuple[Step, ...]

    @property
    def began(self) -> int:
        """When its first step began, in milliseconds (UTC)."""
        return self.steps[0].began

    @property
    def ended(self) -> int:
        """When its last step ended, in milliseconds (UTC); a person's time is nobody's work."""
        return max((step.ended for step in self.steps if step.kind is not Kind.REVIEW), default=self.began)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a task. ``given`` is when a host got it, ``began`` when the host took it up; milliseconds (UTC).

    ``note`` says why a lost attempt was lost.
    """

    task: str
    number: int
    host: str
    given: int
    began: int
    ended: int
    outcome: Outcome
    failure: Failure | None
    note: str
    turns: tuple[Turn, ...]


class _Draft:
    __slots__ = ("began", "ended", "failure", "given", "host", "note", "outcome", "steps")

    def __init__(self, host: str, given: int) -> None:
        self.host, self.given, self.began, self.ended = host, given, given, 0
        self.outcome = Outcome.RUNNING
        self.note = ""
        self.failure: Failure | None = None
        self.steps: list[Step] = []


_TAGS = {
    kind.__name__
    for kind in (
        AttemptsLost,
        Dispatched,
        ModelCalled,
        ReviewAsked,
        ReviewDecided,
        RunResumed,
        SubtasksAsked,
        SubtasksEnded,
        TaskClosed,
        TaskEnded,
        ToolCalled,
        ToolIntended,
    )
}


def attempts(entries: Iterable[Entry], only: Collection[str] | None = None) -> Iterator[Attempt]:
    """Every attempt in ``entries`` (of the tasks in ``only``, when it is given), each as it ends, then those that did not.

    One that was lost, or led or may lead to a review, comes last, because what was on its way, or is decided, may still follow.
    """
    drafts: dict[tuple[str, int], _Draft] = {}
    last = 0
    for entry in entries:
        last = max(last, entry.at)
        if entry.tag not in _TAGS:
            continue
        said = unpacked(entry)
        if isinstance(said, Dispatched):
            for item in said.items:
                if only is None or item.task in only:
                    drafts[item.task, item.attempt] = _Draft(item.host, entry.at)
        elif isinstance(said, AttemptsLost):
            for key in said.tasks:
                if key in drafts:
                    _lose(drafts[key], "it was stopped with the run" if said.returned else f"host {said.host} was lost")
        elif isinstance(said, RunResumed):
            for draft in (draft for key, draft in drafts.items() if key not in said.kept):
                _lose(draft, "the run was forked" if said.returned else f"another coordinator took the run over (epoch {said.epoch})")
        elif isinstance(said, TaskEnded):
            ended = drafts.get((said.task, said.attempt))
            if ended is not None and ended.outcome is Outcome.IN_REVIEW:
                ended.failure, ended.began, ended.ended = said.failure, said.began or ended.given, said.ended or entry.at
            elif ended is not None and ended.outcome is not Outcome.LOST:
                ended.failure, ended.outcome = said.failure, Outcome.FAILED if said.failure else Outcome.DONE
                ended.began, ended.ended = said.began or ended.given, said.ended or entry.at
                if any(step.outcome is Outcome.IN_DOUBT for step in ended.steps):
                    continue  # a person may be asked
                del drafts[said.task, said.attempt]
                yield _finish(said.task, said.attempt, ended, ended.began, ended.ended)
        elif isinstance(said, TaskClosed):
            for key in [key for key in drafts if key[0] == said.task and drafts[key].outcome in (Outcome.RUNNING, Outcome.IN_REVIEW)]:
                drafts[key].failure, drafts[key].outcome = said.failure, Outcome.FAILED
        elif isinstance(said, ReviewDecided):
            _decide(drafts, said, entry.at)
        else:
            _note(drafts, said, entry.at)
    for (task, number), draft in drafts.items():
        yield _finish(task, number, draft, draft.began, draft.ended or max([step.ended for step in draft.steps], default=last))


def _lose(draft: _Draft, why: str) -> None:
    if draft.outcome is Outcome.RUNNING:
        draft.outcome, draft.note = Outcome.LOST, why


def _decide(drafts: dict[tuple[str, int], _Draft], said: ReviewDecided, at: int) -> None:
    """The decision stands behind the question; who comes too late decides nothing."""
    for (task, attempt), draft in drafts.items():
        if said.attempt not in (0, attempt):
            continue
        waits = [step for step in draft.steps if step.outcome is Outcome.IN_REVIEW and step.ordinal == said.step]
        if task == said.task and waits and draft.outcome is Outcome.IN_REVIEW:
            draft.outcome, draft.note = Outcome.IN_DOUBT, ""
            draft.steps = [replace(step, outcome=Outcome.DONE) if step in waits else step for step in draft.steps]
            when = said.at or at
            draft.steps.append(Step(Kind.REVIEW, said.step, said.decision.value, when, when, Outcome.DONE, NOTHING, None, said))


def _note(drafts: dict[tuple[str, int], _Draft], said: Message, at: int) -> None:
    if isinstance(said, SubtasksEnded):
        draft = drafts.get((said.task, said.attempt))
        if draft is not None:
            draft.steps = [_reunited(step, said, at) if step.ordinal == said.step else step for step in draft.steps]
    elif isinstance(said, ModelCalled | ToolCalled | ToolIntended | SubtasksAsked | ReviewAsked):
        draft = drafts.get((said.task, said.attempt))
        if draft is not None:
            step = _step(said, at)
            if isinstance(said, ToolCalled):  # the report of an effect takes the place of its announcement
                draft.steps = [one for one in draft.steps if not (isinstance(one.said, ToolIntended) and one.ordinal == said.step)]
            elif isinstance(said, ReviewAsked) and draft.outcome is not Outcome.IN_REVIEW:
                draft.outcome, draft.note, draft.ended = Outcome.IN_REVIEW, "waits for a person", draft.ended or at
            draft.steps.append(step)


def _step(said: Said, at: int) -> Step:
    if isinstance(said, ModelCalled):
        outcome = Outcome.FAILED if said.failure else Outcome.DONE
        began, ended = said.began or at, said.ended or at
        return Step(Kind.MODEL, said.step, said.model, began, ended, outcome, said.usage, said.failure, said)
    if isinstance(said, ToolCalled):
        doubtful = said.failure is not None and said.failure.verdict is Verdict.EFFECT_IN_DOUBT
        outcome = Outcome.IN_DOUBT if doubtful else Outcome.FAILED if said.failure else Outcome.DONE
        usage = Usage(tool_calls=1) if said.ran else NOTHING
        return Step(Kind.TOOL, said.step, said.call.name, said.began or at, said.ended or at, outcome, usage, said.failure, said)
    if isinstance(said, ToolIntended):
        return Step(Kind.TOOL, said.step, said.call.name, said.began or at, at, Outcome.IN_DOUBT, NOTHING, None, said)
    if isinstance(said, ReviewAsked):
        return Step(Kind.REVIEW, said.step, said.kind.value, at, at, Outcome.IN_REVIEW, NOTHING, None, said)
    assert isinstance(said, SubtasksAsked)
    roles = ", ".join(dict.fromkeys(task.role for task in said.tasks))
    return Step(Kind.DELEGATION, said.step, roles, at, at, Outcome.RUNNING, NOTHING, None, said)


def _reunited(step: Step, said: SubtasksEnded, at: int) -> Step:
    if step.kind is not Kind.DELEGATION:
        return step
    failure = said.refused or next((failure for failure in said.failures if failure), None)
    outcome = Outcome.FAILED if said.refused else Outcome.DONE
    return Step(step.kind, step.ordinal, step.name, step.began, at, outcome, step.usage, failure, step.said)


def _finish(task: str, number: int, draft: _Draft, began: int, ended: int) -> Attempt:
    turns = tuple(_turns(sorted(draft.steps, key=lambda step: step.ordinal)))
    return Attempt(task, number, draft.host, draft.given, began, ended, draft.outcome, draft.failure, draft.note, turns)


def _turns(steps: list[Step]) -> Iterator[Turn]:
    number, current = 1, list[Step]()
    for step in steps:
        goes_on = bool(current) and current[-1].kind is Kind.MODEL and (current[-1].outcome is Outcome.FAILED or current[-1].summary)
        if current and step.kind is Kind.MODEL and not goes_on:
            yield Turn(number, tuple(current))
            number, current = number + 1, []
        current.append(step)
    if current:
        yield Turn(number, tuple(current))
