"""An effect ledger in a process of its own: whatever happened in the world stands in its file, however the rest dies.

``python -m tests.chaos.effects FILE`` listens on a free port of loopback and prints it. ``POST /write`` takes ``{key, mode, arguments}``;
with mode ``dedupe`` a key that is known changes nothing, with mode ``plain`` every call does. ``GET /count?key=`` says how often.
"""

import asyncio
import hashlib
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web


class Effects:
    """What happened, by key; each call is a line of ``file``: its number, key, mode, a hash of its arguments, and whether it counted."""

    def __init__(self, file: Path) -> None:
        self.counted: Counter[str] = Counter()
        self._file = file.open("a", buffering=1)
        self._calls = 0
        self._dice = random.Random(7)

    async def write(self, request: web.Request) -> web.Response:
        """Have an effect, some time after the call came in and some time before it is answered."""
        body = await request.json()
        await asyncio.sleep(self._dice.uniform(0.0, 0.14))
        key, mode = body["key"], body["mode"]
        counts = mode == "plain" or not self.counted[key]
        self.counted[key] += counts
        self._calls += 1
        arguments = hashlib.sha256(json.dumps(body["arguments"], sort_keys=True).encode()).hexdigest()[:16]
        self._file.write(json.dumps({"call": self._calls, "key": key, "mode": mode, "arguments": arguments, "counted": counts}) + "\n")
        await asyncio.sleep(self._dice.uniform(0.0, 0.14))
        return web.json_response({"times": self.counted[key]})

    async def count(self, request: web.Request) -> web.Response:
        """How often a key took effect."""
        return web.json_response({"times": self.counted[request.query["key"]]})


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a ledger's file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def _serve(file: Path) -> None:
    effects = Effects(file)
    app = web.Application()
    app.add_routes([web.post("/write", effects.write), web.get("/count", effects.count)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
