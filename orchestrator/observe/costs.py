"""What runs cost and who pays, folded from the journal: tokens, calls and exact money, by run, user, role, model, task or day.

The rows add up to the ledgers of the runs, to the micro-unit: what calls used, and what was written off with lost hosts. What a fork
shares with the run that it was forked from was paid once, there. Entries are read as a stream, and only those that count are unpacked.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from orchestrator.journal.port import Entry, Journal, RunRow
from orchestrator.ledger import as_usage, least, minus, plus
from orchestrator.observe.history import unpacked
from protocols.budget import NOTHING, ZERO, Amount, Tally, Usage, amount
from protocols.messages import (
    AttemptsLost,
    Dispatched,
    FellBack,
    LeaseGranted,
    ModelCalled,
    ReviewAsked,
    RunRequested,
    RunResumed,
    TaskEnded,
    TasksAdded,
    ToolCalled,
)
from protocols.record import Record

NO_MODEL = ""
"""The key, by model, of what no model used: tool calls, and leases that were written off."""

_ONE_TOOL_CALL = Usage(tool_calls=1)
_LOSSES = (AttemptsLost.__name__, RunResumed.__name__)


class By(StrEnum):
    """What the rows of a cost report stand for."""

    RUN = "run"
    USER = "user"
    ROLE = "role"
    MODEL = "model"
    TASK = "task"
    DAY = "day"


class Cost(Record):
    """One row. ``key`` is a run's id, a user, role, model or day (``2026-01-31``, UTC), or ``RUN/TASK``.

    ``lost`` marks what was written off with lost hosts: leases of which nobody can say how much was used, so that all of it counts.
    Their tokens stand as input tokens. ``unpriced`` counts model calls whose price is not known: their money is not in ``usage``.
    """

    key: str
    usage: Usage = NOTHING
    unpriced: int = 0
    lost: bool = False


@dataclass(slots=True)
class _Sum:
    used: Tally = field(default_factory=Tally)
    unpriced: int = 0


class Costs:
    """The sums over any number of runs. ``add`` runs; read ``rows`` at any time. ``since`` is in milliseconds (UTC)."""

    def __init__(self, by: By, since: int = 0) -> None:
        self.by, self.since = by, since
        self.shared = Tally()
        """What the ledgers of forks hold and no row does, because it was paid by the run that they were forked from."""
        self._sums: dict[tuple[str, bool], _Sum] = {}

    def add(self, journal: Journal, run: str) -> None:
        """Take in a run as it stands in ``journal``."""
        account = _Account(self, journal, run)
        lost = 0
        for entry in journal.read(run):
            account.take(entry)
            if entry.tag in _LOSSES:
                lost = entry.seq
        if lost:  # what they held only shows from the leases before them, which otherwise nobody needs to read
            for name, entry, held in written_off(journal.read(run, 0, lost)):
                account.lose(name, entry, held)

    def rows(self) -> list[Cost]:
        """Every row, the dearest first, what was lost behind what was used; days in their order."""
        found = [Cost(key=key, usage=total.used.total(), unpriced=total.unpriced, lost=lost) for (key, lost), total in self._sums.items()]
        whole: dict[str, tuple[int, int, int]] = {}
        for row in found:
            before = whole.get(row.key, (0, 0, 0))
            calls = row.usage.model_calls + row.usage.tool_calls
            whole[row.key] = (before[0] - row.usage.micros, before[1] - row.usage.tokens, before[2] - calls)
        ordered = (0, 0, 0)
        return sorted(found, key=lambda row: (ordered if self.by is By.DAY else whole[row.key], row.key, row.lost))

    def total(self) -> Cost:
        """The sum of all rows."""
        used = Tally()
        for one in self._sums.values():
            used.add(one.used.total())
        return Cost(key="", usage=used.total(), unpriced=sum(one.unpriced for one in self._sums.values()))

    def use(self, key: str, used: Usage, *, unpriced: bool = False, lost: bool = False) -> None:
        """Add what was used to the row ``key``."""
        total = self._sums.get((key, lost))
        if total is None:
            total = self._sums[key, lost] = _Sum()
        total.used.add(used)
        total.unpriced += unpriced


class _Account:
    """One run's way into the sums: which row an entry belongs to."""

    def __init__(self, costs: Costs, journal: Journal, run: str) -> None:
        self._costs, self._journal, self._run, self._by, self._since = costs, journal, run, costs.by, costs.since
        self._user = ""
        self._shared = 0  # the last entry that a fork has from another run
        self._roles: dict[str, str] = {}

    def take(self, entry: Entry) -> None:
        """Sum up an entry, if it is one that costs or says who pays."""
        if entry.tag == ModelCalled.__name__ and entry.at >= self._since:
            said = unpacked(entry)
            assert isinstance(said, ModelCalled)
            self._use(entry, said.task, said.model, said.usage, unpriced=is_unpriced(said))
        elif entry.tag == ToolCalled.__name__ and entry.at >= self._since:
            tool = unpacked(entry)
            assert isinstance(tool, ToolCalled)
            if tool.ran:
                self._use(entry, tool.task, NO_MODEL, _ONE_TOOL_CALL)
        elif entry.tag == RunRequested.__name__:
            asked = unpacked(entry)
            assert isinstance(asked, RunRequested)
            self._user = asked.user
            if asked.forked and self._journal.row(asked.forked[0]) is not None:  # else nobody but the fork still tells of it
                self._shared = asked.forked[1]
        elif entry.tag == TasksAdded.__name__ and self._by is By.ROLE:
            added = unpacked(entry)
            assert isinstance(added, TasksAdded)
            self._roles.update((task.id, task.role) for task in added.tasks)
        elif entry.tag == FellBack.__name__ and self._by is By.ROLE:
            fell = unpacked(entry)
            assert isinstance(fell, FellBack)
            self._roles[fell.task] = fell.to.role or fell.role

    def lose(self, task: str, entry: Entry, held: Amount) -> None:
        """Sum up a lease that was written off with ``entry``."""
        if entry.at >= self._since:
            self._use(entry, task, NO_MODEL, as_usage(held), lost=True)

    def _use(self, entry: Entry, task: str, model: str, used: Usage, *, unpriced: bool = False, lost: bool = False) -> None:
        if entry.seq <= self._shared:
            self._costs.shared.add(used)
        else:
            self._costs.use(self._key(task, model, entry.at), used, unpriced=unpriced, lost=lost)

    def _key(self, task: str, model: str, at: int) -> str:
        match self._by:
            case By.RUN:
                return self._run
            case By.USER:
                return self._user
            case By.ROLE:
                return self._roles.get(task, "")
            case By.MODEL:
                return model
            case By.TASK:
                return f"{self._run}/{task}"
            case By.DAY:
                return datetime.fromtimestamp(at / 1000, UTC).date().isoformat()


