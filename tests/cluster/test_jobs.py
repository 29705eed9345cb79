"""What Ray's job server answers, over real HTTP."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import ray

from orchestrator.jobs import Job, Jobs
from protocols.failures import BadInput


class Dashboard(BaseHTTPRequestHandler):
    """A dashboard that has no agent to give a job to."""

    def do_GET(self) -> None:
        version = {"version": "4", "ray_version": ray.__version__, "ray_commit": ray.__commit__, "session_name": "none"}
        self._answer(200, json.dumps(version if self.path == "/api/version" else []))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(500, "No available agent to submit job, please try again later.")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def dashboard() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_where_no_node_takes_jobs_it_is_said_what_to_do(dashboard: str) -> None:
    with pytest.raises(BadInput, match=r"takes jobs; .*--dashboard-agent-listen-port=0"):
        Jobs(dashboard).submit(Job(run_id="mine", arguments=("team.py",)))
