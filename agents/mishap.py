"""Mishaps: whatever a user's code raises is a failure of its task or call, also what would end a whole program, like ``sys.exit``."""

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from agents.guards import failed
from protocols.failures import Failed, Verdict
from protocols.json_text import sendable

Witness = Callable[[BaseException], None]

_witness: ContextVar[Witness | None] = ContextVar("witness", default=None)


@contextmanager
def witnessed(witness: Witness) -> Iterator[None]:
    """Inside, and in the tasks that begin there, ``witness`` is shown what a user's code raised before that is but words."""
    token = _witness.set(witness)
    try:
        yield
    finally:
        _witness.reset(token)


def passes(error: BaseException) -> bool:
    """Whether ``error``, caught in the task that it was raised in, is no doing of the code that raised it and has to go on.

    That is so when the task was cancelled, when a person interrupts the program, and when Python puts a coroutine away.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    if isinstance(error, KeyboardInterrupt):
        return threading.current_thread() is threading.main_thread()
    return isinstance(error, GeneratorExit)


def worded(error: BaseException) -> str:
    """``Type: text`` of anything that was raised, fit to be sent and stored."""
    witness = _witness.get()
    if witness is not None:
        witness(error)
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "(its text could not be made)"
    if not text and isinstance(error, asyncio.CancelledError):
        return f"{kind}, and nobody had stopped it"
    return sendable(f"{kind}: {text}") if text else kind


def frames(error: BaseException, last: int = 3) -> str:
    """The end of its traceback."""
    return sendable("".join(traceback.format_exception(error)[-last:])[-2_000:])


def mishap(role: str, error: BaseException, passing: tuple[type[Exception], ...] = ()) -> Failed:
    """The failure (code error) of a task in which the code of ``role`` raised ``error``: retryable where that is ``passing``, or a group
    of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        retryable = bool(passing) and error.split(passing)[1] is None
    else:
        retryable = isinstance(error, passing)
    return failed(Verdict.CODE_ERROR, f"role {role!r} raised {worded(error)}", frames(error), retryable=retryable)
