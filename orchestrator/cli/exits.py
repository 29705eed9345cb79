"""Exit codes, and what each error leads to."""

from enum import IntEnum

from protocols.failures import CallboardError, Failed, Failure, StorageError, UnknownMessage, Verdict
from protocols.messages import Status


class Exit(IntEnum):
    """How ``callboard`` ends."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    BUDGET = 3
    CANCELLED = 4
    PARTIAL = 5
    STORAGE = 6
    INTERRUPTED = 130
    TERMINATED = 143


_BY_STATUS = {
    Status.DONE: Exit.DONE,
    Status.PARTIAL: Exit.PARTIAL,
    Status.FAILED: Exit.FAILED,
    Status.BUDGET: Exit.BUDGET,
    Status.CANCELLED: Exit.CANCELLED,
    Status.RUNNING: Exit.FAILED,
}


def of_run(status: Status, failure: Failure | None) -> Exit:
    """The code of a run that ended. One that failed for lack of budget or time ends as budget does."""
    if status is Status.FAILED and failure and failure.verdict in (Verdict.BUDGET, Verdict.DEADLINE):
        return Exit.BUDGET
    return _BY_STATUS[status]


def of_error(error: CallboardError) -> Exit:
    """The code of an error that ended the command."""
    if isinstance(error, StorageError | UnknownMessage):
        return Exit.STORAGE
    if isinstance(error, Failed):
        return of_run(Status.FAILED, error.failure)
    return Exit.BAD_INPUT if error.code == "bad_input" else Exit.FAILED
