"""Live progress of a run on standard error: a panel that redraws itself on a terminal, else a plain line now and then."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.observe.figures import brief, clean, count, duration, spent
from orchestrator.observe.history import History
from orchestrator.observe.summary import State
from protocols.envelope import Envelope
from protocols.messages import FellBack, PartialOutput, ReviewAsked, ReviewDecided, ReviewKind, TaskClosed, TaskEnded

LINE_SECONDS = 2.0
"""Off a terminal, at least this long passes between two lines."""

SETTLE_SECONDS = 1.0
"""A question to a person is shown when it has stood so long: of a run that goes on, most are decided by what is read next."""

TAIL = 400
"""Characters of a task's partial output that are kept, to show the last line of it."""

_SHOWN_FAILURES = 3


class Progress:
    """Shows a run from the envelopes that it is given, as a context manager; ``shown`` is the console it writes to.

    ``clock`` gives seconds and never goes back. Without a terminal it writes lines, at most one every ``LINE_SECONDS``.
    """

    def __init__(self, shown: Console, run: str, *, decide: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """``decide`` is the command line that a task and a decision are added to."""
        self.history = History(run)
        self._decide = decide or f"callboard review {run}"
        self._console, self._clock = shown, clock
        self._start = clock()
        self._written = self._start
        self._line = self._words = ""
        self._partial: tuple[str, str] = ("", "")
        self._failures: tuple[str, ...] = ()
        self._questions: dict[str, str] = {}  # by task, not shown yet
        self._asked: set[str] = set()  # the tasks whose question was shown
        self._settling: asyncio.TimerHandle | None = None
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._panel, console=shown, transient=True, refresh_per_second=5) if _alive(shown) else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._settling:
            self._settling.cancel()
        self._ask()
        if self._live:
            self._live.stop()
        elif kind is None:
            self._partial = ("", "")  # what was being written is there in whole now
            self._write()

    @property
    def seconds(self) -> float:
        """Since this was made."""
        return self._clock() - self._start

    def show(self, envelope: Envelope) -> None:
        """Take in what was said."""
        body = envelope.body
        if isinstance(body, PartialOutput):
            before = self._partial[1] if self._partial[0] == body.task else ""
            self._partial = (body.task, (before + body.text)[-TAIL:])
        else:
            self.history.add(body, envelope.at, envelope.seq)
        if isinstance(body, ReviewAsked):
            self._questions[body.task] = self._question(body)
            self._asked.discard(body.task)
            self._settle()
        elif isinstance(body, ReviewDecided):
            if body.task in self._asked:
                self._said(f"{body.task}: {clean(body.user)} decided: {body.decision.value.replace('_', ' ')}")
        elif isinstance(body, FellBack):
            why = f"{body.failure.verdict.value}: {brief(body.failure.message, 100)}"
            self._failures = tuple(one for one in self._failures if not one.startswith(f"✗ {body.task} · "))
            self._failures = (*self._failures, f"↷ {body.task} · {body.role} → {body.to.who} · {why}")[-_SHOWN_FAILURES:]
        elif isinstance(body, TaskEnded | TaskClosed) and body.failure and not self._waits(body):
            failure = f"✗ {body.task} · {body.failure.verdict.value}: {brief(body.failure.message, 100)}"
            # a new tuple, never a change in place: the panel is drawn by another thread
            self._failures = (*self._failures, failure)[-_SHOWN_FAILURES:]
        if self._live is None and self._clock() - self._written >= LINE_SECONDS:
            self._write()

    def _settle(self) -> None:
        """Have the questions shown in a while, if they are open then; without an event loop that is at the end."""
        if self._settling is None:
            try:
                self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._ask)
            except RuntimeError:
                return

    def _ask(self) -> None:
        self._settling = None
        for name, question in self._questions.items():
            task = self.history.task(name)
            if task is not None and task.state is State.IN_REVIEW:
                self._asked.add(name)
                self._said(question)
        self._questions.clear()

    def _said(self, line: str) -> None:
        self._console.print(Text(line, "yellow"), soft_wrap=True)

    def _question(self, body: ReviewAsked) -> str:
        how = f"look at the other side, then: {self._decide} {body.task} --done | --not-done | --fail"
        if body.kind is ReviewKind.FALLBACK:
            how = f"give it: {self._decide} {body.task} --done --result JSON | --fail"
        return f"? {body.task} waits for a person: {brief(body.message, 200)}; {how}"

    def _waits(self, body: TaskEnded | TaskClosed) -> bool:
        """Whether the task has not failed, but waits for a person."""
        task = self.history.task(body.task)
        return isinstance(body, TaskEnded) and task is not None and task.state is not State.FAILED

    def _write(self) -> None:
        line, written = self._figures(), self._last_words()
        if written and written != self._words:
            self._console.print(Text(written), soft_wrap=True)
        self._words = written
        if line != self._line:
            for failure in self._failures:
                self._console.print(Text(failure), soft_wrap=True)
            self._failures = ()
            self._console.print(Text(f"{duration(round(self.seconds * 1000))} · {line}"), soft_wrap=True)
        self._line, self._written = line, self._clock()

    def _figures(self) -> str:
        counts = self.history.counts
        states = ", ".join(f"{counts[state]:,} {state.words}" for state in State if counts[state])
        tasks = f"{count(sum(counts.values()), 'task')}: {states}" if states else "planning"
        used = spent(self.history.usage)
        return f"{tasks} · {used}" if used else tasks

    def _panel(self) -> RenderableType:
        counts = self.history.counts
        total = sum(counts.values())
        head = Table.grid(padding=(0, 1))
        title = Text.assemble((clean(self.history.team) or "run", "bold"), f" {duration(round(self.seconds * 1000))}")
        bar = ProgressBar(total=max(total, 1), completed=counts[State.DONE] + counts[State.FAILED], width=30)
        head.add_row(self._spinner, title, bar, Text(self.history.run, "dim"))
        lines: list[RenderableType] = [head, Text(f"  {self._figures()}", no_wrap=True, overflow="ellipsis")]
        lines += [Text(f"  {failure}", "red", no_wrap=True, overflow="ellipsis") for failure in self._failures]
        if words := self._last_words():
            lines.append(Text(f"  {words}", "dim italic", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _last_words(self) -> str:
        """The last line that a task is writing."""
        task, partial = self._partial
        text = clean(partial).strip()
        return f"{task} ▸ {text.splitlines()[-1]}" if text else ""


def _alive(shown: Console) -> bool:
    return shown.is_terminal and not shown.is_dumb_terminal
