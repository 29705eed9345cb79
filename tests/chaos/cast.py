"""A team that writes to the effect ledger: each task writes twice, in one of the three ways in which a write can be declared."""

import asyncio
from typing import Any

import aiohttp
from pydantic import BaseModel

from agents import Context, Role, ScriptedModel, call, tool
from agents.effects import Done, NotDone, Reconciled
from orchestrator import Team
from protocols.budget import Limits
from protocols.chat import ModelRequest
from protocols.plan import Plan, Task
from protocols.team import Resources

SIDE = {"tier": "side"}
"""The label of the node that the role ``plain`` works on."""

WRITES = 2


class Job(BaseModel):
    """What to write, and where the ledger is."""

    url: str
    name: str


async def _post(url: str, key: str, mode: str, name: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/write", json={"key": key, "mode": mode, "arguments": {"name": name}}) as reply,
    ):
        reply.raise_for_status()
        return f"wrote {name}"


@tool(effect="write", idempotent=True)
async def deduped(url: str, name: str, context: Context) -> str:
    """Write to a ledger that knows keys."""
    return await _post(url, context.key, "dedupe", name)


async def _ask(key: str, url: str) -> Reconciled:
    await asyncio.sleep(0.4)  # the ledger takes at most that long over a call whose caller is gone
    async with aiohttp.ClientSession() as session, session.get(f"{url}/count", params={"key": key}) as reply:
        return Done() if (await reply.json())["times"] else NotDone()


@tool(effect="write", reconcile=_ask)
async def reconciled(url: str, name: str, context: Context) -> str:
    """Write to a ledger that can be asked what it has."""
    return await _post(url, context.key, "plain", name)


@tool(effect="write")
async def plain(url: str, name: str, context: Context) -> str:
    """Write to a ledger that can't be asked."""
    return await _post(url, context.key, "plain", name)


def _reply(request: ModelRequest) -> Any:
    asked = next(message.content for message in request.messages if message.role == "user")
    job = Job(**dict(line.split(": ", 1) for line in asked.splitlines()))
    written = sum(message.role == "tool" for message in request.messages)
    if written < WRITES:
        return call(request.tools[0].name, url=job.url, name=f"{job.name}/{written}")
    return f"{job.name} wrote {written}"


def team(url: str, tasks: int, latency: float, *, side: bool) -> Team:
    """The team, with a plan of so many tasks in three roles; with ``side`` one of them works only on the node labelled so."""
    roles = [
        Role(
            one.name,
            instructions="Write what you are told.",
            input=Job,
            output=str,
            tools=[one],
            model=ScriptedModel(_reply, latency=latency),
            concurrency=6,
            resources=Resources(labels=SIDE, await_nodes=True, num_cpus=0.01) if side and one is plain else Resources(),
        )
        for one in (deduped, reconciled, plain)
    ]
    plan = [Task(id=f"t{n}", role=roles[n % 3].name, input={"url": url, "name": f"t{n}"}) for n in range(tasks)]
    return Team("chaos", roles, planner=Plan(tasks=tuple(plan)), budget=Limits(tokens=100_000_000, model_calls=1_000_000))
