"""What happened in a run, folded from its journal in one pass: how the run and each of its tasks stand, and what they cost.

The fold keeps one small record a task and no contents, so a run of 100,000 tasks fits in some tens of megabytes. The same fold
feeds the live progress (from envelopes) and every report (from entries): they cannot disagree.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from orchestrator.journal.port import Entry, Journal, RunRow
from orchestrator.observe.figures import brief
from orchestrator.observe.summary import RoleSummary, RunSummary, State, TaskSummary
from protocols import codec
from protocols.budget import Usage
from protocols.failures import Failure, UnknownMessage
from protocols.messages import (
    AttemptsLost,
    CancelRequested,
    ContinueRequested,
    DeadlinePassed,
    Decision,
    Dispatched,
    FellBack,
    Message,
    ModelCalled,
    PauseRequested,
    ReviewAsked,
    ReviewDecided,
    ReviewKind,
    RunEnded,
    RunRequested,
    RunResumed,
    Status,
    TaskClosed,
    TaskEnded,
    TasksAdded,
    ToolCalled,
)
from protocols.plan import refs
from protocols.team import PLANNER

GOAL_WIDTH = 80
"""Characters of the goal that a summary keeps."""

_Counts = tuple[int, int, int, int, int, int]  # the fields of Usage, in their order
_NO_COUNTS: _Counts = (0, 0, 0, 0, 0, 0)
_ONE_TOOL_CALL: _Counts = (0, 0, 0, 0, 1, 0)


class _Task:
    __slots__ = (
        "attempt", "attempts", "before", "began", "counts", "dispatched", "ended", "entry", "failure", "fallen", "gave_up", "host", "lost",
        "merge", "parent", "planned", "role", "shortened", "spent", "state", "taken",
    )  # fmt: skip

    def __init__(self, role: str, parent: str | None, merge: bool) -> None:
        self.role, self.parent, self.merge = role, parent, merge
        self.state = State.WAITING
        self.planned = parent is None and not merge and role != PLANNER
        self.attempt = self.attempts = self.before = self.lost = self.entry = self.shortened = 0
        self.fallen: tuple[FellBack, ...] = ()
        self.began = self.ended = self.dispatched = self.spent = 0
        self.counts = _NO_COUNTS
        self.host: str | None = None
        self.failure: Failure | None = None
        self.taken = self.gave_up = False

    @property
    def waits_for_output(self) -> bool:
        """Whether what it fell back to is no role."""
        return bool(self.fallen) and not self.fallen[-1].to.by_host


class _Tally:
    __slots__ = ("counts", "cut", "shortened", "spent", "states")

    def __init__(self) -> None:
        self.states = dict.fromkeys(State, 0)
        self.counts = _NO_COUNTS
        self.spent = self.cut = self.shortened = 0


class History:
    """The fold of one run. ``add`` what was said, in order; read ``summary`` and ``tasks`` at any time."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.counts = dict.fromkeys(State, 0)
        """Tasks by state, at this moment."""
        self._tasks: dict[str, _Task] = {}
        self._roles: dict[str, _Tally] = {}
        self._models: dict[str, _Counts] = {}
        self._used = _NO_COUNTS
        self._began = self._last = self._before = self._resumed = self._lost = 0
        self._ended: int | None = None
        self._request: RunRequested | None = None
        self._goal = ""
        self._end: RunEnded | None = None
        self._end_entry = 0
        self._stopping = self._paused = self._forking = False
        self._taken_early: set[str] = set()
        self._reviews: dict[str, int] = {}  # the steps of the tasks in review
        self._planned = self._planned_done = self._planned_failed = 0
        self._handlers: dict[str, Callable[[Any, int, int], None]] = {
            RunRequested.__name__: self._requested,
            CancelRequested.__name__: self._stop,
            DeadlinePassed.__name__: self._stop,
            PauseRequested.__name__: self._rest,
            ContinueRequested.__name__: self._rest,
            RunResumed.__name__: self._taken_over,
            TasksAdded.__name__: self._added,
            Dispatched.__name__: self._dispatched,
            ModelCalled.__name__: self._model_called,
            ToolCalled.__name__: self._tool_called,
            ReviewAsked.__name__: self._review_asked,
            ReviewDecided.__name__: self._review_decided,
            TaskEnded.__name__: self._task_ended,
            TaskClosed.__name__: self._task_closed,
            FellBack.__name__: self._fell_back,
            AttemptsLost.__name__: self._attempts_lost,
            RunEnded.__name__: self._run_ended,
        }

    def add(self, message: Message, at: int, seq: int = 0) -> None:
        """Take in one message that was said ``at`` (milliseconds, UTC) as entry ``seq``."""
        self._meet(at)
        if handler := self._handlers.get(type(message).__name__):
            handler(message, at, seq)

    def read(self, entries: Iterable[Entry]) -> "History":
        """Take in ``entries``. Raises ``UnknownMessage`` for one that this callboard can't read."""
        for entry in entries:
            self._meet(entry.at)
            # what tells nothing about state or cost is not even unpacked
            if handler := self._handlers.get(entry.tag):
                handler(unpacked(entry), entry.at, entry.seq)
        return self

    @property
    def usage(self) -> Usage:
        """The sum over all calls so far."""
        return _usage(self._used)

    @property
    def team(self) -> str:
        """The team's name; empty before the request was met."""
        return self._request.team.name if self._request else ""

    def task(self, task: str) -> TaskSummary | None:
        """One task, or ``None`` when the run has none of this id."""
        found = self._tasks.get(task)
        return None if found is None else _summary(task, found)

    def tasks(self) -> Iterator[TaskSummary]:
        """Every task, in the order added."""
        return (_summary(task, found) for task, found in self._tasks.items())

    def results(self) -> list[int]:
        """The entries that hold the run's results, in plan order: of tasks that succeeded and whose output no other takes."""
        tasks = self._tasks.values()
        return [task.entry for task in tasks if task.planned and task.state is State.DONE and not task.taken]

    @property
    def end(self) -> int:
        """The entry that ended the run; 0 when it has not ended."""
        return self._end_entry if self._end else 0

    def summary(self) -> RunSummary:
        """How the run stands."""
        request, end = self._request, self._end
        return RunSummary(
            run=self.run,
            team=self.team,
            goal=self._goal,
            user=request.user if request else "",
            target=request.target if request else None,
            traceparent=request.traceparent if request else None,
            forked=request.forked if request else None,
            status=end.status if end else Status.RUNNING,
            began=self._began,
            last=self._last,
            ended=self._ended,
            resumed=self._resumed,
            lost=self._lost,
            tasks=dict(self.counts) if self._tasks else {},
            planned=self._planned,
            succeeded=self._planned_done,
            failed=self._planned - self._planned_done if end else self._planned_failed,
            paused=self._paused and end is None,
            roles={name: _role(tally) for name, tally in self._roles.items()},
            models={name: _usage(counts) for name, counts in self._models.items()},
            usage=self.usage,
            failure=end.failure if end else None,
        )

    def _meet(self, at: int) -> None:
        self._began = self._began or at
        self._before, self._last = self._last, max(self._last, at)

    def _tally(self, role: str) -> _Tally:
        tally = self._roles.get(role)
        if tally is None:
            tally = self._roles[role] = _Tally()
        return tally

    def _move(self, task: _Task, state: State) -> None:
        states = self._tally(task.role).states
        self.counts[task.state] -= 1
        states[task.state] -= 1
        if task.planned:
            self._planned_done += (state is State.DONE) - (task.state is State.DONE)
            self._planned_failed += (state is State.FAILED) - (task.state is State.FAILED)
        task.state = state
        self.counts[state] += 1
        states[state] += 1

    def _use(self, name: str, used: _Counts) -> None:
        if task := self._tasks.get(name):
            self._used = _plus(self._used, used)
            task.counts = _plus(task.counts, used)
            tally = self._tally(task.role)
            tally.counts = _plus(tally.counts, used)

    def _work(self, task: _Task, milliseconds: int) -> None:
        task.spent += max(milliseconds, 0)
        self._tally(task.role).spent += max(milliseconds, 0)

    def _requested(self, said: RunRequested, at: int, seq: int) -> None:
        self._goal = brief(said.goal, GOAL_WIDTH) if said.goal is not None else ""
        self._request = said.model_copy(update={"goal": None, "plan": None})  # both may be large

    def _taken_over(self, said: RunResumed, at: int, seq: int) -> None:
        self._end, self._ended = None, None
        self._resumed += said.epoch > 1 and not self._forking  # that is when a fork first begins
        self._forking = said.returned
        if said.returned:
            self._began, self._resumed = at, 0
        kept = dict(said.kept)
        for name, task in self._tasks.items():
            if task.state is State.RUNNING and kept.get(name) != task.attempt:
                self._lose(task, self._before if said.returned else at, returned=said.returned)

    def _rest(self, said: Message, at: int, seq: int) -> None:
        self._paused = isinstance(said, PauseRequested)

    def _stop(self, said: Message, at: int, seq: int) -> None:
        self._stopping = True

    def _added(self, said: TasksAdded, at: int, seq: int) -> None:
        for new in said.tasks:
            if new.id in self._tasks:
                continue
            task = self._tasks[new.id] = _Task(new.role, said.parent, said.merge)
            self.counts[State.WAITING] += 1
            self._tally(new.role).states[State.WAITING] += 1
            if not task.planned:
                continue  # the merge and the delegated take outputs too, but results stay results
            self._planned += 1
            for name in refs(new.input):
                if taken := self._tasks.get(name):
                    taken.taken = True
                else:
                    self._taken_early.add(name)
            if self._taken_early and new.id in self._taken_early:
                task.taken = True
                self._taken_early.discard(new.id)

    def _dispatched(self, said: Dispatched, at: int, seq: int) -> None:
        for item in said.items:
            task = self._tasks.get(item.task)
            if task is None:
                continue
            task.attempt, task.host, task.dispatched, task.failure = item.attempt, item.host, at, None
            task.attempts += 1
            task.gave_up = False
            task.began = task.began or at
            self._move(task, State.RUNNING)

    def _model_called(self, said: ModelCalled, at: int, seq: int) -> None:
        used = _counts(said.usage)
        self._models[said.model] = _plus(self._models.get(said.model, _NO_COUNTS), used)
        self._use(said.task, used)
        if said.cut is not None and said.cut.how != "summary" and said.task in self._tasks:
            self._tally(self._tasks[said.task].role).cut += 1
        if said.shortened and said.task in self._tasks:
            task = self._tasks[said.task]
            task.shortened += 1
            self._tally(task.role).shortened += 1

    def _tool_called(self, said: ToolCalled, at: int, seq: int) -> None:
        if said.ran:
            self._use(said.task, _ONE_TOOL_CALL)

    def _review_asked(self, said: ReviewAsked, at: int, seq: int) -> None:
        task = self._tasks.get(said.task)
        if task is None or said.attempt != task.attempt or self._stopping:
            return
        fallen = said.kind is ReviewKind.FALLBACK
        if task.state is State.WAITING or (not fallen and (task.state is State.RUNNING or task.gave_up)):
            self._reviews[said.task] = said.step
            task.failure = None
            self._move(task, State.IN_REVIEW)

    def _review_decided(self, said: ReviewDecided, at: int, seq: int) -> None:
        task = self._tasks.get(said.task)
        waits = task is not None and task.state is State.IN_REVIEW and self._reviews.get(said.task) == said.step
        waits = waits and task is not None and said.attempt in (0, task.attempt)
        if task is not None and waits and not task.waits_for_output and said.decision is not Decision.FAIL:  # else its end follows
            self._move(task, State.WAITING)

    def _task_ended(self, said: TaskEnded, at: int, seq: int) -> None:
        task = self._tasks.get(said.task)
        if task is not None and task.waits_for_output and said.failure is None and task.state in (State.WAITING, State.IN_REVIEW):
            self._close(task, at, seq, None)  # what a person or a fixed answer gave
            return
        if task is None or task.state not in (State.RUNNING, State.IN_REVIEW) or said.attempt != task.attempt:
            return  # the word of an attempt that was given up
        if task.state is State.IN_REVIEW:
            self._work(task, said.ended - said.began)
            return
        self._work(task, said.ended - said.began if said.ended and said.began else at - task.dispatched)
        self._close(task, at, seq, said.failure)
        task.gave_up = said.failure is not None
        # it is tried again, as the reducer decides; until then it has not failed
        if said.failure and said.failure.retryable and said.attempt - task.before < self._attempts(task.role) and not self._stopping:
            self._move(task, State.WAITING)

    def _task_closed(self, said: TaskClosed, at: int, seq: int) -> None:
        task = self._tasks.get(said.task)
        if task is not None and (task.state in (State.WAITING, State.RUNNING, State.IN_REVIEW) or task.gave_up):
            self._close(task, at, seq, said.failure)
            task.gave_up = False

    def _fell_back(self, said: FellBack, at: int, seq: int) -> None:
        task = self._tasks.get(said.task)
        if task is None or task.state not in (State.WAITING, State.FAILED) or said.attempt != task.attempt:
            return
        self._move(task, State.WAITING)
        task.fallen, task.before, task.failure = (*task.fallen, said), said.attempt, None
        self._tally(task.role).states[State.WAITING] -= 1
        task.role = said.to.role or task.role
        self._tally(task.role).states[State.WAITING] += 1

    def _close(self, task: _Task, at: int, seq: int, failure: Failure | None) -> None:
        task.ended, task.entry, task.failure = at, seq, failure
        self._move(task, State.FAILED if failure else State.DONE)

    def _attempts(self, role: str) -> int:
        spec = self._request.team.roles.get(role) if self._request else None
        return spec.attempts if spec else 1

    def _attempts_lost(self, said: AttemptsLost, at: int, seq: int) -> None:
        for name, attempt in said.tasks:
            task = self._tasks.get(name)
            if task is not None and task.state is State.RUNNING and task.attempt == attempt:
                self._lose(task, at, returned=said.returned)

    def _lose(self, task: _Task, at: int, *, returned: bool) -> None:
        task.lost += not returned
        self._lost += not returned
        self._work(task, at - task.dispatched)
        self._move(task, State.WAITING)

    def _run_ended(self, said: RunEnded, at: int, seq: int) -> None:
        self._end, self._ended, self._end_entry = said.model_copy(update={"output": None}), at, seq


