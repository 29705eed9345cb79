"""Ray alone, as ``callboard run`` uses it: one coordinator, two hosts, one answer. A process of its own, for the case ``first``."""

import json
import logging
from typing import Any

import ray


class Actor:
    """Gives back what it is given."""

    async def answer(self, number: int) -> int:
        return number


if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    untyped: Any = ray  # its types do not describe classes decorated with options
    kind = untyped.remote(num_cpus=0)(Actor)
    actors = [kind.remote() for _ in range(3)]
    answers = ray.get([actor.answer.remote(1) for actor in actors])
    print(json.dumps({"output": answers[0]}))
    ray.shutdown()
