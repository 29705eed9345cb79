"""What the coordinator knows of one run: the fold of its journal. Data only; ``reducer`` changes it and nothing else does."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from orchestrator.ledger import RUN, Ledger
from protocols.budget import NOTHING, ZERO, Amount, Tally, Usage, narrowed
from protocols.failures import Failure, Verdict
from protocols.messages import (
    AllowanceAsked,
    FellBack,
    LeaseAsked,
    Message,
    ReviewAsked,
    ReviewKind,
    RunRequested,
    Status,
    SubtasksAsked,
    ToolIntended,
    Value,
)
from protocols.plan import Task

Fetch = Callable[[Value], Any]
"""Reads a value, from its blob if need be."""

Decisions = list[Message]
"""What follows from an entry, in order."""

STEPS_A_ROLE = 1_000_000
"""Each role that has a task numbers its steps from a multiple of this on: a step's place is its identity, and so are keys of effects."""


class Phase(IntEnum):
    """How a task stands. ``PARKED`` is at work, but waiting for the tasks it delegated; ``IN_REVIEW`` waits for a person, at no host."""

    WAITING = 0
    READY = 1
    RUNNING = 2
    PARKED = 3
    IN_REVIEW = 4
    DONE = 5
    FAILED = 6


class Kind(IntEnum):
    """Why a task exists."""

    WORK = 0
    PLAN = 1
    MERGE = 2
    SUBTASK = 3


class Act(IntEnum):
    """How far the run has come."""

    PLANNING = 0
    WORKING = 1
    MERGING = 2
    ENDED = 3


