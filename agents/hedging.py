"""Hedging: a call that says nothing for a while is made a second time, and the first to speak is heard."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from protocols.chat import ModelReply

Try = TypeVar("Try")
OnText = Callable[[str], None] | None
Answer = asyncio.Task[ModelReply]


class Race(Generic[Try]):
    """Two equal calls of a model: ``make`` makes one; ``second`` gets what another needs, or nothing where that can't be had; ``unused``
    gives it back, and ``lost`` is told which call was stopped, or failed beside the other.
    """

    def __init__(
        self,
        make: Callable[[Try, OnText], Awaitable[ModelReply]],
        second: Callable[[], Awaitable[Try | None]],
        unused: Callable[[Try], None],
        lost: Callable[[Try, Answer], None],
        on_text: OnText,
    ) -> None:
        self._make, self._second, self._unused, self._lost, self._on_text = make, second, unused, lost, on_text
        self._spoken: asyncio.Future[Try] = asyncio.get_running_loop().create_future()

    async def run(self, one: Try, after: float) -> tuple[Try, Answer]:
        """The call that is heard, and its answer, which may be still to come. The second is made when the first is silent for so long."""
        tasks: list[asyncio.Task[Any]] = []
        first, two, second = self._begun(one, tasks), None, None
        try:
            await asyncio.wait((first, self._spoken), timeout=after, return_when=asyncio.FIRST_COMPLETED)
            if first.done() or self._spoken.done():
                return one, first
            two = await self._had((first, self._spoken))
            if two is None:
                return one, first
            second = self._begun(two, tasks)
            await asyncio.wait((first, second, self._spoken), return_when=asyncio.FIRST_COMPLETED)
            for over, other in ((first, second), (second, first)):
                if over.done() and _failed(over) and not self._spoken.done():
                    await asyncio.wait((other,))
            if self._spoken.done():
                wins = self._spoken.result() is one
            else:
                wins = first.done() and (not _failed(first) or _failed(second))
            await _stopped([second if wins else first])
        except BaseException:
            await _stopped(tasks)
            if two is not None and second is not None:
                self._lost(two, second)
            raise
        self._lost(*((two, second) if wins else (one, first)))
        return (one, first) if wins else (two, second)

    def _begun(self, call: Try, tasks: list[asyncio.Task[Any]]) -> Answer:
        """Make a call. Of the text of two only that is passed on of which the first piece came first."""

        def hear(text: str) -> None:
            if not self._spoken.done():
                self._spoken.set_result(call)
            if self._on_text is not None and self._spoken.result() is call:
                self._on_text(text)

        async def made() -> ModelReply:
            return await self._make(call, None if self._on_text is None else hear)

        task = asyncio.create_task(made())
        tasks.append(task)
        return task

    async def _had(self, sooner: tuple[asyncio.Future[Any], ...]) -> Try | None:
        """What a second call needs, unless the first speaks or ends ``sooner`` than it can be had."""
        asked = asyncio.create_task(self._ask())
        try:
            await asyncio.wait((*sooner, asked), return_when=asyncio.FIRST_COMPLETED)
            late = any(one.done() for one in sooner)
        except BaseException:
            late = True
            raise
        finally:
            if late:
                await _stopped([asked])
                if not asked.cancelled() and not asked.exception() and (found := asked.result()) is not None:
                    self._unused(found)
        return None if late else asked.result()

    async def _ask(self) -> Try | None:
        return await self._second()


def _failed(task: Answer) -> bool:
    return task.cancelled() or task.exception() is not None


async def _stopped(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
