"""Requests: what other processes ask of runs at work here, left for them in the journal's store."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from orchestrator.journal.port import Journal, Post
from orchestrator.observe.logs import get_logger
from protocols import codec
from protocols.failures import StorageError, UnknownMessage
from protocols.messages import BudgetChanged, CancelRequested, ContinueRequested, Message, PauseRequested, ReviewDecided

REQUEST_SECONDS = 0.5
"""How often requests of other processes are looked for."""

Heard = Callable[[str, Message], Awaitable[None]]
"""Takes a run and a message; returns when what follows from it is durable."""

log = get_logger("requests")


async def hear(journal: Journal, runs: Callable[[], Sequence[str]], heard: Heard) -> None:
    """Give what is asked of ``runs`` to ``heard``, until cancelled. A request is dropped when it is durable, so that none is lost."""
    while True:
        await asyncio.sleep(REQUEST_SECONDS)
        mine = runs()
        if not mine:
            continue
        try:
            for post in await asyncio.to_thread(journal.posts, mine):
                await _take(post, heard)
                await asyncio.to_thread(journal.drop, post.number)
        except StorageError as error:
            log.warning("requests could not be taken; it is tried again", why=str(error))


async def left(journal: Journal, run: str) -> list[tuple[int, Message]]:
    """What was asked of a run while nobody worked on it, but for decisions of reviews, with the numbers to drop it by."""
    posts = [(post.number, _read(post)) for post in await asyncio.to_thread(journal.posts, [run])]
    return [(number, said) for number, said in posts if said is not None and not isinstance(said, ReviewDecided)]


async def _take(post: Post, heard: Heard) -> None:
    message = _read(post)
    if message is not None:
        await heard(post.run, message)


def _read(post: Post) -> Message | None:
    try:
        message = codec.unpack(post.body)
    except UnknownMessage as error:
        log.warning("a request could not be read, and is dropped", run=post.run, why=str(error))
        return None
    kinds = (CancelRequested, PauseRequested, ContinueRequested, BudgetChanged, ReviewDecided)
    return message if isinstance(message, kinds) else None
