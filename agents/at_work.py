"""The context: what a function or a tool may know of, and ask from, the work that it is part of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, overload

from protocols.failures import BadInput, Failure
from protocols.plan import Task

T = TypeVar("T")


class Label(NamedTuple):
    """A chosen label, and how far it led the runner-up (nats a token; 0.0 when the model gave no scores)."""

    label: str
    margin: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one delegated task ended: its output (JSON), or its failure."""

    task: str
    output: Any = None
    failure: Failure | None = None


class Counter(Protocol):
    """What a context asks for help; the attempt at work stands behind it."""

    async def choose(self, texts: Sequence[str], options: Mapping[str, str], baseline: Sequence[str]) -> list[Label]: ...

    async def ask(self, prompt: str, output: Any, instructions: str) -> Any: ...

    async def delegate(self, tasks: Sequence[Task], step: int | None) -> list[Outcome]: ...

    def partial(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """Handed to a function or tool that has a parameter annotated ``Context``.

    ``step`` is the ordinal of the tool call in its task; ``None`` in a function role. The methods belong to the event loop:
    only ``async`` functions can use them.
    """

    run: str
    task: str
    role: str
    attempt: int
    step: int | None = None
    counter: Counter | None = field(default=None, repr=False)
    asked: list[int] = field(default_factory=list, repr=False)
    announced: str | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """The idempotency key: the same for every attempt at this place, so a receiver can tell a repeat from a second effect.

        A call in doubt keeps the key under which it was ``announced``, which in a forked run is that of the run it was forked from.
        """
        if self.announced is not None:
            return self.announced
        return f"{self.run}/{self.task}" if self.step is None else f"{self.run}/{self.task}/{self.step}"

    @overload
    async def choose(self, text: str, options: Mapping[str, str], baseline: Sequence[str] = ()) -> Label: ...

    @overload
    async def choose(self, text: list[str] | tuple[str, ...], options: Mapping[str, str], baseline: Sequence[str] = ()) -> list[Label]: ...

    async def choose(
        self, text: str | list[str] | tuple[str, ...], options: Mapping[str, str], baseline: Sequence[str] = ()
    ) -> Label | list[Label]:
        """Which option (label → description) fits the text, by the role's model; several texts are one batch.

        ``baseline`` are texts that only take part in centring the scores. Raises ``Failed``; ``BadInput`` without a model.
        """
        if isinstance(text, str):
            return (await self._counter().choose([text], options, baseline))[0]
        return await self._counter().choose(text, options, baseline) if text else []

    @overload
    async def ask(self, prompt: str, output: type[T], instructions: str = "") -> T: ...

    @overload
    async def ask(self, prompt: str, output: Any = str, instructions: str = "") -> Any: ...

    async def ask(self, prompt: str, output: Any = str, instructions: str = "") -> Any:
        """The model's answer to ``prompt``, read as ``output``. Raises ``Failed``; ``BadInput`` when the role has no model."""
        return await self._counter().ask(prompt, output, instructions)

    async def delegate(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Have subtasks run under this task's budget: their outcomes, in the order asked.

        Their ids must be new in the run and the same in every attempt: begin them with ``context.task``. A tool can delegate
        once in a call. Raises ``Failed`` (plan) when they are refused, ``BadInput`` for roles that this one may not ask.
        """
        if self.step is not None:
            if self.asked:
                raise BadInput("a tool delegates once in a call; put all its tasks in one list")
            self.asked.append(self.step)
        return await self._counter().delegate(tasks, self.step)

    def partial(self, text: str) -> None:
        """Pass on a piece of output as it is made. It is shown live and never stored."""
        self._counter().partial(text)

    def _counter(self) -> Counter:
        if self.counter is None:
            raise BadInput("this context belongs to no agent at work; it can only be read")
        return self.counter