def is_unpriced(said: ModelCalled) -> bool:
    """Whether the money that a call cost is not known. Of a call before schema 2 it is, where it counts no money."""
    return said.usage.tokens > 0 and not (said.usage.micros if said.priced is None else said.priced)


def written_off(entries: Iterable[Entry]) -> Iterator[tuple[str, Entry, Amount]]:
    """What agents held when their hosts were lost, as (task, entry, amount): leases, less what was settled, as the ledger counts."""
    held: dict[str, Amount] = {}
    attempts: dict[str, int] = {}
    for entry in entries:
        if entry.tag not in _LEASES:
            continue
        said = unpacked(entry)
        if isinstance(said, ModelCalled | ToolCalled):
            if (lease := held.get(said.task)) and (isinstance(said, ModelCalled) or said.ran):
                used = amount(said.usage if isinstance(said, ModelCalled) else _ONE_TOOL_CALL)
                held[said.task] = minus(lease, least(lease, used))
        elif isinstance(said, Dispatched):
            for item in said.items:
                attempts[item.task] = item.attempt
                if item.lease is not None:
                    held[item.task] = plus(held.get(item.task, ZERO), amount(item.lease))
        elif isinstance(said, LeaseGranted):
            held[said.task] = plus(held.get(said.task, ZERO), amount(said.lease))
        elif isinstance(said, TaskEnded | ReviewAsked):
            if attempts.get(said.task) == said.attempt:
                held.pop(said.task, None)
        elif isinstance(said, AttemptsLost | RunResumed):
            if isinstance(said, RunResumed):
                gone = [name for name in held if (name, attempts.get(name)) not in said.kept]
            else:
                gone = [name for name, number in said.tasks if attempts.get(name) == number]
            for name in gone:
                if any(lease := held.pop(name, ZERO)) and not said.returned:
                    yield name, entry, lease


_LEASES = {kind.__name__ for kind in (AttemptsLost, Dispatched, LeaseGranted, ModelCalled, ReviewAsked, RunResumed, TaskEnded, ToolCalled)}


def runs_since(journal: Journal, rows: Iterable[RunRow], since: int = 0, user: str | None = None) -> Iterator[RunRow]:
    """Those of the runs of which something was said since then (milliseconds, UTC) and that ``user`` asked for."""
    for row in rows:
        if row.seq and row.last >= since and (user is None or _asked_by(journal, row.run) == user):
            yield row


def _asked_by(journal: Journal, run: str) -> str:
    first = [unpacked(entry) for entry in journal.pick(run, [1])]
    return first[0].user if first and isinstance(first[0], RunRequested) else ""
