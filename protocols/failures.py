"""How work fails: a closed set of verdicts as values, and the short tree of errors that people meet."""

from enum import StrEnum
from typing import Any

from protocols.record import Record


class Verdict(StrEnum):
    """Why a task ended without a result. Closed: a new mode is a new schema version."""

    BUDGET = "budget"  # a limit on money, tokens or calls would have been passed
    DEADLINE = "deadline"  # the time allowed ran out
    TURNS = "turns"  # the agent used its turns without an answer
    LOOP = "loop"  # the agent repeated itself after being told
    HALLUCINATED_TOOL = "hallucinated_tool"  # it kept calling tools that do not exist
    BAD_ARGUMENTS = "bad_arguments"  # it kept calling tools with arguments that do not fit
    SCHEMA = "schema"  # its answer never fitted the output type
    TOOL_ERROR = "tool_error"  # a tool failed and the agent could not go on
    CODE_ERROR = "code_error"  # a deterministic role raised
    PROVIDER = "provider"  # the model's provider failed
    CONTEXT = "context"  # the conversation no longer fits the model
    REFUSED = "refused"  # the model refused
    PLAN = "plan"  # no plan passed the checks
    UNDECIDED = "undecided"  # a vote had no majority or quorum
    DEPENDENCY = "dependency"  # a task that it needs failed
    CANCELLED = "cancelled"  # a person or a parent stopped it
    EFFECT_IN_DOUBT = "effect_in_doubt"  # a write may or may not have happened
    INFRASTRUCTURE = "infrastructure"  # hosts were lost too often


class Failure(Record):
    """A failure as a value: the verdict, one sentence for a person, evidence, and whether trying again may help."""

    verdict: Verdict
    message: str
    evidence: tuple[str, ...] = ()
    retryable: bool = False


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

    ``charged`` says that the provider may have charged for the call, so its reservation must not be given back.
    """

    code = "model"

    def __init__(self, message: str, *, retryable: bool = False, retry_after: float | None = None, charged: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.charged = charged

    def __reduce__(self) -> tuple[Any, ...]:
        return (_model_error, (str(self), self.retryable, self.retry_after, self.charged))


def _model_error(message: str, retryable: bool, retry_after: float | None, charged: bool) -> ModelError:
    return ModelError(message, retryable=retryable, retry_after=retry_after, charged=charged)


class Failed(CallboardError):
    """Ends the current task with a ``Failure``; raised by roles, tools and the agent loop."""

    code = "failed"

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def __reduce__(self) -> tuple[Any, ...]:
        return (Failed, (self.failure,))
