"""``callboard up`` and ``down``: a cluster that other commands find, whatever Ray asks of those who join it."""

import json
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocols.messages import Status

TEAM = """\
from agents import Role
from orchestrator import Team

def twice(n: int) -> int:
    return 2 * n

team = Team("twice", [Role("doubler", input=int, output=int, run=twice)])
"""


def test_where_a_token_is_at_hand_a_cluster_asks_for_it_and_is_joined_and_ended(tmp_path: Path) -> None:
    file = tmp_path / "twice.py"
    file.write_text(TEAM)
    environment = {**os.environ, "CALLBOARD_HOME": str(tmp_path / "home"), "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    del environment["RAY_AUTH_MODE"]  # what the tests set for all others

    def said(*words: str) -> Any:
        command = [sys.executable, "-m", "orchestrator.cli", *words, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    address = said("up", "--no-dashboard", "--hosts", "1")["address"]
    try:
        assert json.loads((tmp_path / "home" / "cluster.json").read_text())["authentication"] == "token"
        for place in ((), ("--address", address)):
            ended = said("run", str(file), "--goal", "21", "--quiet", *place)
            assert (ended["status"], ended["output"]) == (Status.DONE, 42)
    finally:
        assert said("down") == {"ended": True}
    host, port = address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port))).close()
    assert said("down") == {"ended": False}
