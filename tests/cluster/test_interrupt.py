"""A run that is interrupted while Ray starts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
TEAM = """\
from agents import Role
from orchestrator import Team

team = Team("upper", [Role("upper", input=str, output=str, run=str.upper)])
"""


def test_a_run_that_is_interrupted_while_ray_starts_ends_with_all_that_was_started(tmp_path: Path) -> None:
    file = tmp_path / "upper.py"
    file.write_text(TEAM)
    environment = {**os.environ, "CALLBOARD_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(file), "--goal", "a", "--json"]
    run = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    below: list[psutil.Process] = []
    until = time.monotonic() + 60
    while not any(one.name().startswith("raylet") for one in below):
        assert time.monotonic() < until
        time.sleep(0.02)
        below = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    out, said = run.communicate(timeout=60)
    assert json.loads(out) == {"run": None, "status": "interrupted", "exit_code": 130, "resume": None}
    assert (run.returncode, said) == (130, "callboard: interrupted; nothing was started\n")
    assert psutil.wait_procs(below, timeout=30)[1] == []
