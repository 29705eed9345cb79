"""A clock for rehearsals on which nobody waits: it moves on to the moment that is waited for."""

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from agents.threads import awaited
from orchestrator.link import move_clock
from protocols.failures import BadInput

T = TypeVar("T")

_PROGRAMS = ("waitpid", "asyncio-waitpid")
"""How the threads are called in which an event loop waits for the end of a program."""


class ManualClock:
    """A clock that a test has in its hand. Good for rehearsals that follow each other: what one kept has its age in the next.

    Where all that is left to do is to wait, it moves on to the next moment that is waited for, at once; else time passes as it does.
    What a thread, the network or a program is at work on is waited for.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._runs = False

    @property
    def ahead(self) -> float:
        """Seconds by which it has moved on, so which nobody has waited."""
        return self._ahead

    def advance(self, seconds: float) -> None:
        """Move on between two rehearsals, or in the code of a role, tool or model. Raises ``BadInput``: time does not go back."""
        if not 0 <= seconds < float("inf"):
            raise BadInput(f"the clock can't be advanced by {seconds!r} seconds; give a number from 0 up")
        self._ahead += seconds
        if self._runs:
            move_clock(self._ahead)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """``asyncio.run`` by this clock."""
        self._runs = True
        move_clock(self._ahead)
        try:
            with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
                return runner.run(main)
        finally:
            self._runs = False
            move_clock(0.0)


def is_by_hand() -> bool:
    """Whether the running event loop goes by a manual clock."""
    return isinstance(asyncio.get_running_loop(), _Loop)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop by a manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.threads = 0
        super().__init__(_Selector(self, clock))

    def time(self) -> float:
        """Seconds; see ``asyncio.AbstractEventLoop``."""
        return super().time() + self._clock.ahead

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """See ``asyncio.AbstractEventLoop``."""
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: object) -> None:
        self.threads -= 1


class _Selector(selectors.DefaultSelector):
    """Waits in earnest only where something else than time is waited for."""

    def __init__(self, loop: _Loop, clock: ManualClock) -> None:
        super().__init__()
        self._loop, self._clock = loop, clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See ``selectors.BaseSelector``."""
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if timeout is None or self._is_awaited():
            return super().select(timeout)
        self._clock.advance(timeout)
        return found

    def _is_awaited(self) -> bool:
        others = len(self.get_map()) > 1  # one is the loop's own, by which threads wake it
        programs = any(thread.name.startswith(_PROGRAMS) for thread in threading.enumerate())
        return others or programs or self._loop.threads > 0 or awaited(self._loop)
