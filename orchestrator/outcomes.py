"""How tasks ended, on their way from the coordinator to whoever asks: pages of them, so that no message holds a whole run."""

from itertools import islice
from typing import Any, NamedTuple

from orchestrator.reducer.state import RunState
from protocols import codec
from protocols.budget import NOTHING, Usage
from protocols.envelope import BATCH_BYTES
from protocols.failures import Failure
from protocols.messages import BlobRef, FellBack, Value
from protocols.record import Record


class TaskOutcome(Record):
    """How one task ended. ``status`` is a phase: done, failed, or where it stood when the run ended; ``seconds`` is wall time.

    ``fallbacks`` says who failed at it and took over, in order: what the last one gave is the output, and ``role`` is the last role.
    ``is_result``: its output is one of the run's results, because no other task of the plan takes it. ``shortened`` counts its model calls
    whose replies could have fewer tokens than its role asks for, because there was no room for more. ``entries`` are the numbers of those
    of the run's journal that show how it failed: its last steps, and its end.
    """

    task: str
    role: str
    status: str
    output: Any = None
    failure: Failure | None = None
    usage: Usage = NOTHING
    seconds: float = 0.0
    attempts: int = 0
    fallbacks: tuple[FellBack, ...] = ()
    is_result: bool = False
    shortened: int = 0
    entries: tuple[int, ...] = ()


class Row(NamedTuple):
    """One task of a page: its outcome, and the blob that holds its output, if one does."""

    outcome: TaskOutcome
    blob: BlobRef | None


def page(state: RunState, start: int) -> bytes:
    """The tasks from number ``start`` on, as many as fit into a batch (at least one), packed; ``rows`` reads it."""
    found: list[bytes] = []
    size = 0
    for one in islice(state.tasks.values(), start, None):
        output = one.output or Value()
        row = codec.pack_value(
            [
                one.task.id,
                one.task.role,
                one.phase.name.lower(),
                output.inline,
                output.blob.model_dump() if output.blob else None,
                one.failure.model_dump() if one.failure else None,
                one.usage.model_dump(exclude_defaults=True) if one.usage is not NOTHING else None,
                one.ended - one.began if one.began and one.ended else 0,
                one.attempt,
                [fallen.model_dump(mode="json", exclude_defaults=True) for fallen in one.fallen],
                one.is_result,
                one.shortened,
                one.entries,
            ]
        )
        size += len(row)
        if size > BATCH_BYTES and found:
            break
        found.append(row)
    return codec.pack_value([len(state.tasks), found])


def rows(packed: bytes) -> tuple[int, list[Row]]:
    """How many tasks the run has, and the rows of this page."""
    total, found = codec.unpack_value(packed)
    made = []
    for row in found:
        task, role, status, output, blob, failure, usage, milliseconds, attempts, fallbacks, is_result, shortened, entries = (
            codec.unpack_value(row)
        )
        outcome = TaskOutcome(
            task=task,
            role=role,
            status=status,
            output=output,
            failure=failure,
            usage=usage or NOTHING,
            seconds=milliseconds / 1000,
            attempts=attempts,
            fallbacks=fallbacks,
            is_result=is_result,
            shortened=shortened,
            entries=entries,
        )
        made.append(Row(outcome, BlobRef.model_validate(blob) if blob else None))
    return total, made
