"""The desk: all that an agent at work can ask of the framework. Hosts give a real one; ``LocalDesk`` needs nothing."""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from agents.models.port import Model
from protocols.budget import COUNTED, UNLIMITED, ZERO, Limits, Tally, Usage, amount
from protocols.failures import CallboardError, Failed, Failure, Verdict
from protocols.messages import Message, ModelCalled, ReviewAsked, ReviewDecided, SubtasksAsked, SubtasksEnded, ToolCalled, ToolIntended


class NoTurn(CallboardError):
    """A model can't be asked now, and waiting for it is no use; nothing was called."""

    code = "no_turn"
    retryable = True


class Turn(Protocol):
    """A turn to call a model whose calls are paced. It must be ended."""

    def ended(self, tokens: int, error: BaseException | None = None) -> None:
        """The call has ended: it used so many tokens, and raised ``error``."""
        ...


class Desk(Protocol):
    """Where one attempt at one task reads what was done before, reserves, reports and delegates."""

    run: str
    task: str
    attempt: int

    @property
    def first(self) -> int:
        """The ordinal of its first step: those before are those of other roles that had the task."""
        ...

    @property
    def concluding(self) -> bool:
        """Whether it is to answer from what was recorded, instead of going on."""
        ...

    def now(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def recall(self, step: int) -> tuple[Message, ...]:
        """What an earlier attempt recorded at this step ordinal (usually one message), or nothing."""
        ...

    async def afford(self, need: Usage, *, final: bool = True) -> None:
        """Take ``need``, the worst case of the next call, out of the lease. Not ``final`` is one that something cheaper can stand in for.

        Waits for room; raises ``Failed`` (budget) when none can come.
        """
        ...

    def settle(self, need: Usage, used: Usage) -> None:
        """Replace what ``afford`` took by what was really used."""
        ...

    async def turn(self, model: Model, tokens: int, *, elsewhere: bool) -> Turn | None:
        """Wait for a turn to call ``model``, for at most ``tokens``; ``None`` where nobody paces its calls.

        ``elsewhere`` says that another model could be asked instead. Raises ``NoTurn``.
        """
        ...

    def tell(self, message: Message) -> None:
        """Report a step. It is journalled in the order told; nothing waits for it."""
        ...

    async def commit(self, message: Message) -> None:
        """Report a step and wait until it is durable: for the intent of an effect."""
        ...

    async def delegate(self, asked: SubtasksAsked) -> SubtasksEnded:
        """Have subtasks run; returns when all have ended or they were refused."""
        ...

    def partial(self, text: str) -> None:
        """Pass on a piece of output as it is made. Never stored."""
        ...

    async def kept(self, name: str, *, shared: bool) -> str | None:
        """What was kept under ``name``, of runs of this run's user or of everyone's; ``None`` when nothing is, or nobody can say."""
        ...

    async def keep(self, name: str, said: str, seconds: float, *, shared: bool) -> None:
        """Keep something for later runs, so many seconds long. Nothing is raised where it can't be."""
        ...


class LocalDesk:
    """A desk for one agent alone in this process: it collects what is told, and holds ``limits`` if given.

    ``history`` are messages of an earlier attempt, to be recalled. ``on_message`` and ``on_text`` hear messages and partial
    output as they come. Delegation is refused: it needs a run.
    """

    def __init__(
        self,
        *,
        run: str = "local",
        task: str = "task",
        attempt: int = 1,
        limits: Limits = UNLIMITED,
        history: Iterable[Message] = (),
        on_message: Callable[[Message], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.run, self.task, self.attempt, self.limits = run, task, attempt, limits
        self.first, self.concluding = 0, False
        self.messages: list[Message] = []
        self._used = Tally()
        self._spent = list(ZERO)
        self._on_message, self._on_text = on_message, on_text
        self._history: dict[int, tuple[Message, ...]] = {}
        for message in history:
            if isinstance(message, (ModelCalled, ToolIntended, ToolCalled, ReviewAsked, ReviewDecided)):
                self._history[message.step] = (*self._history.get(message.step, ()), message)

    @property
    def usage(self) -> Usage:
        """What was used so far; what was recalled is not counted."""
        return self._used.total()

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def recall(self, step: int) -> tuple[Message, ...]:
        """What ``history`` holds at this step."""
        return self._history.get(step, ())

    async def afford(self, need: Usage, *, final: bool = True) -> None:
        """Take ``need`` out of ``limits``; raises ``Failed`` (budget) when it does not fit."""
        spent, wanted = self._spent, amount(need)
        for place, name in enumerate(COUNTED):
            limit = getattr(self.limits, name)
            if limit is not None and wanted[place] and spent[place] + wanted[place] > limit:
                message = f"the next call could use {wanted[place]} {name}, and {limit - spent[place]} of {limit} are left"
                raise Failed(Failure(verdict=Verdict.BUDGET, message=message))
        for place, one in enumerate(wanted):
            spent[place] += one

    def settle(self, need: Usage, used: Usage) -> None:
        """Replace what ``afford`` took by what was used."""
        spent = self._spent
        for place, (taken, one) in enumerate(zip(amount(need), amount(used), strict=True)):
            spent[place] += one - taken
        self._used.add(used)

    async def turn(self, model: Model, tokens: int, *, elsewhere: bool) -> Turn | None:
        """``None``: alone, an agent has every turn."""
        return None

    def tell(self, message: Message) -> None:
        """Collect the message in ``messages``."""
        self.messages.append(message)
        if self._on_message is not None:
            self._on_message(message)

    async def commit(self, message: Message) -> None:
        """Collect the message; there is nothing durable here to wait for."""
        self.tell(message)

    async def delegate(self, asked: SubtasksAsked) -> SubtasksEnded:
        """Refuse: there is nobody else."""
        message = "this agent works alone (LocalDesk) and cannot delegate; run it in a team"
        refused = Failure(verdict=Verdict.PLAN, message=message)
        return SubtasksEnded(task=self.task, attempt=self.attempt, step=asked.step, refused=refused)

    async def kept(self, name: str, *, shared: bool) -> str | None:
        """Nothing is kept here."""
        return None

    async def keep(self, name: str, said: str, seconds: float, *, shared: bool) -> None:
        """Nothing is kept here."""

    def partial(self, text: str) -> None:
        """Pass ``text`` to ``on_text``."""
        if self._on_text is not None:
            self._on_text(text)
