"""The clock of one attempt: its role's seconds, which stand still while it waits for others."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Clock:
    """What is left of a role's seconds is in ``timeout``, once the work has begun; without one, time is no limit."""

    __slots__ = ("timeout",)

    def __init__(self) -> None:
        self.timeout: asyncio.Timeout | None = None

    @property
    def expired(self) -> bool:
        """Whether the seconds are over."""
        return self.timeout is not None and self.timeout.expired()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time spent in here does not count."""
        when = self._when()
        if self.timeout is None or when is None:
            yield
            return
        left = when - asyncio.get_running_loop().time()
        self.timeout.reschedule(None)
        try:
            yield
        finally:
            with suppress(RuntimeError):  # it is over, or the work is
                self.timeout.reschedule(asyncio.get_running_loop().time() + left)

    def _when(self) -> float | None:
        return None if self.timeout is None or self.timeout.expired() else self.timeout.when()
