"""Commands over many runs: one that can't be read is named and left out, and the others are served."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from orchestrator.cli import exits, streams
from orchestrator.journal.port import RunRow
from protocols.failures import CallboardError, StorageError, UnknownMessage

T = TypeVar("T")


class Skipping:
    """Reads runs one after another; ``exit`` is the code that says whether all could be read."""

    def __init__(self) -> None:
        self.exit = exits.Exit.DONE

    def each(self, rows: Iterable[RunRow], read: Callable[[RunRow], T]) -> Iterator[T]:
        """What ``read`` makes of each run."""
        for row in rows:
            try:
                yield read(row)
            except (StorageError, UnknownMessage) as error:
                self.skip(row.run, error)

    def skip(self, run: str, error: CallboardError) -> None:
        """Leave out one run, and say why."""
        streams.note(f"{run} is left out: {error}")
        self.exit = max(self.exit, exits.of_error(error))
