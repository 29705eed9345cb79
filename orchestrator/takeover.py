"""Taking over from a coordinator that is gone: its runs are fenced off, read back, and joined to what hosts still have of them."""

from collections.abc import Iterable

from orchestrator.journal.port import Journal
from orchestrator.live import LiveRun
from orchestrator.observe.logs import get_logger
from orchestrator.replay import replay_with_loose
from orchestrator.sides import Place
from protocols.failures import StorageError, UnknownMessage

log = get_logger("takeover")


def read_own(journal: Journal, owner: str) -> dict[str, LiveRun]:
    """The runs of ``owner`` that have not ended, not yet joined; whoever had them can append no more. Blocks."""
    own = {}
    for row in journal.runs() if owner else ():
        if row.owner == owner and row.seq and not row.ended:
            epoch = journal.claim(row.run, owner)
            try:
                state, loose = replay_with_loose(journal, row.run)
            except (StorageError, UnknownMessage) as error:
                log.error("a run can't be read back", run=row.run, why=str(error))
                continue
            own[row.run] = LiveRun(state, epoch, joined=False, loose=loose)
    return own


def places(runs: Iterable[LiveRun]) -> dict[str, list[Place]]:
    """By host, what it has of the runs that are not joined yet, as the journal says."""
    found: dict[str, list[Place]] = {}
    for here in runs:
        if here.is_at_work and not here.joined:
            for name, me in here.state.tasks.items():
                if me.at_work and me.host is not None:
                    found.setdefault(me.host, []).append((here.state.run, name, me.attempt))
    return found
