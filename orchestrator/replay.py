"""Replay: a run's state from its journal."""

from typing import Any

from orchestrator import reducer
from orchestrator.journal.port import Journal
from orchestrator.reducer.state import Fetch, RunState
from protocols import codec
from protocols.envelope import Envelope
from protocols.failures import StorageError
from protocols.messages import RunRequested, Value


def reader(journal: Journal) -> Fetch:
    """Reads values, from the journal's blobs if need be."""

    def fetch(value: Value) -> Any:
        return value.inline if value.blob is None else codec.unpack_value(journal.get_blob(value.blob.digest))

    return fetch


def replay(journal: Journal, run: str) -> RunState:
    """The state of ``run`` after its newest entry: every entry folded, and what was decided ignored, for it is in the journal too.

    Raises ``StorageError`` for a journal that does not begin with the run's request.
    """
    state: RunState | None = None
    fetch = reader(journal)
    for entry in journal.read(run):
        body = codec.unpack(entry.body)
        if state is None:
            if not isinstance(body, RunRequested):
                raise StorageError(f"run {run!r} does not begin with its request; its journal is damaged")
            state = reducer.begin(run, entry.at, body)
        state, _ = reducer.step(state, Envelope(run, entry.seq, entry.at, body), fetch)
    if state is None:
        raise StorageError(f"run {run!r} has no entries; there is nothing to go on from")
    return state
