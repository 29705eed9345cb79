"""Ray alone, as ``callboard run`` uses it, in a process of its own, with a clock between the stages.

``python -m tests.bench.bare`` starts a local Ray with one coordinator and two hosts and has one answer, for the case ``first``.
``python -m tests.bench.bare ADDRESS`` joins a cluster and has one answer of an actor that stays there, for the case ``warm``.
"""

import sys
from typing import Any

from tests.bench.clock import answer, passed


class Actor:
    """Gives back what it is given."""

    async def answer(self, number: int) -> int:
        return number


def main(address: str | None) -> None:
    """Have the answer, of the cluster at ``address`` or of one that is started for it."""
    passed("interpreter")
    import logging

    import ray

    passed("import ray")
    settings: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
    ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
    passed("join ray")
    untyped: Any = ray  # its types do not describe classes decorated with options
    kind = untyped.remote(num_cpus=0)(Actor)
    if address:
        actors = [kind.options(name="bare", namespace="bench", lifetime="detached", get_if_exists=True).remote()]
    else:
        actors = [kind.remote() for _ in range(3)]
    numbers = ray.get([actor.answer.remote(1) for actor in actors])
    passed("call")
    ray.shutdown()
    passed("leave")
    answer(numbers[0])


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else None)
