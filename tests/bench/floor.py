"""The floor: what Ray alone carries. Messages of 1 kB from this process to two actors and back, 64 in a call."""

import os
import time
from typing import Any

import ray

BATCH = 64
BYTES = 1000


class Echo:
    """An actor that gives back what it is given."""

    async def echo(self, messages: list[bytes]) -> list[bytes]:
        return messages


def messages_per_second(count: int) -> float:
    """Messages there and back in a second, over two actors; actors are started and warmed up before the clock is."""
    untyped: Any = ray  # its types do not describe classes decorated with options
    kind = untyped.remote(num_cpus=0, max_concurrency=1000)(Echo)
    actors = [kind.remote() for _ in range(2)]
    batch = [os.urandom(BYTES)] * BATCH
    calls = max(2, count // BATCH)
    ray.get([actors[n % 2].echo.remote(batch) for n in range(20)])
    began = time.perf_counter()
    ray.get([actors[n % 2].echo.remote(batch) for n in range(calls)])
    seconds = time.perf_counter() - began
    for actor in actors:
        ray.kill(actor)
    return calls * BATCH / seconds
