"""The embedded model: a small language model on this machine, spoken to over loopback HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from agents.models.catalogue import DEFAULT, PROVIDER, Entry, LocalModel, find
from agents.models.llama import SLOTS, Endpoint, LlamaServer
from agents.models.scoring import Scorer
from agents.models.scoring import bound as choice_bound
from agents.models.weights import WeightsUnavailable, pull
from protocols.chat import FREE, ChatMessage, Finish, ModelReply, ModelRequest, Price, Profile
from protocols.failures import ModelError

Connect = Callable[[], Awaitable[Endpoint]]
"""Gives the endpoint of a running model server, starting one when needed. Called again when an endpoint has died."""

_TIMEOUT = 300.0
_MESSAGE_TOKENS = 16  # what a chat template puts around one message
_TEMPLATE_TOKENS = 64  # what the templates of the catalogue put around a conversation (a default system message)
_LOCAL_TEMPLATE_TOKENS = 1024  # room for the template of a model that nobody measured
_FINISHES = {"length": Finish.LENGTH, "content_filter": Finish.REFUSED}

_engine = LlamaServer()


def in_process(model: str = DEFAULT) -> Connect:
    """A ``Connect`` that fetches ``model`` if it is missing and runs its engine in this process, one for all callers."""

    async def connect() -> Endpoint:
        entry = find(model)
        path = await asyncio.to_thread(pull, model)
        return await asyncio.to_thread(_engine.start, path, entry.id)

    return connect


def stop_in_process() -> None:
    """Stop the engine that ``in_process`` started, if it runs."""
    _engine.stop()


class EmbeddedModel:
    """A ``Model`` on a llama.cpp server. ``timeout`` is in seconds for one call, waiting for a slot included.

    Raises ``BadInput`` for a model that is not in the catalogue and no GGUF file.
    """

    def __init__(self, model: str = DEFAULT, connect: Connect | None = None, *, timeout: float = _TIMEOUT) -> None:
        self._entry: Entry | LocalModel = find(model)
        self._connect = connect
        self._model = model
        self._timeout = timeout
        self._scorer = Scorer(self._entry.scoring, concurrency=SLOTS)
        self._endpoint: Endpoint | None = None
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting: asyncio.Lock | None = None

    @property
    def id(self) -> str:
        """``embedded:`` and the catalogue's name or the file's path."""
        return f"{PROVIDER}:{self._entry.id}"

    @property
    def profile(self) -> Profile:
        """What the catalogue says of this model."""
        return self._entry.profile

    @property
    def price(self) -> Price:
        """Free: it runs here."""
        return FREE

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        """An upper bound on the tokens of ``complete(request)``: every byte counts as a token, and nothing as cached."""
        if request.choice is not None:
            return choice_bound(request.choice, self._entry.scoring)
        size = _TEMPLATE_TOKENS if isinstance(self._entry, Entry) else _LOCAL_TEMPLATE_TOKENS
        for message in map(_message, request.messages):
            size += _MESSAGE_TOKENS + sum(len(part.encode("utf-8", "replace")) for part in message.values())
        if request.output_schema is not None:
            size += len(json.dumps(request.output_schema).encode())
        return size, request.max_output_tokens

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Answer ``request``. Native tools are refused: use the schema-tool mode, which asks for JSON under a schema.

        Raises ``ModelError``: retryable when the server was lost, busy beyond the timeout or failed; not retryable for a
        request that it cannot serve. Nothing is ever charged.
        """
        if request.tools:
            raise ModelError(
                f"The model {self.id} has no native tool calls. Use the schema-tool mode, or a model with native tools.", charged=False
            )
        await self._connected()  # fetching and loading a model have no part in the time of a call
        try:
            async with asyncio.timeout(self._timeout):
                if request.choice is not None:
                    found = await self._scorer.choose(request.choice, self._post)
                    return ModelReply(labels=found.labels, margins=found.margins, input_tokens=found.given, output_tokens=found.scored)
                if on_text is None:
                    return _reply(await self._post("/v1/chat/completions", _body(request)))
                return await self._stream(_body(request) | {"stream": True, "stream_options": {"include_usage": True}}, on_text)
        except TimeoutError:
            raise ModelError(
                f"The model {self.id} gave no answer in {self._timeout:g} s. Ask for less at once, or allow more time.",
                retryable=True,
                charged=False,
            ) from None
        except ExceptionGroup as group:  # from the scorer's task group: the first failure says why
            raise group.exceptions[0] from None

    async def aclose(self) -> None:
        """Close the connections. The engine is left to whoever started it."""
        session, self._session, self._endpoint = self._session, None, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_endpoint": None, "_session": None, "_loop": None, "_connecting": None}

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._answered(path, body) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def _stream(self, body: dict[str, Any], on_text: Callable[[str], None]) -> ModelReply:
        text: list[str] = []
        finish: str | None = None
        usage: dict[str, Any] = {}
        async with self._answered("/v1/chat/completions", body) as response:
            async for line in response.content:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise ModelError(f"The model server failed ({_complaint(event)}).", retryable=True, charged=False)
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    finish = choice.get("finish_reason") or finish
                    if piece := choice.get("delta", {}).get("content"):
                        text.append(piece)
                        on_text(piece)
        if finish is None:
            raise _lost(ConnectionError("the stream ended early"))
        return _reply({"choices": [{"message": {"content": "".join(text)}, "finish_reason": finish}], "usage": usage})

    @asynccontextmanager
    async def _answered(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response of status 200. What goes wrong while it is read is a lost connection; ``on_text`` heard half of it."""
        response = await self._sent(path, body)
        async with response:
            if response.status != 200:
                raise await _refusal(response)
            try:
                yield response
            except (aiohttp.ClientError, json.JSONDecodeError) as error:
                raise _lost(error) from None

    async def _sent(self, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """Send, and when the server cannot be reached ask once for an endpoint anew."""
        endpoint, session = await self._connected()
        try:
            return await _post_to(session, endpoint, path, body)
        except aiohttp.ClientConnectionError:
            if self._endpoint is endpoint:
                self._endpoint = None
        endpoint, session = await self._connected()
        try:
            return await _post_to(session, endpoint, path, body)
        except aiohttp.ClientError as error:
            raise _lost(error) from None

    async def _connected(self) -> tuple[Endpoint, aiohttp.ClientSession]:
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._session is None or self._connecting is None:
            # A session belongs to one loop; a new asyncio.run gets a new one.
            self._loop, self._connecting = loop, asyncio.Lock()
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))
        session = self._session
        async with self._connecting:
            if self._endpoint is None:
                try:
                    self._endpoint = await (self._connect or in_process(self._model))()
                except WeightsUnavailable as error:
                    raise ModelError(str(error), retryable=True, charged=False) from None
            return self._endpoint, session


async def _post_to(session: aiohttp.ClientSession, endpoint: Endpoint, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
    return await session.post(endpoint.url + path, json=body, headers={"Authorization": f"Bearer {endpoint.api_key}"})


def _message(message: ChatMessage) -> dict[str, str]:
    content = message.content
    if message.tool_calls:
        calls = [{"tool": call.name, "arguments": call.arguments} for call in message.tool_calls]
        content = "\n".join(filter(None, (content, *(json.dumps(call, ensure_ascii=False) for call in calls))))
    return {"role": message.role, "content": content}


def _body(request: ModelRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [_message(message) for message in request.messages],
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.output_schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": request.output_schema}}
    return body


def _reply(answer: dict[str, Any]) -> ModelReply:
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        return ModelReply(
            text=choice["message"].get("content") or "",
            finish=_FINISHES.get(choice.get("finish_reason"), Finish.STOP),
            input_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
        )
    except (KeyError, IndexError, TypeError):
        raise ModelError("The model server gave an answer of another shape. Use the pinned version of xllamacpp.") from None


def _lost(error: Exception) -> ModelError:
    return ModelError(f"The connection to the model server was lost ({error}).", retryable=True, charged=False)


async def _refusal(response: aiohttp.ClientResponse) -> ModelError:
    try:
        complaint = _complaint(json.loads(await response.text()))
    except (aiohttp.ClientError, ValueError, AttributeError):
        complaint = response.reason or "no reason given"
    retryable = response.status >= 500 or response.status == 429
    return ModelError(f"The model server refused the call ({response.status}: {complaint}).", retryable=retryable, charged=False)


def _complaint(event: dict[str, Any]) -> str:
    error = event.get("error")
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
