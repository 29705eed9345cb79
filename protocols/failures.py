"""How work fails: a closed set of verdicts as values, and the short tree of errors that people meet."""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import Field

from protocols.record import Record


class Verdict(StrEnum):
    """Why a task ended without a result; ``MODES`` describes each. Closed: a new mode is a new schema version."""

    BUDGET = "budget"
    DEADLINE = "deadline"
    TURNS = "turns"
    LOOP = "loop"
    PING_PONG = "ping_pong"
    HALLUCINATED_TOOL = "hallucinated_tool"
    BAD_ARGUMENTS = "bad_arguments"
    SCHEMA = "schema"
    TOOL_ERROR = "tool_error"
    CODE_ERROR = "code_error"
    PROVIDER = "provider"
    CONTEXT = "context"
    REFUSED = "refused"
    PLAN = "plan"
    UNDECIDED = "undecided"
    DEPENDENCY = "dependency"
    CANCELLED = "cancelled"
    EFFECT_IN_DOUBT = "effect_in_doubt"
    INFRASTRUCTURE = "infrastructure"


class Severity(StrEnum):
    """How much a failure asks of the person who reads of it."""

    NOTICE = "notice"  # it follows from something else, or was wished for
    WARNING = "warning"  # a limit or a rule did what it is there for
    ERROR = "error"  # the work was not done: a role, tool, model or provider needs attention
    CRITICAL = "critical"  # look before anything goes on


class Mode(NamedTuple):
    """What is known of a verdict before any failure: how severe it is, and what it means."""

    severity: Severity
    description: str


MODES: Mapping[Verdict, Mode] = MappingProxyType(
    {
        Verdict.BUDGET: Mode(Severity.WARNING, "a limit on money, tokens, calls or subtasks would have been passed"),
        Verdict.DEADLINE: Mode(Severity.WARNING, "the time allowed ran out"),
        Verdict.TURNS: Mode(Severity.ERROR, "the agent used its turns without an answer"),
        Verdict.LOOP: Mode(Severity.ERROR, "the agent repeated itself after being told"),
        Verdict.PING_PONG: Mode(Severity.ERROR, "agents handed the same work to each other, or asked for it again and again"),
        Verdict.HALLUCINATED_TOOL: Mode(Severity.ERROR, "it kept calling tools that do not exist"),
        Verdict.BAD_ARGUMENTS: Mode(Severity.ERROR, "it kept calling tools with arguments that do not fit"),
        Verdict.SCHEMA: Mode(Severity.ERROR, "its answer never fitted the output type"),
        Verdict.TOOL_ERROR: Mode(Severity.ERROR, "a tool failed and the agent could not go on"),
        Verdict.CODE_ERROR: Mode(Severity.ERROR, "a deterministic role raised"),
        Verdict.PROVIDER: Mode(Severity.ERROR, "the model's provider failed"),
        Verdict.CONTEXT: Mode(Severity.ERROR, "the conversation no longer fits the model"),
        Verdict.REFUSED: Mode(Severity.ERROR, "the model refused"),
        Verdict.PLAN: Mode(Severity.ERROR, "no plan passed the checks"),
        Verdict.UNDECIDED: Mode(Severity.WARNING, "a vote had no majority or quorum"),
        Verdict.DEPENDENCY: Mode(Severity.NOTICE, "a task that it needs failed"),
        Verdict.CANCELLED: Mode(Severity.NOTICE, "a person or a parent stopped it"),
        Verdict.EFFECT_IN_DOUBT: Mode(Severity.CRITICAL, "a write may or may not have happened"),
        Verdict.INFRASTRUCTURE: Mode(Severity.CRITICAL, "hosts were lost too often"),
    }
)
"""Every verdict's severity and meaning; ``docs/failures.md`` adds what to do."""


UNPASSED = frozenset({Verdict.CANCELLED, Verdict.DEPENDENCY, Verdict.EFFECT_IN_DOUBT})
"""After these nobody takes a task over."""


class Failure(Record):
    """A failure as a value: the verdict, one sentence for a person, evidence, and whether trying again may help.

    ``limit`` names the budget, not the role's own limits, that had no room for the next call: nothing was wrong with those before.
    """

    verdict: Verdict
    message: str
    evidence: tuple[str, ...] = ()
    retryable: bool = False
    limit: str = Field(default="", exclude_if=lambda limit: not limit)

    @property
    def severity(self) -> Severity:
        """How much it asks of the person who reads of it, by its verdict."""
        return MODES[self.verdict].severity


class CallboardError(Exception):
    """The root of every error raised on purpose. ``code`` is stable; the message says what to do next."""

    code = "callboard"
    retryable = False


class BadInput(CallboardError):
    """The caller gave something that cannot work: a role, plan, file, flag or key."""

    code = "bad_input"


class UnknownMessage(CallboardError):
    """Bytes that are no message of this schema."""

    code = "unknown_message"


class StorageError(CallboardError):
    """The journal could not be written or read."""

    code = "storage"
    retryable = True


class StaleEpoch(StorageError):
    """Another coordinator has taken the run over; nothing was written."""

    code = "stale_epoch"
    retryable = False


class ModelError(CallboardError):
    """A model call failed. ``retryable`` says whether the same call may work later; ``retry_after`` is in seconds.

    ``charged`` says that the provider may have charged for the call, so its reservation must not be given back. A call is ``refused`` when
    the provider had no room for it: a limit on its rate, or too much load. ``elsewhere`` says that it is not the request's fault, but
    that of this model, its account or its server, so that another model may answer, though trying again is no use.
    """

    code = "model"

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        charged: bool = True,
        refused: bool = False,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.charged = charged
        self.refused = refused
        self.elsewhere = elsewhere

    def __reduce__(self) -> tuple[Any, ...]:
        said = {name: getattr(self, name) for name in ("retryable", "retry_after", "charged", "refused", "elsewhere")}
        return (partial(ModelError, **said), (str(self),))


class Failed(CallboardError):
    """Ends the current task with a ``Failure``; raised by roles, tools and the agent loop."""

    code = "failed"

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def __reduce__(self) -> tuple[Any, ...]:
        return (Failed, (self.failure,))
