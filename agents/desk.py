"""The desk: all that an agent at work can ask of the framework. Hosts give a real one; ``LocalDesk`` needs nothing."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from agents.call_size import CallSize
from agents.history import History
from agents.models.port import Model
from protocols.budget import COUNTED, UNLIMITED, ZERO, Amount, Limits, Tally, Usage, amount, lasted, room, spoken
from protocols.failures import CallboardError, Failed, Failure, Verdict
from protocols.messages import Message, ModelCalled, SubtasksAsked, SubtasksEnded, ToolCalled

ONE_TOOL_CALL = Usage(tool_calls=1)


class NoTurn(CallboardError):
    """A model can't be asked now, and waiting for it is no use; nothing was called."""

    code = "no_turn"
    retryable = True


class Taken(NamedTuple):
    """What was taken for a call; where it is less than was asked for, ``limit`` names what had no more."""

    need: Usage
    limit: str = ""


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
    def history(self) -> History:
        """What earlier attempts recorded."""
        ...

    @property
    def first(self) -> int:
        """The ordinal of its first step: those before are those of other roles that had the task."""
        ...

    @property
    def spent(self) -> Usage:
        """What earlier attempts used of its role's limits, also where nothing came of it."""
        ...

    @property
    def worked(self) -> int:
        """How many milliseconds earlier attempts were at calls."""
        ...

    @property
    def concluding(self) -> bool:
        """Whether it is to answer from what was recorded, instead of going on."""
        ...

    def now(self) -> int:
        """Milliseconds since the epoch."""
        ...

    async def afford(self, need: Usage, *, final: bool = True, size: CallSize | None = None, now: bool = False) -> Taken:
        """Take ``need``, the worst case of the next call, out of the lease. Not ``final`` is one that something cheaper can stand in for.

        Waits for room, or with ``now`` does not. Where no more can come, and a call of this ``size`` goes into what is left, takes the
        worst case of the largest that does. Returns what it took; raises ``Failed`` (budget) when that is nothing.
        """
        ...

    def settle(self, need: Usage, used: Usage) -> None:
        """Replace what ``afford`` took by what was really used."""
        ...

    async def turn(self, model: Model, tokens: int, *, elsewhere: bool, again: bool = False) -> Turn | None:
        """Wait for a turn to call ``model``, for at most ``tokens``; ``None`` where nobody paces its calls.

        ``elsewhere`` says that another model could be asked instead, and ``again`` that this call had a turn before. Raises ``NoTurn``.
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

    async def kept(self, name: str, *, shared: bool, claim: bool = False) -> str | None:
        """What was kept under ``name``, of runs of this run's user or of everyone's; ``None`` when nothing is, or nobody can say.

        With ``claim`` it waits while another is making it; who is told ``None`` then has to keep it, or to let it go.
        """
        ...

    async def keep(self, name: str, said: str, seconds: float, *, shared: bool) -> None:
        """Keep something for later runs, so many seconds long; for none it forgets what is kept. Nothing is raised where it can't be."""
        ...

    def let_go(self, name: str) -> None:
        """Leave what was claimed, and not kept, to the next who wants it."""
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
        told = list(history)
        self.history = History(told)
        self.spent, self.worked = _spent(told)

    @property
    def usage(self) -> Usage:
        """What was used so far; what was recalled is not counted."""
        return self._used.total()

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    async def afford(self, need: Usage, *, final: bool = True, size: CallSize | None = None, now: bool = False) -> Taken:
        """Take ``need``, or what a call of this ``size`` can have, out of ``limits``; raises ``Failed`` (budget) when it does not fit."""
        spent, wanted = self._spent, amount(need)
        short = self._short(wanted)
        shorter = size.within(room(self.limits, spent)) if size is not None and short is not None else None
        if size is not None and shorter is not None:
            need, short = size.need(shorter), None
            wanted = amount(need)
        if short is not None:
            raise Failed(Failure(verdict=Verdict.BUDGET, message=short))
        for place, one in enumerate(wanted):
            spent[place] += one
        return Taken(need)

    def _short(self, wanted: Amount) -> str | None:
        """What of ``limits`` this would pass, in words."""
        for place, name in enumerate(COUNTED):
            limit = getattr(self.limits, name)
            if limit is not None and wanted[place] and self._spent[place] + wanted[place] > limit:
                left, whole = spoken(place, limit - self._spent[place]), spoken(place, limit)
                return f"the next call could use {spoken(place, wanted[place])}, with {left} left of {whole}"
        return None

    def settle(self, need: Usage, used: Usage) -> None:
        """Replace what ``afford`` took by what was used."""
        spent = self._spent
        for place, (taken, one) in enumerate(zip(amount(need), amount(used), strict=True)):
            spent[place] += one - taken
        self._used.add(used)

    async def turn(self, model: Model, tokens: int, *, elsewhere: bool, again: bool = False) -> Turn | None:
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

    async def kept(self, name: str, *, shared: bool, claim: bool = False) -> str | None:
        """Nothing is kept here."""
        return None

    async def keep(self, name: str, said: str, seconds: float, *, shared: bool) -> None:
        """Nothing is kept here."""

    def let_go(self, name: str) -> None:
        """Nothing is claimed here."""

    def partial(self, text: str) -> None:
        """Pass ``text`` to ``on_text``."""
        if self._on_text is not None:
            self._on_text(text)


def _spent(told: Iterable[Message]) -> tuple[Usage, int]:
    """What recorded calls used, and how many milliseconds they took."""
    used, worked, until = Tally(), 0, 0
    for one in told:
        if isinstance(one, ModelCalled) or (isinstance(one, ToolCalled) and one.ran):
            used.add(one.usage if isinstance(one, ModelCalled) else ONE_TOOL_CALL)
            worked, until = worked + lasted(one.began, one.ended, until), max(until, one.ended)
    return used.total(), worked
