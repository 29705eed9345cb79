"""A server on loopback that speaks the wires of OpenAI, Anthropic and Google, and says or fails as a test scripts it."""

import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from agents.models.provider import ProviderModel
from tests.agents.models.listed import all_taker
from tests.loopback import Loopback

TOLD = (10, 5)
"""The input and output tokens that a reply reports."""


@dataclass(frozen=True)
class Said:
    """A reply. ``calls`` are pairs of a tool's name and its arguments as JSON text, right or wrong; ``cut`` breaks a stream off."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    usage: bool = True
    cut: bool = False
    length: bool = False


@dataclass(frozen=True)
class Fault:
    """An answer that is no reply."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str = '{"error": {"type": "api_error", "message": "because"}}'


Answer = Said | Fault
Script = Callable[[dict[str, Any]], Answer | Awaitable[Answer]]


class Wire(Loopback):
    """The server, seen by the clients of one provider. ``requests`` are the bodies that came; ``asked`` is set when there is one."""

    def __init__(self, provider: str) -> None:
        super().__init__(dict.fromkeys(("/v1/chat/completions", "/v1/messages", "/v1beta/models/{call}"), self._answer))
        self.provider = provider
        self.requests: list[dict[str, Any]] = []
        self.script: Script = lambda body: Said("ok")
        self.asked = threading.Event()

    def model(self, name: str | None = None, **settings: Any) -> ProviderModel:
        """A model of the provider at this server; without a name, one that takes all that a request has."""
        suffix = "/v1" if self.provider == "openai" else ""
        return ProviderModel(f"{self.provider}:{name or all_taker(self.provider)}", base_url=self.address + suffix, **settings)

    def results(self, body: dict[str, Any]) -> list[str]:
        """What tools gave, as the request shows it in the places for that."""
        if self.provider == "openai":
            return [one["content"] for one in body["messages"] if one["role"] == "tool"]
        if self.provider == "google":
            parts = [part for one in body["contents"] for part in one["parts"]]
            return [str(part["functionResponse"]["response"]) for part in parts if "functionResponse" in part]
        parts = [part for one in body["messages"] if isinstance(one["content"], list) for part in one["content"]]
        shown = [part["content"] for part in parts if part["type"] == "tool_result"]
        return [one if isinstance(one, str) else "".join(part["text"] for part in one) for one in shown]

    def system(self, body: dict[str, Any]) -> str:
        """The system prompt of a request, as JSON text."""
        if self.provider == "openai":
            return json.dumps([one["content"] for one in body["messages"] if one["role"] == "system"])
        return json.dumps(body.get("system") or body.get("systemInstruction") or "")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        self.requests.append(body)
        self.asked.set()
        answer = self.script(body)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Fault):
            return web.Response(status=answer.status, headers=dict(answer.headers), text=answer.body, content_type="application/json")
        whole, events = _WIRES[self.provider](answer, len(self.requests))
        if not body.get("stream") and not request.path.endswith(":streamGenerateContent"):
            return web.json_response(whole)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            name = f"event: {event['type']}\n" if "type" in event else ""
            await response.write(f"{name}data: {json.dumps(event)}\n\n".encode())
        return response


def _pieces(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def _openai(said: Said, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    functions = [{"name": name, "arguments": arguments} for name, arguments in said.calls]
    calls = [{"id": f"c{number}-{place}", "type": "function", "function": one} for place, one in enumerate(functions)]
    finish = "length" if said.length else "tool_calls" if calls else "stop"
    usage = {"prompt_tokens": TOLD[0], "completion_tokens": TOLD[1], "total_tokens": sum(TOLD)} if said.usage else None
    head = {"id": "x", "created": 1, "model": "m"}
    message = {"role": "assistant", "content": said.text or None, "tool_calls": calls or None}
    whole = head | {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return head | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    events = [chunk({"content": piece}) for piece in _pieces(said.text)]
    for place, one in enumerate(calls):
        events.append(chunk({"tool_calls": [{"index": place, **one, "function": {"name": one["function"]["name"], "arguments": ""}}]}))
        for piece in _pieces(one["function"]["arguments"]):
            events.append(chunk({"tool_calls": [{"index": place, "function": {"arguments": piece}}]}))
    if not said.cut:
        events += [chunk({}, finish), head | {"object": "chat.completion.chunk", "choices": [], "usage": usage}]
    return whole, events


def _anthropic(said: Said, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    finish = "max_tokens" if said.length else "tool_use" if said.calls else "end_turn"
    head = {"id": "x", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    ids = [f"c{number}-{place}" for place in range(len(said.calls))]
    content: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    events: list[dict[str, Any]] = []

    def block(start: dict[str, Any], deltas: list[dict[str, Any]]) -> None:
        index = sum(one["type"] == "content_block_start" for one in events)
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events.extend({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})

    if said.text:
        block({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in _pieces(said.text)])
    for name, (tool, arguments) in zip(ids, said.calls, strict=True):
        use = {"type": "tool_use", "id": name, "name": tool, "input": {}}
        block(use, [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(arguments)])
        try:
            content.append({**use, "input": json.loads(arguments)})
        except ValueError:
            content.append({**use, "input": arguments})  # no server sends this whole; only streams can break in the middle
    usage = {"input_tokens": TOLD[0], "output_tokens": TOLD[1]} if said.usage else {}
    whole = head | {"content": content, "stop_reason": finish, "usage": usage}
    begun = {"input_tokens": TOLD[0], "output_tokens": 1} if said.usage else {}
    events.insert(0, {"type": "message_start", "message": head | {"content": [], "stop_reason": None, "usage": begun}})
    if not said.cut:
        ended = {"output_tokens": TOLD[1]} if said.usage else {}
        events += [{"type": "message_delta", "delta": {"stop_reason": finish, "stop_sequence": None}, "usage": ended}]
        events += [{"type": "message_stop"}]
    return whole, events


def _google(said: Said, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    usage = {"promptTokenCount": TOLD[0], "candidatesTokenCount": TOLD[1], "totalTokenCount": sum(TOLD)} if said.usage else None
    calls = [{"functionCall": {"id": f"c{number}", "name": name, "args": json.loads(arguments)}} for name, arguments in said.calls]

    def answer(parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        candidate = {"index": 0, "content": {"role": "model", "parts": parts}} | ({"finishReason": finish} if finish else {})
        return {"candidates": [candidate], "modelVersion": "m"} | ({"usageMetadata": usage} if usage and finish else {})

    finish = "MAX_TOKENS" if said.length else "STOP"
    events = [answer([{"text": piece}], None) for piece in _pieces(said.text)] + [answer([one], None) for one in calls]
    if not said.cut:
        events.append(answer([], finish))
    return answer([{"text": said.text}] * bool(said.text) + calls, finish), events


_WIRES = {"openai": _openai, "anthropic": _anthropic, "google": _google}
