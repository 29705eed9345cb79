"""What every store checks before it appends, in one place: the writer's epoch, and numbers without gaps. Pure."""

from collections.abc import Sequence

from orchestrator.journal.port import Entry, RunRow
from protocols.failures import StaleEpoch, StorageError
from protocols.messages import RunEnded, RunResumed

_ENDS = {RunEnded.__name__: True, RunResumed.__name__: False}


def by_run(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """``entries`` by their run, in the order given."""
    said: dict[str, list[Entry]] = {}
    for entry in entries:
        said.setdefault(entry.run, []).append(entry)
    return said


def advance(row: RunRow | None, entries: Sequence[Entry], epoch: int | None) -> RunRow:
    """The row of one run once ``entries`` (at least one, all of that run) follow what it holds; ``epoch`` is the writer's.

    Raises ``StaleEpoch`` when the run is not at ``epoch``, ``StorageError`` for a run that nobody claimed and for a number that
    exists already or leaves a gap.
    """
    run = entries[0].run
    if row is None or epoch is None:
        raise _never(f"run {run} can't be appended to: it was not claimed by this writer; call claim() first")
    if row.epoch != epoch:
        raise StaleEpoch(
            f"run {run} is at epoch {row.epoch} and this writer holds {epoch}: another coordinator took it over and nothing was "
            f"written; stop this one"
        )
    for due, entry in enumerate(entries, row.seq + 1):
        if entry.seq != due:
            raise _never(f"run {run} holds {row.seq} entries and {due} is due, not {entry.seq}: read the run back and go on from it")
    began = row.began if row.seq else entries[0].at
    ended = ended_by(entries)
    return row._replace(seq=row.seq + len(entries), began=began, last=entries[-1].at, ended=row.ended if ended is None else ended)


def ended_by(entries: Sequence[Entry]) -> bool | None:
    """Whether a run has ended after ``entries``; ``None`` when they leave that as it was."""
    return next((_ENDS[entry.tag] for entry in reversed(entries) if entry.tag in _ENDS), None)


def deletable(run: str, row: RunRow | None, epoch: int) -> None:
    """Raises unless the run is there and still at ``epoch``."""
    if row is None:
        raise _never(f"run {run} is not in this journal; `callboard runs` lists those there are")
    if row.epoch != epoch:
        raise StaleEpoch(f"run {run} is at epoch {row.epoch} and not {epoch}: somebody took it up meanwhile, and it was left as it is")


def _never(sentence: str) -> StorageError:
    """An error that the same call would meet again."""
    error = StorageError(sentence)
    error.retryable = False
    return error
