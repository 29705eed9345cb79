"""A run's output, read back from its journal."""

from typing import Any

from orchestrator.journal.port import Journal
from orchestrator.observe.history import History, unpacked
from protocols import codec
from protocols.messages import RunEnded, Status, TaskEnded, Value

_PAGE = 200  # results fetched at a time


def output(journal: Journal, history: History) -> Any:
    """What the run of ``history`` (read to its end) came to: the merged output, or its results when nothing merged them.

    ``None`` for a run that has not ended, failed or was cancelled. Raises ``StorageError`` when a blob of it is missing.
    """
    if not history.end:
        return None
    [entry] = journal.pick(history.run, [history.end])
    end = unpacked(entry)
    assert isinstance(end, RunEnded)
    if end.output is not None:
        return content(journal, end.output)
    return None if end.status in (Status.FAILED, Status.CANCELLED) else results(journal, history)


def results(journal: Journal, history: History) -> list[Any]:
    """The outputs of the tasks that are the run's results, in plan order."""
    seqs = history.results()
    found: list[Any] = []
    for at in range(0, len(seqs), _PAGE):
        page = seqs[at : at + _PAGE]
        entries = {entry.seq: entry for entry in journal.pick(history.run, page)}
        for seq in page:
            ended = unpacked(entries[seq])
            assert isinstance(ended, TaskEnded)
            found.append(content(journal, ended.output))
    return found


def content(journal: Journal, value: Value | None) -> Any:
    """The JSON value that ``value`` holds or refers to."""
    if value is None:
        return None
    return value.inline if value.blob is None else codec.unpack_value(journal.get_blob(value.blob.digest))
