"""The embedded model on a real engine with real weights; and its failures, against a real endpoint on loopback."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from agents import Role
from agents.models.embedded import EmbeddedModel
from agents.models.llama import Endpoint, LlamaServer
from agents.models.port import Model
from agents.models.provider import ProviderModel
from agents.models.weights import WeightsUnavailable, pull
from orchestrator import Board, RunResult, Team
from protocols.budget import Limits
from protocols.chat import FREE, ChatMessage, Choice, Finish, ModelReply, ModelRequest, Need, Option, Profile, ToolSpec
from protocols.failures import BadInput, ModelError
from protocols.messages import PartialOutput


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(le=150)


ASK = ModelRequest(messages=(ChatMessage(role="user", content="Say hello."),), max_output_tokens=12)

TEAMS = (
    Option(label="billing", description="billing, invoices, charges and refunds"),
    Option(label="bug", description="software bugs, crashes and errors"),
    Option(label="account", description="account access, passwords and login"),
    Option(label="shipping", description="shipping, delivery and damaged parcels"),
)
TRIAGE = (
    ("I was charged twice for my subscription this month.", "billing"),
    ("Please send me a copy of my last invoice.", "billing"),
    ("My refund has not arrived yet.", "billing"),
    ("The app crashes every time I open the settings page.", "bug"),
    ("I get error 500 when I upload a photo.", "bug"),
    ("The screen freezes after I press save.", "bug"),
    ("I forgot my password and the reset email never comes.", "account"),
    ("I cannot log in with my new phone number.", "account"),
    ("My account has been locked after three attempts.", "account"),
    ("The box arrived crushed and the vase is broken.", "shipping"),
    ("The courier left the package at the wrong address.", "shipping"),
    ("Can you tell me where my order is right now?", "shipping"),
)


@pytest.fixture(scope="module")
def weights() -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install 'callboard[local]'")
    try:
        return pull("smollm2-135m")
    except WeightsUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def engine(weights: Path) -> Iterator[Endpoint]:
    server = LlamaServer()
    yield server.start(weights, "smollm2-135m")
    server.stop()


def ask(endpoint: Endpoint, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
    async def connect() -> Endpoint:
        return endpoint

    async def body() -> ModelReply:
        model = EmbeddedModel(connect=connect)
        try:
            reply = await model.complete(request, on_text)
        finally:
            await model.aclose()
        bound = model.bound(request)
        assert (reply.input_tokens or 0) <= bound[0]
        assert (reply.output_tokens or 0) <= bound[1]
        return reply

    return asyncio.run(body())


def test_embedded_model_is_a_model_and_free() -> None:
    model = EmbeddedModel()
    assert isinstance(model, Model)
    assert (model.id, model.price) == ("embedded:smollm2-135m", FREE)


def test_chat_gives_text_usage_and_the_reason_it_stopped(engine: Endpoint) -> None:
    reply = ask(engine, ASK)
    assert reply.text
    assert reply.finish is Finish.LENGTH
    assert reply.output_tokens == 12
    assert reply.input_tokens


def test_streamed_pieces_join_to_the_reply(engine: Endpoint) -> None:
    pieces: list[str] = []
    reply = ask(engine, ASK, pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text
    assert reply.output_tokens == 12


def test_output_fits_the_schema(engine: Endpoint) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    question = ChatMessage(role="user", content="Bob is 42 years old. Give name and age.")
    answer = json.loads(ask(engine, ModelRequest(messages=(question,), output_schema=schema, max_output_tokens=60)).text)
    assert set(answer) == {"name", "age"}
    assert isinstance(answer["age"], int)


def test_the_engine_serves_a_provider_model_by_its_base_url(engine: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENGINE_KEY", engine.api_key)
    can = Profile(can=frozenset({Need.TEXT, Need.JSON_SCHEMA}), context_tokens=4096)
    model = ProviderModel(f"openai:{engine.model}", base_url=f"{engine.url}/v1", api_key_env="ENGINE_KEY", profile=can)
    talker = Role("talker", instructions="Be brief.", model=model, max_output_tokens=12)
    reader = Role("reader", output=Person, model=model, max_output_tokens=60)

    async def main() -> tuple[list[str], RunResult, RunResult]:
        async with Board(runtime="inline", store=str(tmp_path / "journal.db")) as board:
            handle = await board.start(Team("reading", [reader]), "Bob is 42 years old. Give name and age.")
            read = await handle.result()
            handle = await board.start(Team("talking", [talker]), "Say hello.", budget=Limits(tokens=2_000))
            heard = [one.body.text async for one in handle.events() if isinstance(one.body, PartialOutput)]
            return heard, await handle.result(), read

    heard, talked, read = asyncio.run(main())
    assert isinstance(read.output, Person)
    assert 0 < read.usage.output_tokens <= 60
    assert 0 < read.usage.input_tokens < 100
    assert heard  # a reply cut off at its limit is asked for again, shorter; what was said is heard and counted either way
    assert talked.usage.output_tokens <= 12 * talked.usage.model_calls


def test_prompt_beyond_the_context_is_an_error_that_repeating_does_not_help(engine: Endpoint) -> None:
    long = ModelRequest(messages=(ChatMessage(role="user", content="word " * 12000),))
    with pytest.raises(ModelError) as caught:
        ask(engine, long)
    assert not caught.value.retryable
    assert not caught.value.charged


def test_wrong_key_is_refused(engine: Endpoint) -> None:
    with pytest.raises(ModelError, match="401"):
        ask(engine._replace(api_key="wrong"), ASK)


def test_smallest_model_sorts_at_least_three_of_four_messages_right(engine: Endpoint) -> None:
    reply = ask(engine, ModelRequest(choice=Choice(texts=tuple(text for text, _ in TRIAGE), options=TEAMS)))
    right = sum(label == wanted for label, (_, wanted) in zip(reply.labels, TRIAGE, strict=True))
    assert right >= 9, list(zip(reply.labels, reply.margins, strict=True))


def test_scores_do_not_depend_on_what_else_the_engine_computes(engine: Endpoint) -> None:
    texts = ("an HTTP client for async code", "JSON schema validation", "colours in the terminal", "certificates and keys", "log lines")
    options = tuple(Option(label=word, description=f"{word} and related work") for word in ("networking", "data", "terminal"))

    async def margins() -> tuple[float, ...]:
        model = EmbeddedModel(connect=lambda: _given(engine))
        try:
            return (await model.complete(ModelRequest(choice=Choice(texts=texts, options=options)))).margins
        finally:
            await model.aclose()

    async def alone_and_together() -> list[tuple[float, ...]]:
        return [await margins(), *await asyncio.gather(margins(), margins(), margins())]

    first, *others = asyncio.run(alone_and_together())
    assert others == [first] * 3


async def _given(endpoint: Endpoint) -> Endpoint:
    return endpoint


def test_text_that_spells_control_tokens_is_scored_as_text(engine: Endpoint) -> None:
    texts = ("<|im_end|> <|im_start|>system", "Unicode: déjà vu 🎭 ", "a a a a a a")
    reply = ask(engine, ModelRequest(choice=Choice(texts=texts, options=TEAMS[:2])))
    assert len(reply.labels) == len(reply.margins) == 3


def test_engine_prints_nothing(weights: Path) -> None:
    code = (
        "import sys, urllib.request; from pathlib import Path; from agents.models.llama import LlamaServer; server = LlamaServer(); "
        "server.start(Path(sys.argv[1])); server.stop()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(weights)], capture_output=True, text=True, timeout=60, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_engine_refuses_a_file_that_is_no_model(tmp_path: Path, weights: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        LlamaServer().start(broken)


def test_native_tools_are_refused_before_anything_is_sent() -> None:
    request = ASK.model_copy(update={"tools": (ToolSpec(name="t", description="", parameters={}),)})

    async def connect() -> Endpoint:
        raise AssertionError("nothing may be sent")

    with pytest.raises(ModelError, match="schema-tool mode"):
        asyncio.run(EmbeddedModel(connect=connect).complete(request))


def test_missing_engine_names_the_extra(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(BadInput, match=r"callboard\[local\]"):
        LlamaServer().start(weights)


async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]], body: Callable[[str], Awaitable[Any]]) -> Any:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        return await body(f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


async def hello(_: web.Request) -> web.StreamResponse:
    message = {"message": {"content": "hello"}, "finish_reason": "stop"}
    return web.json_response({"choices": [message], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})


def test_dead_endpoint_is_asked_for_anew_once() -> None:
    async def body(url: str) -> list[str]:
        found = iter(["http://127.0.0.1:9", url])

        async def connect() -> Endpoint:
            return Endpoint(next(found), "key", "m")

        model = EmbeddedModel(connect=connect)
        reply = await model.complete(ASK)
        await model.aclose()
        return [reply.text]

    assert asyncio.run(served(hello, body)) == ["hello"]


def test_server_that_stays_dead_is_a_retryable_error() -> None:
    async def connect() -> Endpoint:
        return Endpoint("http://127.0.0.1:9", "key", "m")

    async def body() -> None:
        model = EmbeddedModel(connect=connect)
        try:
            await model.complete(ASK)
        finally:
            await model.aclose()

    with pytest.raises(ModelError) as caught:
        asyncio.run(body())
    assert caught.value.retryable
    assert not caught.value.charged


def test_answer_that_takes_too_long_is_a_retryable_error() -> None:
    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return web.json_response({})

    async def body(url: str) -> None:
        async def connect() -> Endpoint:
            return Endpoint(url, "key", "m")

        model = EmbeddedModel(connect=connect, timeout=0.1)
        try:
            await model.complete(ASK)
        finally:
            await model.aclose()

    with pytest.raises(ModelError, match=r"0\.1 s") as caught:
        asyncio.run(served(slow, body))
    assert caught.value.retryable


def test_failing_scored_choice_raises_the_servers_error() -> None:
    async def failing(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "loading"}}, status=503)

    async def body(url: str) -> None:
        async def connect() -> Endpoint:
            return Endpoint(url, "key", "m")

        model = EmbeddedModel(connect=connect)
        try:
            await model.complete(ModelRequest(choice=Choice(texts=("x", "y"), options=TEAMS)))
        finally:
            await model.aclose()

    with pytest.raises(ModelError, match="loading") as caught:
        asyncio.run(served(failing, body))
    assert caught.value.retryable
