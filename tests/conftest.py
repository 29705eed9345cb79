"""What every test shares: a home of its own, one Ray cluster a session, and a model endpoint on loopback that counts."""

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from aiohttp import web

from tests.loopback import Loopback


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


class Endpoint(Loopback):
    """An OpenAI-compatible endpoint on loopback: counts requests, and answers what ``answer`` makes of each."""

    def __init__(self) -> None:
        super().__init__({"/v1/chat/completions": self._complete})
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | Awaitable[Any]] = lambda request: said("ok")

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

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
