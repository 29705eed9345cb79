"""How tasks ended, on their way from the coordinator to whoever asks: pages of them, so that no message holds a whole run."""

from itertools import islice
from typing import Any, NamedTuple

from orchestrator.reducer.state import RunState
from protocols import codec
from protocols.budget import Usage
from protocols.envelope import BATCH_BYTES
from protocols.failures import Failure
from protocols.messages import Value
from protocols.record import Record

PAGE = 500


class TaskOutcome(Record):
    """How one task ended. ``status`` is a phase: done, failed, or where it stood when the run ended; ``seconds`` is wall time."""

    task: str
    role: str
    status: str
    output: Any = None
    failure: Failure | None = None
    usage: Usage = Usage()
    seconds: float = 0.0
    attempts: int = 0


class Row(NamedTuple):
    """One task of a page: its outcome, still without its output, which may be in a blob; and whether it is a result of the run."""

    outcome: TaskOutcome
    output: Value | None
    is_result: bool


def page(state: RunState, start: int) -> bytes:
    """The tasks from number ``start`` on, as many as fit, packed; ``rows`` reads it."""
    found: list[Any] = []
    size = 0
    for one in islice(state.tasks.values(), start, start + PAGE):
        found.append(
            [
                one.task.id,
                one.task.role,
                one.phase.name.lower(),
                one.output.model_dump(exclude_defaults=True) if one.output else None,
                one.failure.model_dump() if one.failure else None,
                one.usage.model_dump(exclude_defaults=True),
                one.ended - one.began if one.began and one.ended else 0,
                one.attempt,
                one.is_result,
            ]
        )
        size += 200
        if size > BATCH_BYTES:
            break
    return codec.pack_value([len(state.tasks), found])


def rows(packed: bytes) -> tuple[int, list[Row]]:
    """How many tasks the run has, and the rows of this page."""
    total, found = codec.unpack_value(packed)
    made = []
    for task, role, status, output, failure, usage, milliseconds, attempts, is_result in found:
        outcome = TaskOutcome(
            task=task, role=role, status=status, failure=failure, usage=usage, seconds=milliseconds / 1000, attempts=attempts
        )
        made.append(Row(outcome, None if output is None else Value.model_validate(output), is_result))
    return total, made