def unpacked(entry: Entry) -> Message:
    """The message of ``entry``. Raises ``UnknownMessage`` that names the entry."""
    try:
        return codec.unpack(entry.body)
    except UnknownMessage as error:
        raise UnknownMessage(f"entry {entry.seq} of {entry.run} can't be read: {error}") from None


def summarize(journal: Journal, run: str) -> RunSummary:
    """The summary of ``run`` from all its entries."""
    return History(run).read(journal.read(run)).summary()


def glance(journal: Journal, row: RunRow) -> RunSummary:
    """The summary of a run for a list: an ended one from its first and last entries only, so without tasks, roles and models; a fork from
    all, because it begins in the middle of them."""
    if row.ended:
        # steps that were on their way when the run ended may follow its end
        seqs = sorted({1, *range(max(row.seq - 15, 1), row.seq + 1)})
        picked = [entry for entry in journal.pick(row.run, seqs) if entry.tag in (RunRequested.__name__, RunEnded.__name__)]
        end = unpacked(picked[-1]) if len(picked) == 2 else None
        found = History(row.run).read(picked).summary()
        if isinstance(end, RunEnded) and found.forked is None:
            counts = {"planned": end.succeeded + end.failed, "succeeded": end.succeeded, "failed": end.failed}
            return found.model_copy(update={"usage": end.usage, **counts})
    return summarize(journal, row.run)


