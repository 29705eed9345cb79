"""``callboard up`` and ``down``: a cluster that other commands find, whatever Ray asks of those who join it, and whoever has its ports."""

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from protocols.messages import Status

ROOT = Path(__file__).parents[2]
AGENT_PORT = 52365
"""Where Ray's own agent of a node takes jobs, unless it is told otherwise."""

TEAM = """\
from pathlib import Path

from agents import Role
from orchestrator import Team

def twice(file: str) -> int:
    return 2 * int(Path(file).read_text())

team = Team("twice", [Role("doubler", input=str, output=int, run=twice)])
"""


def test_where_a_token_is_at_hand_a_cluster_asks_for_it_and_is_joined_takes_a_job_and_ends(tmp_path: Path) -> None:
    file, folder, elsewhere = tmp_path / "twice.py", tmp_path / "here", tmp_path / "elsewhere"
    file.write_text(TEAM)
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "number").write_text("21")
    environment = {**os.environ, "CALLBOARD_HOME": str(tmp_path / "home"), "RAY_AUTH_TOKEN": secrets.token_hex(16), "PYTHONPATH": str(ROOT)}
    del environment["RAY_AUTH_MODE"]  # what the tests set for all others

    def told(*words: str, where: Path = folder) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "orchestrator.cli", *words]
        done = subprocess.run(command, env=environment, cwd=where, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done

    def said(*words: str) -> Any:
        return json.loads(told(*words, "--json").stdout)

    with ExitStack() as taken:
        with suppress(OSError):  # then somebody else has it
            other = taken.enter_context(socket.socket())
            other.bind(("0.0.0.0", AGENT_PORT))
            other.listen()
        up = told("up", "--dashboard-port", "0", "--hosts", "1", "--json")
    address = json.loads(up.stdout)["address"]
    try:
        assert json.loads((tmp_path / "home" / "cluster.json").read_text())["authentication"] == "token"
        assert "RAY_AUTH_MODE=token" in up.stderr
        for place in ((), ("--address", address)):
            ended = said("run", str(file), "--goal", "number", "--quiet", *place)
            assert (ended["status"], ended["output"]) == (Status.DONE, 42)
        assert "relative paths" not in told("run", str(file), "--goal", "number").stderr
        far = told("run", str(file), "--goal", "number", where=elsewhere)
        assert (far.stdout, far.stderr.splitlines()[0].count(str(folder))) == ("42\n", 1)
        job = told("submit", str(file), "--goal", "number", "--run-id", "job", where=elsewhere)
        assert job.stdout == "42\n"
        assert "1 task done" in job.stderr
        again = said("submit", str(file), "--goal", "number", "--run-id", "job")
        assert (again["run"], again["status"], again["output"]) == ("job", Status.DONE, 42)
    finally:
        assert said("down") == {"ended": True}
    host, port = address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port))).close()
    assert said("down") == {"ended": False}
