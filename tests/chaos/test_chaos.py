"""A bounded piece of chaos, the rounds that found something once. ``python -m tests.chaos --kills 500`` is the whole of it."""

import subprocess
import sys
from pathlib import Path


def test_whatever_is_killed_each_effect_happens_once_and_the_output_is_the_same() -> None:
    # in a process of its own, for it joins a cluster and kills children
    command = [sys.executable, "-m", "tests.chaos", "--found"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert " kills, 0 violations" in done.stdout
