"""What every test shares: a home of its own, one Ray cluster a session, and a model endpoint on loopback that counts."""

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from aiohttp import web


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Journals of tests never meet those of the person who runs them; model weights are looked for where they are."""
    path = tmp_path_factory.mktemp("home")
    models = Path(os.environ.get("CALLBOARD_HOME", Path.home() / ".callboard")) / "models"
    models.mkdir(parents=True, exist_ok=True)
    (path / "models").symlink_to(models)
    os.environ["CALLBOARD_HOME"] = str(path)
    return path


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A local Ray that the runtime joins, because it is there already."""
    import logging

    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        namespace="callboard",
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.fixture(params=["inline", "ray"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Both runtimes; the behaviour is the same."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return str(request.param)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A journal of the test's own."""
    return str(tmp_path / "journal.db")


class Endpoint:
    """An OpenAI-compatible endpoint on loopback: counts requests, and answers what ``answer`` makes of each."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | Awaitable[Any]] = lambda request: said("ok")
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        self.requests.append(body)
        made = self.answer(body)
        if isinstance(made, Awaitable):
            made = await made
        return made if isinstance(made, web.StreamResponse) else web.json_response(made)


def said(text: str, calls: list[tuple[str, dict[str, Any]]] | None = None) -> dict[str, Any]:
    """A chat completion that says ``text``, or asks for tool calls."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for index, (name, arguments) in enumerate(calls)
        ]
    finish = "tool_calls" if calls else "stop"
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A counting model endpoint."""
    made = Endpoint()
    made.start()
    yield made
    made.stop()