@dataclass(slots=True)
class TaskState:
    """One task: how it stands, and the numbers of the entries that hold its steps, while they may be needed again.

    ``fallen`` says from whom to whom it went, and why; ``before`` is the last attempt of those roles; ``reviewed`` is how many since ended
    in a review, which is no failure. ``series`` is how often the task that delegated it had changed hands by then. One that is
    ``leaving`` was closed while at work, and its host has not said that it has stopped. ``doubts`` are the writes that it began and of
    which nobody has said how they ended. ``spent`` is what it has used of the limits of the role that has it now, in all attempts, and
    ``worked`` how many milliseconds of those were at calls, counted ``until`` a moment. ``delegated`` is how many tasks there are below it.
    ``entries`` are, where it failed, those of its last steps and of its end.
    """

    task: Task
    kind: Kind
    generation: int
    parent: str | None = None
    depth: int = 0
    needs: int = 0
    phase: Phase = Phase.WAITING
    attempt: int = 0
    losses: int = 0
    host: str | None = None
    output: Value | None = None
    failure: Failure | None = None
    usage: Usage = NOTHING
    began: int = 0
    ended: int = 0
    steps: list[tuple[int, bool]] = field(default_factory=list)
    taken: bool = False
    review: ReviewAsked | None = None
    fallen: tuple[FellBack, ...] = ()
    before: int = 0
    reviewed: int = 0
    series: int = 0
    leaving: bool = False
    shortened: int = 0
    doubts: tuple[ToolIntended, ...] = ()
    spent: Amount = ZERO
    worked: int = 0
    until: int = 0
    delegated: int = 0
    entries: tuple[int, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the task has still to end."""
        return self.phase < Phase.DONE

    @property
    def is_result(self) -> bool:
        """Whether its output is one of the run's results: it succeeded, and no other task of the plan takes it."""
        return self.kind is Kind.WORK and self.phase is Phase.DONE and not self.taken

    @property
    def standing(self) -> str:
        """How a task that has ended did: failed, by a fallback, or done."""
        return "failed" if self.phase is Phase.FAILED else "fallback" if self.fallen else "done"

    @property
    def at_work(self) -> bool:
        """Whether a host has it."""
        return self.phase is Phase.RUNNING or self.phase is Phase.PARKED

    @property
    def awaits_answer(self) -> bool:
        """Whether what it fell back to is no role, so that its output comes from no host."""
        return bool(self.fallen) and not self.fallen[-1].to.by_host and self.phase in (Phase.WAITING, Phase.IN_REVIEW)

    @property
    def first(self) -> int:
        """The ordinal of the first step of the role that has it now."""
        return self.hands * STEPS_A_ROLE

    @property
    def hands(self) -> int:
        """How often it went from one role to another."""
        return sum(one.to.kind == "role" for one in self.fallen)

    @property
    def concludes(self) -> bool:
        """Whether its role is told to conclude."""
        return bool(self.fallen) and self.fallen[-1].to.kind == "conclude"

    def settle(self, step: int) -> None:
        """How the write at this step ended is known."""
        if self.doubts:
            self.doubts = tuple(one for one in self.doubts if one.step != step)

    def undecided(self, why: str) -> Failure:
        """How a task in review ends when nobody has settled what was in doubt, or given the output, and ``why`` nobody has."""
        assert self.review is not None
        if self.review.kind is ReviewKind.FALLBACK:
            failure = self.fallen[-1].failure
            return failure.model_copy(update={"message": f"{failure.message}; {why}"})
        return Failure(verdict=Verdict.EFFECT_IN_DOUBT, message=f"{self.review.message}; {why}", evidence=(self.review.key,))


@dataclass(slots=True)
class Family:
    """The tasks that one task delegated at one step."""

    asked: SubtasksAsked
    children: tuple[str, ...]
    open: int


@dataclass(slots=True)
class RunState:
    """One run. ``seq`` is the number of its newest entry; ``drawing`` is what is asked of limits over many runs, and ``refused`` names
    the one that gave nothing more, or not all for the ask that is ``scarce``. ``inherited`` is what a fork was begun with: somebody else
    has used that."""

    run: str
    request: RunRequested
    began: int
    ledger: Ledger
    seq: int = 0
    act: Act = Act.PLANNING
    status: Status = Status.RUNNING
    tasks: dict[str, TaskState] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)
    merge: list[str] = field(default_factory=list)
    dependents: dict[str, list[str]] = field(default_factory=dict)
    ready: dict[str, deque[str]] = field(default_factory=dict)
    working: dict[str, int] = field(default_factory=dict)
    at_work: int = 0
    in_review: int = 0
    leaving: int = 0
    open: int = 0
    generation: int = 0
    families: dict[str, Family] = field(default_factory=dict)
    subtasks: dict[str, list[str]] = field(default_factory=dict)
    delegated: int = 0
    asks: deque[LeaseAsked] = field(default_factory=deque)
    typical: dict[str, Amount] = field(default_factory=dict)
    used: Tally = field(default_factory=Tally)
    stopping: Failure | None = None
    paused: bool = False
    exhausted: str | None = None
    drawing: AllowanceAsked | None = None
    scarce: LeaseAsked | None = None
    refused: str | None = None
    inherited: Amount = ZERO
    closing: bool = False
    output: Value | None = None
    failure: Failure | None = None
    ended: int = 0

    def spent(self) -> Usage:
        """What the run has used so far."""
        return self.used.total()

    def account(self, state: TaskState) -> str:
        """The ledger account of a task, opened on first use together with those above it."""
        name = state.task.id
        if name not in self.ledger.accounts:
            parent = RUN if state.parent is None else self.account(self.tasks[state.parent])
            role = self.request.team.roles[state.task.role]
            self.ledger.open(name, parent, narrowed(role.limits, state.task.limits) if role.delegates else None)
        return name

    def tried(self, state: TaskState) -> int:
        """Which try at the task of the role that has it the newest attempt is."""
        return state.attempt - state.before - state.reviewed

    def may_try_again(self, state: TaskState) -> bool:
        """Whether its role has a try left after the newest attempt."""
        return self.tried(state) < self.request.team.roles[state.task.role].attempts

    def spares(self, task: str) -> bool:
        """Whether a task may use what is kept of the run's limits: it fell back, or works for one that did.

        Where roles declare who takes over, it is kept for those, and not for agents that conclude though no role says so.
        """
        state, roles = self.tasks[task], self.request.team.roles
        if state.fallen:
            to = state.fallen[-1].to
            declared = to.kind != "conclude" or to in roles[state.task.role].fallbacks
            if declared or not any(role.fallbacks for role in roles.values()):
                return True
        return state.parent is not None and self.spares(state.parent)

    def renew(self, state: TaskState) -> None:
        """Bound the account of a task by its new role's limits, on top of what it has used."""
        role = self.request.team.roles[state.task.role]
        if state.task.id in self.ledger.accounts:
            self.ledger.renew(state.task.id, narrowed(role.limits, state.task.limits) if role.delegates else None)

    def holds(self, state: TaskState) -> bool:
        """Whether the task holds a lease: it is at work, or was closed and its host has not said that it has stopped."""
        account = self.ledger.accounts.get(state.task.id)
        return account is not None and account.held != ZERO

    def limited(self, state: TaskState) -> bool:
        """Whether the task must reserve before it calls."""
        return self.ledger.limited or (
            (state.parent is not None or self.request.team.roles[state.task.role].delegates) and self.ledger.limits_of(self.account(state))
        )

    def results(self) -> list[TaskState]:
        """The tasks whose outputs are the run's results, in plan order: those that succeeded and that no other task takes."""
        return [state for name in self.plan if (state := self.tasks[name]).is_result]

    def failures(self) -> Iterator[TaskState]:
        """The tasks of the newest plan that failed."""
        for name in self.plan:
            state = self.tasks[name]
            if state.phase is Phase.FAILED and state.generation == self.generation:
                yield state
