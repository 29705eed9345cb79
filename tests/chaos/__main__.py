"""Chaos on a real cluster: ``python -m tests.chaos --seed 1 --kills 500`` kills what carries runs, and looks from outside what became
of them."""

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from itertools import count
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

from tests.chaos.rounds import play, shown

FOUND = (12,)
"""Seeds that found a violation once, each played again for ever: 12, a host that read a blob while its coordinator was gone."""


def main() -> int:
    """Play rounds until there were so many kills; the exit code says whether anything was violated."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next one has the next number")
    parser.add_argument("--kills", type=int, default=20, help="in all")
    parser.add_argument("--tasks", type=int, default=200, help="of a round's run")
    parser.add_argument("--most", type=int, default=12, help="kills in one round: a task that loses its host five times is given up")
    parser.add_argument("--narrow", action="store_true", help="kill hosts and coordinators only, no nodes")
    parser.add_argument("--found", action="store_true", help=f"only the rounds that found something once: {FOUND}")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    done, violations = 0, 0
    for seed in FOUND if asked.found else count(asked.seed):
        if done >= asked.kills and not asked.found:
            break
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            most = asked.most if asked.found else min(asked.most, asked.kills - done)
            seen = asyncio.run(play(seed, asked.tasks, most, Path(folder), wide=not asked.narrow))
        print("  ".join(f"{name} {value}" for name, value in shown(seed, seen).items()), flush=True)
        for violation in seen.violations:
            print(f"  seed {seed}: {violation}", flush=True)
        violations += len(seen.violations)
        done += sum(seen.kills.values())
    print(f"{done} kills, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
