"""What a run and its tasks came to, as frozen values: what the fold of a journal gives out and every report is made of."""

from enum import StrEnum

from pydantic import Field

from protocols.budget import NOTHING, Usage
from protocols.failures import Failure
from protocols.messages import FellBack, Status
from protocols.record import Record

WAITING = "waiting for a person"
PAUSED = "paused"
"""How a run stands in which nothing is at work and a person has to decide something."""


class State(StrEnum):
    """How a task stands."""

    WAITING = "waiting"
    RUNNING = "running"
    IN_REVIEW = "in_review"  # a person has to decide something; no host has it
    DONE = "done"
    FAILED = "failed"

    @property
    def words(self) -> str:
        """The state as people read it."""
        return self.value.replace("_", " ")


class TaskSummary(Record):
    """One task. ``attempts`` counts those given to a host, ``lost`` those whose host was lost. ``began`` and ``ended`` are in
    milliseconds (UTC), 0 when not; ``seconds`` is time at work, over all attempts that ended; ``entry`` is its result's seq.
    ``fallbacks`` says who failed at it and took over, in order; ``role`` is the last role. ``shortened`` counts its model calls whose
    replies could have fewer tokens than its role asks for, because there was no room for more."""

    task: str
    role: str
    state: State
    parent: str | None = None
    merge: bool = False
    attempts: int = 0
    lost: int = 0
    host: str | None = None
    began: int = 0
    ended: int = 0
    seconds: float = 0.0
    usage: Usage = NOTHING
    failure: Failure | None = None
    entry: int = 0
    fallbacks: tuple[FellBack, ...] = ()
    shortened: int = 0


class RoleSummary(Record):
    """All tasks of one role together; ``seconds`` is their time at work, added up. ``cut`` counts its model calls that did not show the
    whole conversation, as it had outgrown the model's context; ``shortened`` is that of its tasks."""

    tasks: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    usage: Usage = NOTHING
    cut: int = 0
    shortened: int = 0


class RunSummary(Record):
    """One run. Times are milliseconds (UTC); a fork ``began`` when it was forked; ``ended`` is ``None`` while the run is at work, and when
    it was interrupted.

    ``tasks`` counts every task by state and is empty in a glance. ``planned``, ``succeeded`` and ``failed`` count the plan's
    tasks, so not the planner's, the merge's and the delegated. ``usage`` is the sum over every call in the journal. ``forked`` is the
    run, and its last entry, that it begins with.
    """

    run: str
    team: str = ""
    goal: str = ""
    user: str = ""
    target: str | None = None
    traceparent: str | None = None
    forked: tuple[str, int] | None = None
    status: Status = Status.RUNNING
    began: int = 0
    last: int = 0
    ended: int | None = None
    resumed: int = 0
    lost: int = 0
    tasks: dict[State, int] = Field(default_factory=dict)
    planned: int = 0
    succeeded: int = 0
    failed: int = 0
    paused: bool = False
    roles: dict[str, RoleSummary] = Field(default_factory=dict)
    models: dict[str, Usage] = Field(default_factory=dict)
    usage: Usage = NOTHING
    failure: Failure | None = None

    @property
    def standing(self) -> str:
        """How the run stands, in words: its status once it has ended."""
        if self.ended is not None:
            return self.status.value
        if self.paused:
            return PAUSED
        return WAITING if self.tasks.get(State.IN_REVIEW) and not self.tasks.get(State.RUNNING) else "unfinished"

    @property
    def milliseconds(self) -> int:
        """From the beginning to the end, or to the last entry of a run that has not ended."""
        return (self.ended or self.last) - self.began
