"""The most input tokens that a request can be charged for, whatever its words are."""

from pydantic_core import to_json

from protocols.chat import ModelRequest

MESSAGE_TOKENS = 16
"""Counted for each message and tool call besides its bytes; chat templates of common models take 3 to 10."""
REQUEST_TOKENS = 64
"""Counted for each request, tool and schema besides its bytes."""


def input_tokens(request: ModelRequest) -> int:
    """One token for each byte, which byte-level tokenisers cannot pass, and what templates put around messages, tools and schema."""
    size = REQUEST_TOKENS
    for message in request.messages:
        size += MESSAGE_TOKENS + _bytes(message.content)
        for call in message.tool_calls:
            size += MESSAGE_TOKENS + _bytes(call.name) + len(to_json(call.arguments))
    for tool in request.tools:
        size += REQUEST_TOKENS + _bytes(tool.name) + _bytes(tool.description) + len(to_json(tool.parameters))
    if request.output_schema is not None:
        size += REQUEST_TOKENS + len(to_json(request.output_schema))
    return size


def _bytes(text: str) -> int:
    # Strings know whether they are ASCII: a long conversation is not read through again before every call.
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
