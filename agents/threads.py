"""Threads for blocking code: who waits for one may stop waiting, and neither the next call nor the end of the process waits for it.

The event loop's own pool does neither: a thread that hangs keeps its place in it, and a process ends only when all of them have.
"""

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

MOST = 64
"""So many calls of one event loop are waited for at a time, others wait their turn; and so many threads are kept for the next call."""

T = TypeVar("T")
Work = Callable[[], None]

_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_idle: list[SimpleQueue[Work]] = []
_lock = threading.Lock()
_awaited: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


def awaited(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a call in a thread is waited for in ``loop``."""
    return _awaited.get(loop, 0) > 0


async def in_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """What ``function`` returns, called in a thread. When this is cancelled the thread goes on, unheard, and its place is free."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            tell, said = ended.set_result, context.run(function, *args, **kwargs)
        except (StopIteration, KeyboardInterrupt) as error:  # no future takes the one, and nobody interrupts a thread by the other
            tell, said = ended.set_exception, RuntimeError(f"it raised {error!r}")  # type: ignore[assignment]
        except BaseException as error:
            tell, said = ended.set_exception, error  # type: ignore[assignment]
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if ended.done() else tell(said))

    async with _places.setdefault(loop, asyncio.Semaphore(MOST)):
        with _lock:
            box = _idle.pop() if _idle else None
        if box is None:
            box = SimpleQueue()
            threading.Thread(target=_serve, args=(box,), name="blocking", daemon=True).start()
        box.put(work)
        _awaited[loop] = _awaited.get(loop, 0) + 1
        try:
            return await ended
        finally:
            _awaited[loop] -= 1


def _serve(box: SimpleQueue[Work]) -> None:
    while True:
        box.get()()
        with _lock:
            if len(_idle) >= MOST:
                return
            _idle.append(box)


def _begin_anew() -> None:
    """In a forked child: threads do not come along, and the lock may have been held."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
