"""Roles that leave a mark in a file each time they really work, so that tests can count from outside."""

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from agents import Context, Role, role, tool


class Job(BaseModel):
    """What to do: mark ``path`` with ``name``, take ``seconds``, fail if told so."""

    path: str = ""
    name: str = ""
    seconds: float = 0.0
    fail: bool = False
    size: int = 0


class Done(BaseModel):
    """Who did it."""

    name: str
    payload: str = ""


@role
async def worker(job: Job) -> Done:
    if job.path:
        mark(job.path, job.name)
    await asyncio.sleep(job.seconds)
    if job.fail:
        raise RuntimeError(f"{job.name} was told to fail")
    return Done(name=job.name, payload="x" * job.size)


@role
def counter(done: list[Done]) -> int:
    return len(done)


@role
async def talker(text: str, context: Context) -> str:
    for word in text.split():
        context.partial(word)
    return text.upper()


def double(number: int) -> int:
    return number * 2


doubler = Role("doubler", input=int, output=int, run=double)


@tool(timeout=600)
async def stubborn(path: str) -> str:
    """Go on until it is let go, whatever is asked of it."""
    mark(f"{path}.begun", "begun")
    while not Path(f"{path}.released").exists():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue
    return "at last"


def mark(path: str, name: str) -> None:
    with open(path, "a") as file:
        file.write(f"{name} {os.getpid()}\n")


def marks(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []
