"""What a run and its tasks came to, as frozen values: what the fold of a journal gives out and every report is made of."""

from enum import StrEnum

from pydantic import Field

from protocols.budget import NOTHING, Usage
from protocols.failures import Failure
from protocols.messages import Status
from protocols.record import Record


class State(StrEnum):
    """How a task stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class TaskSummary(Record):
    """One task. ``attempts`` counts those given to a host, ``lost`` those whose host was lost. ``began`` and ``ended`` are in
    milliseconds (UTC), 0 when not; ``seconds`` is time at work, over all attempts that ended; ``entry`` is its result's seq."""

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


class RoleSummary(Record):
    """All tasks of one role together; ``seconds`` is their time at work, added up."""

    tasks: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    usage: Usage = NOTHING


class RunSummary(Record):
    """One run. Times are milliseconds (UTC); ``ended`` is ``None`` while the run is at work, and when it was interrupted.

    ``tasks`` counts every task by state and is empty in a glance. ``planned``, ``succeeded`` and ``failed`` count the plan's
    tasks, so not the planner's, the merge's and the delegated. ``usage`` is the sum over every call in the journal.
    """

    run: str
    team: str = ""
    goal: str = ""
    user: str = ""
    target: str | None = None
    traceparent: str | None = None
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
    roles: dict[str, RoleSummary] = Field(default_factory=dict)
    models: dict[str, Usage] = Field(default_factory=dict)
    usage: Usage = NOTHING
    failure: Failure | None = None

    @property
    def milliseconds(self) -> int:
        """From the first entry to the end, or to the last entry of a run that has not ended."""
        return (self.ended or self.last) - self.began
