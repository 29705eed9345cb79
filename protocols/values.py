"""What messages speak of: content and values, how a run stands, what people decide."""

from enum import StrEnum
from typing import Any

from protocols.record import Record


class BlobRef(Record):
    """Content by its SHA-256 digest (hexadecimal) and size in bytes. A message refers to blobs by these alone: stores look for them."""

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


class ReviewKind(StrEnum):
    """What a person has to decide about."""

    EFFECT_IN_DOUBT = "effect_in_doubt"  # a write began, and nobody can say whether it happened
    FALLBACK = "fallback"  # an agent failed, and its role has a person give the output instead


class Decision(StrEnum):
    """What a person decided."""

    DONE = "done"  # it happened: it is not made again
    NOT_DONE = "not_done"  # it did not happen: it is made now
    RETRY = "retry"  # look again: the tool's reconcile function is asked once more
    FAIL = "fail"  # the task ends, and the doubt is its failure
