"""How agents on several hosts share what a provider allows. ``python -m tests.cluster.limits [CALLS] [SECONDS]``.

A server on loopback has a limit that nobody is told: it answers 429 to a call beyond ``ROOM`` at once. 40 agents on 4 hosts of a real
Ray make CALLS calls each, which take SECONDS each. Printed are the throughput, as a share of what the limit allows; how many were under
way at once at most, at the beginning and later; and the share of refusals.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from agents import Context, HttpModel, Role
from orchestrator import Team
from protocols.budget import Limits
from protocols.chat import Throttling
from protocols.plan import Plan, Task
from tests.loopback import Loopback

ROOM, AGENTS, HOSTS = 8, 40, 4


class Roomy(Loopback):
    """Takes so many calls at once and refuses others; ``seen`` has (when, under way with this one, taken) of each."""

    def __init__(self, room: int = ROOM, seconds: float = 0.1, headers: dict[str, str] | None = None) -> None:
        super().__init__({"/v1/chat/completions": self._answer})
        self.room, self.seconds, self.headers = room, seconds, headers or {}
        self.seen: list[tuple[float, int, bool]] = []
        self.asked: list[str] = []
        self._under_way = self._taken = 0

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        fits = self._taken < self.room
        self._under_way, self._taken = self._under_way + 1, self._taken + fits
        self.seen.append((time.monotonic(), self._under_way, fits))
        self.asked.append(body["messages"][-1]["content"])
        try:
            await asyncio.sleep(self.seconds if fits else self.seconds / 10)
        finally:
            self._under_way, self._taken = self._under_way - 1, self._taken - fits
        if not fits:
            return web.json_response({"error": {"message": "too many"}}, status=429, headers=self.headers)
        message = {"role": "assistant", "content": "done"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

    @property
    def answered(self) -> int:
        return sum(fits for _, _, fits in self.seen)

    @property
    def refused(self) -> int:
        return len(self.seen) - self.answered


def askers(server: Roomy, agents: int, calls: int, name: str = "t", model: Any = None, declared: Throttling | None = None) -> Team:
    """A team of so many tasks that each ask so often, one call after the other; ``declared`` is what it knows of the server's limit."""

    async def ask(who: str, context: Context) -> str:
        for number in range(calls):
            await context.ask(f"{who} {number}")
        return who

    model = model or HttpModel(f"{server.address}/v1", "m")
    role = Role("asker", input=str, output=str, run=ask, model=model, max_output_tokens=16)
    plan = Plan(tasks=tuple(Task(id=f"{name}{number}", role="asker", input=f"{name}{number}") for number in range(agents)))
    throttles = {} if declared is None else {"http:m": declared}
    return Team("askers", [role], planner=plan, budget=Limits(model_calls=2 * agents * calls), throttles=throttles)


@dataclass
class Figures:
    """What came of one measurement."""

    calls: int
    refused: int
    seconds: float
    throughput: float
    at_once: Counter[int] = field(default_factory=Counter)


def figures(server: Roomy) -> Figures:
    """From the first request to the last answer."""
    took = server.seen[-1][0] - server.seen[0][0] + server.seconds
    share = server.answered * server.seconds / (server.room * took)
    later = Counter(under_way for at, under_way, _ in server.seen if at - server.seen[0][0] > 2 * server.seconds)
    return Figures(len(server.seen), server.refused, took, share, later)


def main(calls: int = 10, seconds: float = 0.2) -> None:
    server = Roomy(seconds=seconds)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = askers(server, AGENTS, calls).run_sync(hosts=HOSTS, store=f"{folder}/journal.db")
    finally:
        server.stop()
    found = figures(server)
    print(f"{result.status.value}: {AGENTS} agents on {HOSTS} hosts, {calls} calls each of {seconds:g} s, room for {ROOM}")
    print(f"{found.seconds:.2f} s, {found.throughput:.1%} of what the limit allows")
    print(f"{found.refused} of {found.calls} requests refused ({found.refused / found.calls:.1%})")
    print(f"under way at once when a request came, after the first {2 * seconds:g} s: {dict(sorted(found.at_once.items()))}")
    print(f"model calls on the ledger: {result.usage.model_calls}")


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, float), sys.argv[1:], strict=False)))
