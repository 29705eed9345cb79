"""The closed vocabulary: every message that drivers, coordinators and hosts exchange or the journal holds.

A message or field that is added, or changes its meaning, raises ``SCHEMA``, and ``protocols.upcast`` says how what was written before
is read. Times are integer milliseconds since the epoch (UTC).
"""

from typing import Any

from pydantic import Field

from protocols.budget import NOTHING, UNLIMITED, Limits, Usage
from protocols.chat import ChatMessage, Cut, ModelReply, Shortened, ToolCall
from protocols.failures import Failure
from protocols.plan import Task
from protocols.record import Record
from protocols.team import FallbackSpec, TeamSpec
from protocols.values import BlobRef as BlobRef
from protocols.values import Decision as Decision
from protocols.values import ReviewKind as ReviewKind
from protocols.values import Status as Status
from protocols.values import Value as Value

SCHEMA = 3


class Message(Record):
    """Base of the union; the class name is the tag on the wire."""


# --- a person or program to the coordinator -------------------------------------------------------------------------


class RunRequested(Message):
    """A goal to carry out. ``code`` is the team's code (a blob); ``target`` says where it was loaded from. ``forked`` is the run, and the
    number of its last entry, with which this one begins. ``reserve`` is what of ``budget`` only fallbacks may use."""

    team: TeamSpec
    goal: Any = None
    user: str = "nobody"
    budget: Limits = UNLIMITED
    reserve: Limits = UNLIMITED
    plan: Value | None = None
    code: BlobRef | None = None
    target: str | None = None
    traceparent: str | None = None
    forked: tuple[str, int] | None = None


class CancelRequested(Message):
    """Somebody wants the run to stop."""

    reason: str = "cancelled by request"


class ReviewDecided(Message):
    """A person decided what ``ReviewAsked`` asked at this place, in this ``attempt`` (0: whichever asks now), and no later question.
    ``result`` stands in for what the call returned; ``user`` is who decided, and ``at`` when."""

    task: str
    step: int
    decision: Decision
    attempt: int = 0
    result: str | None = None
    note: str = ""
    user: str = "nobody"
    at: int = 0


class PauseRequested(Message):
    """Somebody wants the run to rest: nothing more is started, and its agents make no more calls. Its seconds go on."""

    reason: str = ""
    user: str = "nobody"


class ContinueRequested(Message):
    """Somebody wants a run that rests to go on."""

    user: str = "nobody"


class BudgetChanged(Message):
    """Somebody gives a run other limits, while it works or rests: those of ``budget`` that are not ``None`` replace what it had; with
    ``lifted`` it has no others."""

    budget: Limits = UNLIMITED
    lifted: bool = False
    user: str = "nobody"


class RunResumed(Message):
    """A coordinator took the run over at ``epoch``. Of what was at work only ``kept`` still is, as (task, attempt). With ``returned`` the
    rest was never given to anybody, as in a fork, which begins with this entry: what it holds is given back."""

    epoch: int
    kept: tuple[tuple[str, int], ...] = ()
    returned: bool = False


# --- what a host tells of an agent ----------------------------------------------------------------------------------


class ModelCalled(Message):
    """A model call that ended. ``step`` is its ordinal in the task; ``said`` are the messages that this call added to the
    conversation and that no other entry holds; ``request`` is the digest of the whole request. ``priced`` says whether the model has a
    price, so whether ``usage.micros`` is what the call cost; ``None`` where that was not recorded yet (schema 1). ``then`` names the model
    that takes over from the next step on. A ``cached`` reply is one that was kept of an equal request: nobody was asked.
    ``cut`` is what of the conversation the request did not show, because it did not fit the model's context. ``shortened`` says how
    short the reply had to be, where there was too little room. ``hedged`` calls are two equal
    ones that were under way at once."""

    task: str
    attempt: int
    step: int
    model: str
    request: str
    said: tuple[ChatMessage, ...] = ()
    reply: ModelReply | None = None
    failure: Failure | None = None
    usage: Usage = NOTHING
    priced: bool | None = None
    then: str = ""
    cached: bool = False
    cut: Cut | None = None
    shortened: Shortened | None = None
    hedged: bool = False
    began: int = 0
    ended: int = 0


class ToolIntended(Message):
    """A tool call that changes the world is about to start; durable before it does. ``key`` is its idempotency key."""

    task: str
    attempt: int
    step: int
    call: ToolCall
    key: str
    began: int = 0


class ToolCalled(Message):
    """A tool call that ended: ``content`` is the result as the model sees it. All tries are records of one step: ``again`` says that
    another follows. ``settled`` says who knew how a call in doubt had ended, where this attempt made none: reconcile or review;
    that it was announced and not begun: stopped; or that a pure tool's result was kept of an equal call: cache."""

    task: str
    attempt: int
    step: int
    call: ToolCall
    content: str = ""
    failure: Failure | None = None
    ran: bool = True
    again: bool = False
    settled: str = ""
    effect: str = "read"
    began: int = 0
    ended: int = 0


class ReviewAsked(Message):
    """An agent can't go on before a person has decided, and its attempt ends. ``began`` is when the call did, ``message`` one sentence
    that says what is not known; ``key`` is the call's idempotency key. The attempt is no failed try of its role; before schema 3 it was
    ``counted`` as one."""

    task: str
    attempt: int
    step: int
    kind: ReviewKind = ReviewKind.EFFECT_IN_DOUBT
    call: ToolCall
    key: str
    message: str
    began: int = 0
    counted: bool = False


