"""The command line of the benchmarks."""

import argparse
import asyncio
import os
import sys

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")

from tests.bench.cases import CASES, FULL, QUICK, Scale
from tests.bench.measure import HEAD, load

ABOUT = """\
What the framework costs on this machine. Every figure is a median of several repetitions; what it is held against is measured in the
same run, so ratios can be compared between machines and figures cannot. Anything else at work on the machine moves them.

A run is measured from board.start to the result in hand: it includes sending the plan, the journal on disk with full fsync (unless the
setting says memory), every dispatch, and reading back the outcome of every task. It does not include starting Ray and hosts. The cases
`first` and `warm` measure whole processes instead, and `first` includes starting Ray. One small run before the clock starts loads code
into the hosts. Ray puts its workers behind everything else on the machine (nice 15); here they are not, so that other work weighs on
both sides alike. Set RAY_worker_niceness for another value.

cases:
"""


def main() -> None:
    """Run the cases that were asked for and print a table."""
    cases = "\n".join(f"  {name:<8} {(case.__doc__ or '').splitlines()[0]}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        "python -m tests.bench", description=ABOUT + cases, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="*", help="which cases; all of them when none is named")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: about one minute instead of five")
    parser.add_argument("--inline", action="store_true", help="without Ray")
    asked = parser.parse_args()
    unknown = [name for name in asked.case if name not in CASES]
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; there are: {', '.join(CASES)}")
    scale = (QUICK if asked.quick else FULL)._replace(ray=not asked.inline)
    print(load(), file=sys.stderr)
    print(HEAD, flush=True)
    for name in asked.case or CASES:
        asyncio.run(_print(name, scale))


async def _print(name: str, scale: Scale) -> None:
    async for row in CASES[name](scale):
        print(row, flush=True)


if __name__ == "__main__":
    main()
