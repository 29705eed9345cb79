"""A model that follows a script: for tests, examples and rehearsals without a provider."""

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import to_json

from agents.picking import ANSWER, PICK
from protocols.chat import FREE, Finish, ModelReply, ModelRequest, Need, Price, Profile, ToolCall
from protocols.failures import BadInput, ModelError
from protocols.trust import Origin

EVERYTHING = Profile(can=frozenset(Need), context_tokens=128_000)
"""The default profile: a scripted model can do all that a role may need."""

Script = Callable[[ModelRequest], Any]


def say(text: str, *, finish: Finish = Finish.STOP, input_tokens: int | None = None, output_tokens: int | None = None) -> ModelReply:
    """A reply in words. Token counts default to a quarter of the characters."""
    return ModelReply(text=text, finish=finish, input_tokens=input_tokens, output_tokens=output_tokens)


def call(tool: str, /, **arguments: Any) -> ToolCall:
    """A tool call; put several into one list for calls of one turn."""
    return ToolCall(id="", name=tool, arguments=arguments)


class ScriptedModel:
    """Replies from a list, or from a function of the request (sync or ``async def``).

    A reply is text, a ``ModelReply``, a ``ToolCall`` or a list of them, an exception to raise, or any JSON or pydantic value
    (sent as JSON text). In a list, a conversation with *n* messages of the assistant gets reply *n* (from 0): so agents in
    parallel, retries and resumed attempts each find their place, and an exception in a list is raised every time. One past the
    end raises ``ModelError``. Where the request is a scored choice, text is the label for every text and a list of text one
    label each. In schema-tool mode a ``ToolCall`` stands for the pick and for the arguments after it.

    ``latency`` is in seconds. ``calls`` counts the calls, and nothing else is remembered. Missing token counts are filled in
    as a quarter of the characters unless ``counts_tokens`` is off, which plays a provider that reports none. A reply that says it has more
    output tokens than the request allows is cut off (finish ``length``).
    """

    def __init__(
        self,
        script: Sequence[Any] | Script,
        *,
        name: str = "script",
        latency: float = 0.0,
        profile: Profile = EVERYTHING,
        price: Price | None = FREE,
        counts_tokens: bool = True,
    ) -> None:
        if isinstance(script, str):
            raise BadInput("a script is a list of replies or a function; put [ ] around the one you gave")
        self.script: Sequence[Any] | Script = script if callable(script) else list(script)
        self.id = f"scripted:{name}"
        self.latency, self.profile, self.price, self.counts_tokens = latency, profile, price, counts_tokens
        self.calls = 0

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        """A quarter of the characters of all messages and texts, and ``max_output_tokens``."""
        return _size(request), request.max_output_tokens

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """The script's reply to ``request``."""
        self.calls += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        script = self.script
        if callable(script):
            found = script(request)
            if inspect.iscoroutine(found):
                found = await found
        else:
            place = [message.origin for message in request.messages if message.role == "assistant"].count(Origin.MODEL)
            if place >= len(script):
                raise ModelError(f"the script of {self.id} has {len(script)} replies and was asked for number {place + 1}", charged=False)
            found = script[place]
        reply = _reply(found, request)
        if reply.output_tokens is not None and reply.output_tokens > request.max_output_tokens:
            reply = reply.model_copy(update={"output_tokens": request.max_output_tokens, "finish": Finish.LENGTH})
        if on_text is not None and reply.text:
            on_text(reply.text)
        if reply.input_tokens is None and self.counts_tokens:
            # The bound promises what is charged here; more would be an overspend.
            written = len(reply.text)
            for one in reply.tool_calls:
                written += len(str(one.arguments))
            return ModelReply(
                text=reply.text,
                tool_calls=reply.tool_calls,
                finish=reply.finish,
                input_tokens=_size(request),
                output_tokens=min(-(-written // 4), request.max_output_tokens) if reply.output_tokens is None else reply.output_tokens,
                labels=reply.labels,
                margins=reply.margins,
            )
        return reply

    async def aclose(self) -> None:
        """Nothing to release."""

    def __repr__(self) -> str:
        return f"ScriptedModel({self.id!r})"


def _size(request: ModelRequest) -> int:
    size = sum([len(message.content) for message in request.messages])
    if request.choice is not None:
        size += sum(len(text) for text in request.choice.texts)
    return size // 4 + 1


def _reply(found: Any, request: ModelRequest) -> ModelReply:
    if isinstance(found, BaseException) or (isinstance(found, type) and issubclass(found, BaseException)):
        raise found
    if request.choice is not None:
        return _chosen(found, request)
    if isinstance(found, ModelReply):
        return _picked(found, request) if _is_pick(request) else found
    calls = [found] if isinstance(found, ToolCall) else found
    if isinstance(calls, list) and calls and all(isinstance(one, ToolCall) for one in calls):
        if _is_pick(request):
            return ModelReply(text=json.dumps({"tool": calls[0].name}))
        if not request.tools and request.output_schema is not None:
            return ModelReply(text=to_json(calls[0].arguments).decode())
        place = len(request.messages)
        named = tuple(one if one.id else _named(one, f"call-{place}-{n}") for n, one in enumerate(calls))
        return ModelReply(tool_calls=named, finish=Finish.TOOL_CALLS)
    text = found if isinstance(found, str) else to_json(found).decode()
    return ModelReply(text=json.dumps({"tool": ANSWER})) if _is_pick(request) else ModelReply(text=text)


def _named(one: ToolCall, name: str) -> ToolCall:
    return ToolCall(id=name, name=one.name, arguments=one.arguments)


def _is_pick(request: ModelRequest) -> bool:
    return request.output_schema is not None and request.output_schema.get("title") == PICK


def _picked(found: ModelReply, request: ModelRequest) -> ModelReply:
    wanted = found.tool_calls[0].name if found.tool_calls else ANSWER
    return found.model_copy(update={"text": json.dumps({"tool": wanted}), "tool_calls": ()})


def _chosen(found: Any, request: ModelRequest) -> ModelReply:
    assert request.choice is not None
    labels = {one.label for one in request.choice.options}
    if isinstance(found, ModelReply):
        if found.labels:
            return found
        found = found.tool_calls[0] if found.tool_calls else found.text
    if isinstance(found, list) and found and isinstance(found[0], ToolCall):
        found = found[0]
    if isinstance(found, ToolCall):
        found = found.name
    if isinstance(found, str) and found not in labels and ANSWER in labels:
        found = ANSWER
    chosen = [found] * len(request.choice.texts) if isinstance(found, str) else list(found)
    if len(chosen) != len(request.choice.texts) or not labels.issuperset(chosen):
        raise ModelError(f"the script chose {chosen!r} and was asked for {len(request.choice.texts)} of {sorted(labels)}")
    return ModelReply(labels=tuple(chosen), margins=(1.0,) * len(chosen))
