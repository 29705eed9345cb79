"""Containment: no task that a user's code begins can end the event loop, and with it everybody else's work, by ``sys.exit``."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from agents.mishap import passes

_inside: ContextVar[bool] = ContextVar("contained", default=False)


@contextmanager
def contained() -> Iterator[None]:
    """Inside, in the running loop: a task, like one of ``gather`` or ``wait_for``, that raises ``SystemExit`` only fails."""
    loop = asyncio.get_running_loop()
    before: Any = loop.get_task_factory()
    if not isinstance(before, _Factory):
        loop.set_task_factory(_Factory(before))
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


class _Factory:
    """Makes the tasks of a loop: as before, but for those of contained code. It stays, because others may still be at work."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **settings: Any) -> Any:
        context = settings.get("context")
        if _inside.get() if context is None else context.get(_inside, False):
            coro = _Contained(coro)
        return asyncio.Task(coro, loop=loop, **settings) if self._before is None else self._before(loop, coro, **settings)


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine that raises an ordinary error instead of the two that event loops do not survive."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro

    def send(self, value: Any) -> Any:
        """See ``Coroutine``."""
        try:
            return self._coro.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            if passes(error):
                raise
            raise _ordinary(error) from error

    def throw(self, *raised: Any) -> Any:
        """See ``Coroutine``."""
        try:
            return self._coro.throw(*raised)
        except (SystemExit, KeyboardInterrupt) as error:
            if passes(error):
                raise
            raise _ordinary(error) from error

    def close(self) -> None:
        """See ``Coroutine``."""
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:  # what inspects a task looks at its coroutine
        return getattr(self._coro, name)


def _ordinary(error: BaseException) -> RuntimeError:
    return RuntimeError(f"a task that it began raised {error!r}")
