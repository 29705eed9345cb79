"""Pieces of output on their way to those who watch: joined, so that a stream of tokens is a few messages a second."""

import asyncio
from collections.abc import Callable

PIECE_SECONDS = 0.1
"""A piece waits at most this long for the next one."""
PIECE_CHARACTERS = 1_000
"""So many characters are sent on at once."""


class Pieces:
    """Joins what ``add`` is given and passes it to ``send``. Belongs to one event loop."""

    __slots__ = ("_held", "_send", "_size", "_timer")

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._held: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, text: str) -> None:
        """Send ``text``, soon and with its neighbours."""
        if not text:
            return
        self._held.append(text)
        self._size += len(text)
        if self._size >= PIECE_CHARACTERS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PIECE_SECONDS, self.flush)

    def flush(self) -> None:
        """Send what is held, before anything that comes after it."""
        text = "".join(self._held)
        self.drop()
        if text:
            self._send(text)

    def drop(self) -> None:
        """Forget what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._held.clear()
        self._size = 0
