"""How runs failed, folded from the journal: every failed task by verdict, with the entries that say so."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from orchestrator.journal.port import Entry, Journal
from orchestrator.observe.history import History, unpacked
from orchestrator.observe.summary import State
from protocols.failures import MODES, Failure, Severity, Verdict
from protocols.messages import ModelCalled, ToolCalled
from protocols.record import Record

MOST_EVIDENCE = 100
"""Entries that one row names."""

_SEVERITIES = list(Severity)


class By(StrEnum):
    """What the rows of a failure report stand for, besides the verdict."""

    MODE = "mode"
    ROLE = "role"
    MODEL = "model"
    RUN = "run"


class FailedTask(Record):
    """One task that failed; an empty ``task`` is the run itself, where no task's failure says why it ended so.

    ``entry`` is the number of the entry that says so; ``model`` the one asked last, empty without.
    """

    run: str
    task: str
    role: str
    entry: int
    at: int
    failure: Failure
    model: str = ""


class Evidence(Record):
    """An entry of a run's journal that says that a task failed."""

    run: str
    task: str
    entry: int


class Failures(Record):
    """All failures of one verdict, of one role, model or run (``key``; empty by mode).

    ``retryable`` counts those where trying again may help, ``message`` is the newest one's, and ``evidence`` names up to
    ``MOST_EVIDENCE`` of them, newest run first.
    """

    key: str
    verdict: Verdict
    severity: Severity
    count: int
    retryable: int
    message: str
    evidence: tuple[Evidence, ...]


def failed(journal: Journal, run: str, since: int = 0, *, models: bool = False) -> Iterator[FailedTask]:
    """The tasks of ``run`` that failed for good since then (milliseconds, UTC); ``models`` reads the model calls too.

    What failed before a fork is reported of the run that it was forked from.
    """
    asked: dict[str, str] = {}
    history = History(run).read(_told(journal.read(run), asked if models else None))
    summary = history.summary()
    shared = summary.forked[1] if summary.forked else 0
    verdicts = set()
    for task in history.tasks():
        if task.state is State.FAILED and task.failure is not None:
            verdicts.add(task.failure.verdict)
            if task.ended >= since and task.entry > shared:
                model = asked.get(task.task, "")
                yield FailedTask(
                    run=run, task=task.task, role=task.role, entry=task.entry, at=task.ended, failure=task.failure, model=model
                )
    if summary.failure is not None and summary.failure.verdict not in verdicts and (summary.ended or 0) >= since:
        yield FailedTask(run=run, task="", role="", entry=history.end, at=summary.ended or 0, failure=summary.failure)


def grouped(found: Iterable[FailedTask], by: By) -> list[Failures]:
    """``found`` by verdict and ``by``: the most severe first, then the most frequent."""
    groups: dict[tuple[str, Verdict], list[FailedTask]] = {}
    for one in found:
        groups.setdefault((_key(one, by), one.failure.verdict), []).append(one)
    rows = [
        Failures(
            key=key,
            verdict=verdict,
            severity=MODES[verdict].severity,
            count=len(ones),
            retryable=sum(one.failure.retryable for one in ones),
            message=max(ones, key=lambda one: one.at).failure.message,
            evidence=tuple(Evidence(run=one.run, task=one.task, entry=one.entry) for one in ones[:MOST_EVIDENCE]),
        )
        for (key, verdict), ones in groups.items()
    ]
    return sorted(rows, key=lambda row: (-_SEVERITIES.index(row.severity), -row.count, row.key, row.verdict))


def _key(one: FailedTask, by: By) -> str:
    match by:
        case By.MODE:
            return ""
        case By.ROLE:
            return one.role
        case By.MODEL:
            return one.model
        case By.RUN:
            return one.run


def _told(entries: Iterable[Entry], asked: dict[str, str] | None) -> Iterator[Entry]:
    """What tells how tasks stand. Calls, most of a journal, do not: they are not unpacked, except for who was ``asked``."""
    for entry in entries:
        if entry.tag == ModelCalled.__name__:
            if asked is not None:
                said = unpacked(entry)
                assert isinstance(said, ModelCalled)
                asked[said.task] = said.model
        elif entry.tag != ToolCalled.__name__:
            yield entry