class LeaseAsked(Message):
    """An agent needs more room than its lease has: ``need`` is the worst case of its next call, and ``have`` what it holds for no other.
    One that is not ``final`` may be denied: then the agent goes on with a cheaper model. Where nothing more can come and the ``least``
    would do, all that is left is granted. One for ``now`` is denied where it would wait."""

    task: str
    attempt: int
    ask: int
    need: Usage
    have: Usage = NOTHING
    final: bool = True
    least: Usage | None = None
    now: bool = False


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


class CallsReported(Message):
    """What came of a host's calls of one model since it last said so, and what it wants; it is about permits, and never stored. By run,
    ``waiting`` calls want one, and those in ``back`` are given back. ``refused`` has for each call that the provider had no room for the
    round in which it began; ``retry_after`` is in seconds; ``tokens`` is what they used, and ``need`` the worst case of one that waits.
    Reports are numbered on the ``link`` to a coordinator; the first says in ``kept`` what is under way already."""

    link: str
    number: int
    model: str
    waiting: tuple[tuple[str, int], ...] = ()
    back: tuple[tuple[str, int], ...] = ()
    kept: tuple[tuple[str, int], ...] = ()
    succeeded: int = 0
    failed: int = 0
    refused: tuple[int, ...] = ()
    retry_after: float | None = None
    tokens: int = 0
    need: int = 0
    why: str = ""


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
    """More room for an agent, on top of what it has. Where that is less than it asked for, ``limit`` names what has no more."""

    task: str
    attempt: int
    ask: int
    lease: Usage
    limit: str = ""


class LeaseDenied(Message):
    """No room is left, and none can come back; ``limit`` names what ran out and where."""

    task: str
    attempt: int
    ask: int
    limit: str


class AllowanceAsked(Message):
    """An ask for a lease does not fit into what was drawn for the run from the limits of its user and of everyone."""

    task: str
    attempt: int
    ask: int
    need: Usage


class AllowanceGranted(Message):
    """What was drawn for the run, in all, in the dimensions that those limits have; never less than it has used and promised."""

    total: Limits


class AllowanceDenied(Message):
    """Nothing more can be drawn for this ask, and none can come back; ``limit`` names what ran out and whose it is."""

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
    """Attempts whose host is gone. With ``returned`` they were stopped in good order: all that they used was told, and the rest of what
    they held is given back."""

    host: str
    tasks: tuple[tuple[str, int], ...]
    returned: bool = False


class TaskClosed(Message):
    """A task that ends without running: what it needs failed, or the run is ending."""

    task: str
    failure: Failure


class FellBack(Message):
    """A task at which ``role`` failed in this attempt goes to its fallback. For a role a new series of attempts begins; a person is asked
    by the ``ReviewAsked`` that follows; and what a person or a fixed answer gives ends the task by a ``TaskEnded``."""

    task: str
    attempt: int
    role: str
    to: FallbackSpec
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
    """Work on a task. ``inputs`` are the outputs that the input refers to; ``history`` are earlier attempts' steps, packed. Steps are
    numbered from ``first`` on: those before are another role's. ``tried`` says which try of its role's this is, where another may follow;
    the last one's is 0. ``limits`` are the task's own, beside its role's. ``spent`` is what those attempts used of these, and ``worked``
    how many milliseconds they were at calls."""

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
    first: int = 0
    tried: int = 0
    limits: Limits | None = None
    conclude: bool = False
    spent: Usage = NOTHING
    worked: int = 0
    traceparent: str | None = None


class HoldRun(Message):
    """Agents of this run wait before their next call; or, with ``held`` off, go on."""

    held: bool = True


class LimitRun(Message):
    """Agents of this run, which began without any limit, ask for room before each call from now on."""


class StopTask(Message):
    """Stop working on an attempt: with this ``failure`` it ends."""

    task: str
    attempt: int
    failure: Failure


class PermitsChanged(Message):
    """What a host may do with a model from now on: by run, so many ``more`` calls at once. While permits are ``lasting``, one whose call
    has ended is good for the next of its run; else it goes back. Calls that begin now are of this ``round``. ``open_for`` says for how
    many seconds the circuit is open, and ``why``; ``None`` when it is closed."""

    model: str
    more: tuple[tuple[str, int], ...] = ()
    lasting: bool = False
    round: int = 0
    open_for: float | None = None
    why: str = ""


MESSAGES: tuple[type[Message], ...] = (
    RunRequested, CancelRequested, PauseRequested, ContinueRequested, BudgetChanged, ReviewDecided, RunResumed, ModelCalled,
    ToolIntended, ToolCalled, ReviewAsked, LeaseAsked, SubtasksAsked, TaskEnded, PartialOutput, CallsReported, TasksAdded, Dispatched,
    LeaseGranted, LeaseDenied, AllowanceAsked, AllowanceGranted, AllowanceDenied, SubtasksEnded, AttemptsLost, TaskClosed, FellBack,
    RunEnded, DeadlinePassed, Assign, StopTask, HoldRun, LimitRun, PermitsChanged,
)  # fmt: skip
"""Every message there is. The order is not part of the format; the names are."""
