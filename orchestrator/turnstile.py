"""The turnstile: the throttles of one coordinator. It hears what hosts say of their calls, and tells them whose turn it is."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.link import steady
from orchestrator.observe.logs import get_logger
from orchestrator.roster import Link
from orchestrator.throttle import START, Throttle, Word
from protocols import codec
from protocols.chat import Throttling
from protocols.messages import CallsReported
from protocols.team import TeamSpec

log = get_logger("turnstile")

REST_SECONDS = 1.0
"""So long nobody has a turn after another coordinator has gone: what it let hosts begin must be heard of first."""


class Turnstile:
    """One throttle a model that hosts report calls of. With several coordinators each has its ``share`` of declared limits, and ``spread``
    tells the others what it finds out; nothing depends on their hearing it."""

    def __init__(self, links: Mapping[str, Link], share: float = 1.0) -> None:
        """``links`` are the hosts that are attached."""
        self._links, self._share = links, share
        self._rests_until = 0.0
        self.spread: Callable[[Word], None] = lambda word: None
        self._throttles: dict[str, Throttle] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def rest(self) -> None:
        """Another coordinator gave turns until now."""
        self._rests_until = steady() + REST_SECONDS

    @property
    def throttles(self) -> Iterable[Throttle]:
        """Those of all models that were called."""
        return self._throttles.values()

    def overhear(self, said: Word) -> None:
        """Take what another coordinator found out of a model."""
        throttle = self._throttle(said.model)
        throttle.overhear(said, steady())
        self._spread(throttle)
        self._tell(throttle)

    def _spread(self, throttle: Throttle) -> None:
        word = throttle.word(steady())
        if word is not None:
            self.spread(word)

    def _throttle(self, model: str) -> Throttle:
        if model not in self._throttles:
            window = max(1, int(START * self._share))
            self._throttles[model] = Throttle(model, self._share, window=window, paused_until=self._rests_until)
        return self._throttles[model]

    def hear(self, host: str, said: CallsReported, teams: Iterable[TeamSpec]) -> None:
        """Take a report, if it is of the link that the host has now. The strictest limits that these teams declare hold."""
        if host not in self._links or said.link != self._links[host].outbox.sender:
            return
        throttle = self._throttle(said.model)
        now = steady()
        throttle.declare(strictest(team.throttles[said.model] for team in teams if said.model in team.throttles), now)
        before = throttle.window, throttle.open_until
        throttle.hear(host, said, now)
        if throttle.window < before[0]:
            log.info("a provider had no room for calls", model=said.model, at_once=throttle.window, why=said.why)
        if throttle.open_until != before[1]:
            shut = throttle.open_until is None
            log.warning("a provider answers again" if shut else "a provider keeps failing", model=said.model, why=throttle.why)
        self._spread(throttle)
        self._tell(throttle)

    def lost(self) -> None:
        """A host is gone, and its permits are others'."""
        for throttle in self._throttles.values():
            self._tell(throttle)

    def close(self) -> None:
        """Give no more turns."""
        for timer in self._timers.values():
            timer.cancel()

    def _tell(self, throttle: Throttle) -> None:
        now = steady()
        for host in throttle.hosts - self._links.keys():
            throttle.lost(host)
        for host, told in throttle.decide(now).items():
            self._links[host].outbox.send("", codec.pack(told), f"turns / {throttle.model}")
        timer = self._timers.pop(throttle.model, None)
        if timer is not None:
            timer.cancel()
        at = throttle.next_at(now)
        if at is not None:
            wait = max(at - now, 0.001)
            self._timers[throttle.model] = asyncio.get_running_loop().call_later(wait, self._tell, throttle)


def strictest(declared: Iterable[Throttling]) -> Throttling:
    """The lowest of each limit."""
    found: dict[str, Any] = {}
    for one in declared:
        for name, limit in one.model_dump(exclude_none=True).items():
            found[name] = min(limit, found.get(name, limit))
    return Throttling(**found)
