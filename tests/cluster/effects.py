"""A receiver of effects in a process of its own: it knows each by its key, and writes down what it was asked for, in order.

``python -m tests.cluster.effects LOG`` prints its port. What it is to hold, before or after carrying it out, it answers only when it
is asked again.
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar


class Receiver(BaseHTTPRequestHandler):
    """POST carries an effect out, once for each key; GET says whether that was done."""

    log = Path()
    done: ClassVar[dict[str, str]] = {}
    seen: ClassVar[set[str]] = set()
    lock = threading.Lock()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key, arguments = asked["key"], hashlib.sha256(json.dumps(asked["arguments"], sort_keys=True).encode()).hexdigest()
        with self.lock:
            first = key not in self.seen
            self.seen.add(key)
            applied = key not in self.done and not (first and asked["hold"] == "before")
            if applied:
                self.done[key] = arguments
            line = {"key": key, "arguments": arguments, "applied": applied, "pid": asked["pid"]}
            with self.log.open("a") as log:
                log.write(json.dumps(line) + "\n")
        if first and asked["hold"]:
            threading.Event().wait()
        self._answer(200 if self.done.get(key) == arguments else 409, f"receipt of {key}")

    def do_GET(self) -> None:
        key = self.path.lstrip("/")
        self._answer(200 if key in self.done else 404, f"receipt of {key}")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    Receiver.log = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
