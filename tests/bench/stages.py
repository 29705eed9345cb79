"""What ``callboard run`` does with a team of one task, through ``Board``, with a clock between the stages: for the case ``warm``.

``python -m tests.bench.stages [ADDRESS]``; without an address it runs inline. Imports stand where their time is to be counted.
"""

import sys

from tests.bench.clock import answer, passed


def main(address: str | None) -> None:
    """Carry out the task, on the cluster at ``address`` if there is one."""
    passed("interpreter")
    import asyncio
    import logging

    from orchestrator import Board
    from tests.bench.cast import one_task

    passed("import callboard")
    if address is not None:
        import ray

        passed("import ray")
        ray.init(address=address, namespace="callboard", log_to_driver=False, logging_level=logging.ERROR)
        passed("join ray")

    async def carry_out() -> int:
        async with Board(runtime="ray" if address else "inline", address=address) as board:
            passed("open the board")
            handle = await board.start(one_task, 1)
            passed("submit")
            result = await handle.result()
            passed("wait")
            return int(result.output)

    output = asyncio.run(carry_out())
    if address is not None:
        ray.shutdown()
    passed("leave")
    answer(output)


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else None)
