"""Mishaps: whatever a user's code raises is a failure of its task or call, also what would end a whole program, like ``sys.exit``."""

import asyncio
import threading
import traceback

from agents.guards import failed
from protocols.failures import Failed, Verdict


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
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "(its text could not be made)"
    if not text and isinstance(error, asyncio.CancelledError):
        return f"{kind}, and nobody had stopped it"
    return _sendable(f"{kind}: {text}") if text else kind


def frames(error: BaseException, last: int = 3) -> str:
    """The end of its traceback."""
    return _sendable("".join(traceback.format_exception(error)[-last:])[-2_000:])


def mishap(role: str, error: BaseException, *, retryable: bool = False) -> Failed:
    """The failure (code error) of a task in which the code of ``role`` raised ``error``."""
    return failed(Verdict.CODE_ERROR, f"role {role!r} raised {worded(error)}", frames(error), retryable=retryable)


def _sendable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()  # half a surrogate pair can neither be sent nor stored
