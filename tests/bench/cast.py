"""The roles of the benchmarks: as little work as possible, so that what is measured is the framework."""

import asyncio
import os

from agents import Role, ScriptedModel, call, tool
from orchestrator import Team
from protocols.budget import Limits
from protocols.plan import Plan, Task


async def same(number: int) -> int:
    return number


async def process(number: int) -> int:
    return os.getpid()


@tool
async def step(number: int) -> str:
    """Take a step."""
    return f"step {number} taken"


trivial = Role("trivial", input=int, output=int, run=same)
where = Role("where", input=int, output=int, run=process)
one_task = Team("one-task", [trivial])
"""What the cases ``first`` and ``warm`` give to ``callboard run``."""


def fan(role: Role, count: int) -> Team:
    """A team whose plan is ``count`` independent tasks of one role, merged into a list."""
    return Team("fan", [role], planner=Plan(tasks=tuple(Task(id=f"t{n}", role=role.name, input=n) for n in range(count))))


def napper(seconds: float, at_once: int) -> Role:
    """A function that sleeps, for at most so many tasks at once."""

    async def nap(number: int) -> int:
        await asyncio.sleep(seconds)
        return number

    return Role("napper", input=int, output=int, run=nap, concurrency=at_once)


def stepper(turns: int, latency: float) -> Role:
    """An agent of ``turns`` model calls of ``latency`` seconds, a tool call after each but the last, which answers."""
    script = [*(call("step", number=n) for n in range(turns - 1)), "done"]
    model = ScriptedModel(script, name=f"{turns}-turns", latency=latency)
    limits = Limits(turns=turns, model_calls=turns, tool_calls=turns)
    return Role("stepper", "Take every step.", input=int, output=str, tools=[step], model=model, limits=limits)
