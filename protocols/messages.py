"""The closed vocabulary: every message that drivers, coordinators and hosts exchange or the journal holds.

A message that is added, or a field that changes its meaning, raises ``SCHEMA``. Times are integer milliseconds since the epoch (UTC).
"""

from enum import StrEnum
from typing import Any

from pydantic import Field

from protocols.budget import NOTHING, UNLIMITED, Limits, Usage
from protocols.chat import ChatMessage, ModelReply, ToolCall
from protocols.failures import Failure
from protocols.plan import Task
from protocols.record import Record
from protocols.team import TeamSpec

SCHEMA = 1


class BlobRef(Record):
    """Content by its SHA-256 digest (hexadecimal) and size in bytes."""

    digest: str
    size: int


class Value(Record):
    """A JSON value, inline when it is small, else by reference to a blob that holds it packed."""

    inline: Any = None
    blob: BlobRef | None = None


class Status(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    DONE = "done"
    PARTIAL = "partial"  # merged, but some tasks failed
    FAILED = "failed"
    BUDGET = "budget"  # ended because a limit of the run was reached
    CANCELLED = "cancelled"


class Message(Record):
    """Base of the union; the class name is the tag on the wire."""


# --- a person or program to the coordinator -------------------------------------------------------------------------


class RunRequested(Message):
    """A goal to carry out. ``code`` is the team's code (a blob); ``target`` says where it was loaded from."""

    team: TeamSpec
    goal: Any = None
    user: str = "nobody"
    budget: Limits = UNLIMITED
    plan: Value | None = None
    code: BlobRef | None = None
    target: str | None = None
    traceparent: str | None = None


class CancelRequested(Message):
    """Somebody wants the run to stop."""

    reason: str = "cancelled by request"


class RunResumed(Message):
    """A coordinator took the run over at ``epoch``; nothing of an earlier epoch is at work any more."""

    epoch: int


# --- what a host tells of an agent ----------------------------------------------------------------------------------


class ModelCalled(Message):
    """A model call that ended. ``step`` is its ordinal in the task; ``said`` are the messages that this call added to the
    conversation and that no other entry holds; ``request`` is the digest of the whole request."""

    task: str
    attempt: int
    step: int
    model: str
    request: str
    said: tuple[ChatMessage, ...] = ()
    reply: ModelReply | None = None
    failure: Failure | None = None
    usage: Usage = NOTHING
    began: int = 0
    ended: int = 0


class ToolIntended(Message):
    """A tool call that changes the world is about to start; durable before it does. ``key`` is its idempotency key."""

    task: str
    attempt: int
    step: int
    call: ToolCall
    key: str


class ToolCalled(Message):
    """A tool call that ended: ``content`` is the result as the model sees it."""

    task: str
    attempt: int
    step: int
    call: ToolCall
    content: str = ""
    failure: Failure | None = None
    ran: bool = True
    effect: str = "read"
    began: int = 0
    ended: int = 0


class LeaseAsked(Message):
    """An agent needs more room than its lease has: ``need`` is the worst case of its next call."""

    task: str
    attempt: int
    ask: int
    need: Usage


class SubtasksAsked(Message):
    """An agent delegates: ``tasks`` run under its budget; their outcomes come back as ``SubtasksEnded``."""

    task: str
    attempt: int
    step: int
    tasks: tuple[Task, ...]


class TaskEnded(Message):
    """An attempt ended, with an output or a failure."""

    task: str
    attempt: int
    output: Value | None = None
    failure: Failure | None = None
    usage: Usage = NOTHING
    began: int = 0
    ended: int = 0


class PartialOutput(Message):
    """A piece of an agent's text as it is made. It is passed on and never stored."""

    task: str
    attempt: int
    text: str


# --- what the coordinator decides: durable first, then carried out ----------------------------------------------------


class TasksAdded(Message):
    """Tasks that passed the checks. ``parent`` is the task that asked for them; ``merge`` marks the merge tree's own."""

    tasks: tuple[Task, ...]
    parent: str | None = None
    merge: bool = False
    more: bool = False


class Dispatch(Record):
    """One attempt given to one host."""

    task: str
    attempt: int
    host: str
    lease: Usage | None = None


class Dispatched(Message):
    """Attempts that start now."""

    items: tuple[Dispatch, ...]


class LeaseGranted(Message):
    """More room for an agent, on top of what it has."""

    task: str
    attempt: int
    ask: int
    lease: Usage


class LeaseDenied(Message):
    """No room is left, and none can come back; ``limit`` names what ran out and where."""

    task: str
    attempt: int
    ask: int
    limit: str


class SubtasksEnded(Message):
    """The outcomes of delegated tasks, in the order asked; or the reason why they were refused."""

    task: str
    attempt: int
    step: int
    outputs: tuple[Value | None, ...] = ()
    failures: tuple[Failure | None, ...] = ()
    refused: Failure | None = None


class AttemptsLost(Message):
    """Attempts whose host is gone."""

    host: str
    tasks: tuple[tuple[str, int], ...]


class TaskClosed(Message):
    """A task that ends without running: what it needs failed, or the run is ending."""

    task: str
    failure: Failure


class RunEnded(Message):
    """The run is final. ``output`` is absent when results are only collected: they are the tasks' own outputs."""

    status: Status
    output: Value | None = None
    failure: Failure | None = None
    usage: Usage = NOTHING
    succeeded: int = 0
    failed: int = 0


class DeadlinePassed(Message):
    """The run's seconds are over."""


# --- coordinator to host, never stored: each follows from an entry above -----------------------------------------------


class Assign(Message):
    """Work on a task. ``inputs`` are the outputs that the input refers to; ``history`` are earlier attempts' steps, packed."""

    task: str
    attempt: int
    role: str
    team: str
    input: Any = None
    inputs: dict[str, Value | None] = Field(default_factory=dict)
    lease: Usage | None = None
    limited: bool = False
    depth: int = 0
    history: tuple[bytes, ...] = ()
    traceparent: str | None = None


class StopTask(Message):
    """Stop working on an attempt."""

    task: str
    attempt: int
    verdict: str = "cancelled"


MESSAGES: tuple[type[Message], ...] = (
    RunRequested,
    CancelRequested,
    RunResumed,
    ModelCalled,
    ToolIntended,
    ToolCalled,
    LeaseAsked,
    SubtasksAsked,
    TaskEnded,
    PartialOutput,
    TasksAdded,
    Dispatched,
    LeaseGranted,
    LeaseDenied,
    SubtasksEnded,
    AttemptsLost,
    TaskClosed,
    RunEnded,
    DeadlinePassed,
    Assign,
    StopTask,
)
"""Every message there is. The order is not part of the format; the names are."""