def _plus(a: _Counts, b: _Counts) -> _Counts:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5])


def _counts(usage: Usage) -> _Counts:
    return (usage.input_tokens, usage.output_tokens, usage.micros, usage.model_calls, usage.tool_calls, usage.turns)


def _usage(counts: _Counts) -> Usage:
    return Usage(
        input_tokens=counts[0],
        output_tokens=counts[1],
        micros=counts[2],
        model_calls=counts[3],
        tool_calls=counts[4],
        turns=counts[5],
    )


def _role(tally: _Tally) -> RoleSummary:
    return RoleSummary(
        tasks=sum(tally.states.values()),
        done=tally.states[State.DONE],
        failed=tally.states[State.FAILED],
        seconds=tally.spent / 1000,
        usage=_usage(tally.counts),
        cut=tally.cut,
        shortened=tally.shortened,
    )


def _summary(task: str, found: _Task) -> TaskSummary:
    return TaskSummary(
        task=task,
        role=found.role,
        state=found.state,
        parent=found.parent,
        merge=found.merge,
        attempts=found.attempts,
        lost=found.lost,
        host=found.host,
        began=found.began,
        ended=found.ended,
        seconds=found.spent / 1000,
        usage=_usage(found.counts),
        failure=found.failure,
        entry=found.entry,
        fallbacks=found.fallen,
        shortened=found.shortened,
    )
