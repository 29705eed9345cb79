"""Replay: a run's state from its journal, and what of it may still be on its way between the coordinator that wrote it and its hosts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator import reducer
from orchestrator.journal.port import Journal
from orchestrator.reducer.state import Fetch, RunState
from protocols import codec
from protocols import messages as m
from protocols.envelope import Envelope
from protocols.failures import StorageError

_HEARD = (m.ModelCalled, m.ToolIntended, m.ToolCalled, m.LeaseAsked, m.SubtasksAsked)
_ANSWERS = (m.LeaseGranted, m.LeaseDenied, m.SubtasksEnded)


@dataclass(slots=True)
class Loose:
    """Of an attempt at work: the answers that its host may not have got, and hashes of what it said, which it may say again."""

    answers: list[bytes] = field(default_factory=list)
    heard: set[int] = field(default_factory=set)


def reader(journal: Journal) -> Fetch:
    """Reads values, from the journal's blobs if need be."""

    def fetch(value: m.Value) -> Any:
        return value.inline if value.blob is None else codec.unpack_value(journal.get_blob(value.blob.digest))

    return fetch


def replay(journal: Journal, run: str) -> RunState:
    """The state of ``run`` after its newest entry: every entry folded, and what was decided ignored, for it is in the journal too.

    Raises ``StorageError`` for a journal that does not begin with the run's request.
    """
    state: RunState | None = None
    for _, after in _folded(journal, run):
        state = after
    if state is None:
        raise StorageError(f"run {run!r} has no entries; there is nothing to go on from")
    return state


def replay_with_loose(journal: Journal, run: str) -> tuple[RunState, dict[str, Loose]]:
    """As ``replay``; and, by task, what may be loose of the attempts that are at work."""
    state: RunState | None = None
    loose: dict[str, Loose] = {}
    for (body, packed), after in _folded(journal, run):
        state = after
        if isinstance(body, m.Dispatched):
            loose.update((item.task, Loose()) for item in body.items)
        elif isinstance(body, m.TaskEnded):
            loose.pop(body.task, None)
        elif isinstance(body, _HEARD) and body.task in loose:
            loose[body.task].heard.add(hash(packed))
        elif isinstance(body, _ANSWERS) and body.task in loose:
            loose[body.task].answers.append(packed)
    if state is None:
        raise StorageError(f"run {run!r} has no entries; there is nothing to go on from")
    return state, {task: one for task, one in loose.items() if state.tasks[task].at_work}


def _folded(journal: Journal, run: str) -> Iterator[tuple[tuple[m.Message, bytes], RunState]]:
    state: RunState | None = None
    fetch = reader(journal)
    for entry in journal.read(run):
        body = codec.unpack(entry.body)
        if state is None:
            if not isinstance(body, m.RunRequested):
                raise StorageError(f"run {run!r} does not begin with its request; its journal is damaged")
            state = reducer.begin(run, entry.at, body)
        state, _ = reducer.step(state, Envelope(run, entry.seq, entry.at, body), fetch)
        yield (body, entry.body), state
