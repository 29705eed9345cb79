"""Chat completions on the wire: requests to JSON bodies, JSON answers and streams to replies. Pure."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from pydantic_core import from_json, to_json

from protocols.chat import ChatMessage, Finish, ModelReply, ModelRequest, ToolCall

GONE = frozenset({402, 410})
"""Statuses that say that an account has no credit left, or that a model was withdrawn."""

_FINISH = {
    "stop": Finish.STOP,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "length": Finish.LENGTH,
    "content_filter": Finish.REFUSED,
}


def body_of(request: ModelRequest, name: str, *, native_tools: bool = True, stream: bool = False) -> dict[str, Any]:
    """The body of a call, without the bound on its output, whose name differs between servers."""
    body: dict[str, Any] = {
        "model": name,
        "messages": [_message(one, native_tools) for one in request.messages],
        "temperature": request.temperature,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.tools:
        body["tools"] = [
            {"type": "function", "function": {"name": one.name, "description": one.description, "parameters": one.parameters}}
            for one in request.tools
        ]
    if request.output_schema is not None:
        schema, strict = closed(wrapped(request.output_schema))
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def reply_of(body: dict[str, Any], request: ModelRequest) -> ModelReply:
    """The reply in the body of an answer. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
    choice = body["choices"][0]
    message = choice["message"]
    text = message.get("content") or ""
    refusal = message.get("refusal")
    calls = tuple(
        ToolCall(id=one.get("id") or f"call-{place}", name=one["function"]["name"], arguments=_arguments(one["function"]))
        for place, one in enumerate(message.get("tool_calls") or ())
    )
    finish = _FINISH.get(choice.get("finish_reason") or "stop", Finish.STOP)
    if refusal:
        text, finish = str(refusal), Finish.REFUSED
    elif calls and finish is Finish.STOP:
        finish = Finish.TOOL_CALLS
    if request.output_schema is not None and not calls:
        text = unwrapped(text, request.output_schema)
    usage = body.get("usage") or {}
    return ModelReply(
        text=text,
        tool_calls=calls,
        finish=finish,
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
    )


class BrokenStream(Exception):
    """A stream that ended early, or with an error of the server's."""


class Streamed:
    """Puts a streamed answer together, line by line, as if it had come in one piece."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    def hear(self, line: bytes) -> None:
        """Take one line of the stream."""
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]" or not data:
            return
        event = from_json(data)
        if "error" in event:
            raise BrokenStream(f"the stream ended with an error: {str(event['error'])[:300]}")
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or ():
            self._finish = choice.get("finish_reason") or self._finish
            delta = choice.get("delta") or {}
            if delta.get("content"):
                self._text.append(delta["content"])
                self._on_text(delta["content"])
            if delta.get("refusal"):
                self._refusal.append(delta["refusal"])
            for piece in delta.get("tool_calls") or ():
                self._hear_call(piece)

    def whole(self) -> dict[str, Any]:
        """The body of the same answer in one piece; raises ``BrokenStream`` for a stream that broke off before its end."""
        if self._finish is None:
            raise BrokenStream("the stream broke off before the reply was finished")
        message = {"content": "".join(self._text), "refusal": "".join(self._refusal), "tool_calls": list(self._calls.values())}
        return {"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}

    def _hear_call(self, piece: dict[str, Any]) -> None:
        call = self._calls.setdefault(piece.get("index") or 0, {"id": None, "function": {"name": "", "arguments": ""}})
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, in an object with one field ``value`` unless it is an object itself: providers take no other root."""
    target = schema
    if set(schema) <= {"$ref", "$defs"} and "$ref" in schema:
        target = schema.get("$defs", {}).get(schema["$ref"].rsplit("/", 1)[-1], {})
    if target.get("type") == "object":
        return schema
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    outer: dict[str, Any] = {"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": False}
    return outer | ({"$defs": schema["$defs"]} if "$defs" in schema else {})


def unwrapped(text: str, schema: dict[str, Any]) -> str:
    """``text`` of a reply to ``wrapped(schema)`` as one to ``schema``."""
    if wrapped(schema) is schema:
        return text
    try:
        found = from_json(text)
    except ValueError:
        return text
    return to_json(found["value"]).decode() if isinstance(found, dict) and set(found) == {"value"} else text


def closed(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """``schema`` with every object closed to other fields, and whether it is in the subset that providers enforce strictly."""
    whole = deepcopy(schema)
    return whole, _close(whole)


def _close(part: Any) -> bool:
    if isinstance(part, list):
        return sum(not _close(one) for one in part) == 0  # every part is closed, also after one that is not strict
    if not isinstance(part, dict):
        return True
    strict = True
    properties = part.get("properties")
    if isinstance(properties, dict):
        part.setdefault("additionalProperties", False)
        strict = part["additionalProperties"] is False and set(part.get("required", ())) == set(properties)
    elif part.get("type") == "object":
        strict = False
    for key, value in part.items():
        if key in ("properties", "$defs") and isinstance(value, dict):
            strict = _close(list(value.values())) and strict
        elif key in ("items", "anyOf", "prefixItems"):
            strict = _close(value) and strict and key != "prefixItems"
        elif key in ("allOf", "oneOf", "default"):
            strict = False
    return strict


def _message(message: ChatMessage, native_tools: bool) -> dict[str, Any]:
    if message.role == "tool":
        if native_tools:
            return {"role": "tool", "tool_call_id": message.tool_call_id or "", "content": message.content}
        return {"role": "assistant", "content": f"Result of {message.tool_call_id}:\n{message.content}"}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    if native_tools:
        calls = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": _written(one.arguments)}}
            for one in message.tool_calls
        ]
        return {"role": message.role, "content": message.content or None, "tool_calls": calls}
    lines = [f"Call {one.id}: {one.name} {_written(one.arguments)}" for one in message.tool_calls]
    return {"role": message.role, "content": "\n".join([message.content, *lines]).strip()}


def _written(arguments: dict[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else to_json(arguments).decode()


def _arguments(function: dict[str, Any]) -> dict[str, Any] | str:
    given = function.get("arguments") or {}
    return given if isinstance(given, (dict, str)) else to_json(given).decode()
