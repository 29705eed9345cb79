"""Whole processes: what they answer and how long they take; and a warm cluster for them."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CALLBOARD = [sys.executable, "-m", "orchestrator.cli"]
SECONDS = 300


class Took(NamedTuple):
    """A process from start to exit: when it began, in seconds since the epoch, how many it took, and the JSON object that it wrote."""

    began: float
    seconds: float
    said: dict[str, Any]

    def parts(self) -> dict[str, float]:
        """Its ``stages``, each with the seconds since the one before; ``exit`` is what came after the last."""
        moments = [*self.said["stages"], ["exit", self.began + self.seconds]]
        starts = [self.began, *(at for _, at in moments)]
        return {name: at - before for (name, at), before in zip(moments, starts, strict=False)}


def took(command: list[str], environment: Mapping[str, str]) -> Took:
    """Run ``command`` to its end; its answer must be there and right."""
    began = time.time()
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS)
    seconds = time.time() - began
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["output"] == 1, done.stdout
    return Took(began, seconds, said)


def medians(all_parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The median of each part."""
    rows = list(all_parts)
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


@contextmanager
def own_home() -> Iterator[dict[str, str]]:
    """The environment with a home folder of its own, as long as it lasts."""
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as home:
        yield {"CALLBOARD_HOME": home}


@contextmanager
def warm_cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster from ``callboard up`` to ``callboard down``, on ports that are free: its address, and the environment to reach it."""
    with own_home() as environment:
        everything = {**os.environ, **environment}
        up = [*CALLBOARD, "up", "--dashboard-port", "0", "--json"]
        done = subprocess.run(up, env=everything, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        try:
            cluster = json.loads(Path(environment["CALLBOARD_HOME"], "cluster.json").read_text())
            yield cluster["address"], environment | {"RAY_AUTH_MODE": cluster["authentication"]}
        finally:
            subprocess.run([*CALLBOARD, "down"], env=everything, capture_output=True, timeout=SECONDS, check=True)
