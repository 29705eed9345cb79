"""The HTTP model against a real server on loopback."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import cloudpickle
import pytest
from aiohttp import web
from pydantic import TypeAdapter

from agents import Role, call, tool
from agents.models.http import HttpModel
from agents.models.wire import body_of, closed, wrapped
from protocols.chat import ChatMessage, Finish, ModelReply, ModelRequest, Need, Price, Profile, ToolCall, ToolSpec
from protocols.failures import ModelError
from tests.agents.bench import working

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ASK = ModelRequest(messages=(ChatMessage(role="user", content="hi"),), max_output_tokens=9)


def serving(handler: Handler, use: Callable[[HttpModel], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model = HttpModel(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "m", **settings)
        try:
            return await use(model)
        finally:
            await model.aclose()
            await runner.cleanup()

    return asyncio.run(main())


def answer(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def replying(
    message: dict[str, Any], finish: str = "stop", request: ModelRequest = ASK, **settings: Any
) -> tuple[ModelReply, dict[str, Any]]:
    seen: dict[str, Any] = {}

    async def handler(asked: web.Request) -> web.Response:
        seen.update(await asked.json(), authorization=asked.headers.get("Authorization"))
        return web.json_response(answer(message, finish))

    return serving(handler, lambda model: model.complete(request), **settings), seen


def failing(handler: Handler, **settings: Any) -> ModelError:
    async def use(model: HttpModel) -> ModelError:
        with pytest.raises(ModelError) as caught:
            await model.complete(ASK)
        return caught.value

    found = serving(handler, use, **settings)
    assert isinstance(found, ModelError)
    return found


def test_text_and_usage_come_back() -> None:
    reply, seen = replying({"content": "hello"}, api_key="secret", extra={"top_p": 0.5})
    assert (reply.text, reply.finish, reply.input_tokens, reply.output_tokens) == ("hello", Finish.STOP, 7, 3)
    assert seen["messages"] == [{"role": "user", "content": "hi"}]
    assert (seen["max_tokens"], seen["top_p"], seen["authorization"]) == (9, 0.5, "Bearer secret")


def test_tool_calls_go_and_come_natively() -> None:
    spec = ToolSpec(name="f", description="d", parameters={"type": "object"})
    past = ToolCall(id="c0", name="f", arguments={"n": 1})
    messages = (
        ChatMessage(role="assistant", content="", tool_calls=(past,)),
        ChatMessage(role="tool", content="one", tool_call_id="c0"),
    )
    function = {"name": "f", "arguments": '{"n": 2}'}
    wrong = {"name": "f", "arguments": "{n"}
    reply, seen = replying(
        {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": one} for one in (function, wrong)]},
        "tool_calls",
        ModelRequest(messages=messages, tools=(spec,)),
    )
    assert [one.arguments for one in reply.tool_calls] == [{"n": 2}, "{n"]
    assert reply.finish is Finish.TOOL_CALLS
    assert seen["tools"][0]["function"]["name"] == "f"
    assert json.loads(seen["messages"][0]["tool_calls"][0]["function"]["arguments"]) == {"n": 1}
    assert seen["messages"][1] == {"role": "tool", "tool_call_id": "c0", "content": "one"}


def test_tool_talk_stays_out_of_the_users_mouth_without_native_tools() -> None:
    messages = (
        ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c0", name="f", arguments={}),)),
        ChatMessage(role="tool", content="one", tool_call_id="c0"),
    )
    body = body_of(ModelRequest(messages=messages), "m", native_tools=False)
    assert [one["role"] for one in body["messages"]] == ["assistant", "assistant"]


def test_schemas_are_sent_as_objects_and_unwrapped() -> None:
    schema = TypeAdapter(list[int]).json_schema()
    reply, seen = replying({"content": '{"value": [1, 2]}'}, request=ASK.model_copy(update={"output_schema": schema}))
    assert reply.text == "[1,2]"
    sent = seen["response_format"]["json_schema"]
    assert sent["schema"]["properties"] == {"value": schema}
    assert sent["strict"] is True


def test_only_schemas_that_providers_enforce_are_strict() -> None:
    assert closed({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})[1]
    assert not closed({"type": "object", "properties": {"a": {"type": "integer"}}})[1]
    assert not closed({"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"]})[1]
    assert wrapped({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}) == {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}
    assert "$defs" in wrapped({"$ref": "#/$defs/A", "$defs": {"A": {"enum": ["x"]}}})


def test_reasons_to_stop_are_told_apart() -> None:
    assert replying({"content": "a"}, "length")[0].finish is Finish.LENGTH
    assert replying({"content": ""}, "content_filter")[0].finish is Finish.REFUSED
    refused = replying({"content": None, "refusal": "I can't"})[0]
    assert (refused.finish, refused.text) == (Finish.REFUSED, "I can't")


@pytest.mark.parametrize(
    ("status", "headers", "retryable", "retry_after", "charged"),
    [
        (429, {"Retry-After": "7"}, True, 7.0, False),
        (503, {"Retry-After": "0.5"}, True, 0.5, False),
        (503, {}, True, None, False),
        (500, {}, True, None, True),
        (504, {}, True, None, True),
        (400, {}, False, None, False),
        (401, {}, False, None, False),
        (404, {}, False, None, False),
        (410, {}, False, None, False),
        (422, {}, False, None, False),
    ],
)
def test_statuses_say_whether_to_try_again_and_who_pays(
    status: int, headers: dict[str, str], retryable: bool, retry_after: float | None, charged: bool
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "because"}}, status=status, headers=headers)

    error = failing(handler, api_key="secret")
    assert (error.retryable, error.retry_after, error.charged) == (retryable, retry_after, charged)
    assert error.elsewhere == (status in (401, 404, 410))
    assert f"{status}: because" in str(error)
    assert "secret" not in str(error)


def test_a_date_to_retry_after_is_seconds_from_now() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "Mon, 01 Jan 2125 00:00:00 GMT"})

    assert (failing(handler).retry_after or 0) > 1e9


def test_a_spent_quota_is_not_retried() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "pay", "code": "insufficient_quota"}}, status=429)

    assert not failing(handler).retryable


def test_silence_may_have_been_charged() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response()

    error = failing(handler, timeout=0.1)
    assert (error.retryable, error.charged) == (True, True)


def test_a_closed_port_is_not_charged() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ModelError) as caught:
        asyncio.run(HttpModel(f"http://127.0.0.1:{port}/v1", "m").complete(ASK))
    assert (caught.value.retryable, caught.value.charged) == (True, False)


def test_a_broken_connection_and_nonsense_are_model_errors() -> None:
    async def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def nonsense(request: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    assert failing(drop).retryable
    assert not failing(nonsense).retryable


def streaming(lines: list[str]) -> tuple[ModelReply, list[str], dict[str, Any]]:
    heard: list[str] = []
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for line in lines:
            await response.write(f"data: {line}\n\n".encode())
        return response

    return serving(handler, lambda model: model.complete(ASK, heard.append)), heard, seen


def test_streams_are_heard_and_put_together() -> None:
    def delta(**parts: Any) -> str:
        return json.dumps({"choices": [{"delta": parts}]})

    first = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"n"'}}
    last = {"index": 0, "function": {"arguments": ": 1}"}}
    end = json.dumps({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}})
    lines = [delta(content="he"), delta(content="llo"), delta(tool_calls=[first]), delta(tool_calls=[last]), end, usage, "[DONE]"]
    reply, heard, seen = streaming(lines)
    assert heard == ["he", "llo"]
    assert (reply.text, reply.tool_calls, reply.input_tokens) == ("hello", (ToolCall(id="c", name="f", arguments={"n": 1}),), 2)
    assert seen["stream_options"] == {"include_usage": True}


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    with pytest.raises(ModelError) as caught:
        streaming([json.dumps({"choices": [{"delta": {"content": "he"}}]})])
    assert (caught.value.retryable, caught.value.charged) == (True, True)


def test_bound_is_never_below_the_bytes_that_are_sent() -> None:
    request = ModelRequest(
        messages=(ChatMessage(role="user", content="é" * 100),),
        tools=(ToolSpec(name="f", description="d" * 50, parameters={"type": "object"}),),
        output_schema={"type": "object"},
    )
    assert HttpModel("http://x/v1", "m").bound(request)[0] >= 200 + 50
    assert HttpModel("http://x/v1", "m").price is None


def test_models_travel_by_cloudpickle_after_use() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(answer({"content": "ok"}))

    async def use(model: HttpModel) -> str:
        await model.complete(ASK)
        copy = cloudpickle.loads(cloudpickle.dumps(model))
        try:
            return str((await copy.complete(ASK)).text)
        finally:
            await copy.aclose()

    assert serving(handler, use) == "ok"


def test_a_whole_task_over_http() -> None:
    @tool
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    async def handler(request: web.Request) -> web.Response:
        body = await request.json()
        if body["messages"][-1]["role"] == "tool":
            return web.json_response(answer({"content": json.dumps({"value": int(body["messages"][-1]["content"])})}))
        wanted = call("add", a=1, b=2)
        function = {"name": wanted.name, "arguments": json.dumps(wanted.arguments)}
        return web.json_response(
            answer({"content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}, "tool_calls")
        )

    one = Role("adder", output=int, tools=[add])
    done = serving(handler, lambda model: working(one, "1+2", model), price=Price(input_micros=1_000_000, output_micros=2_000_000))
    assert done.output == 3
    assert done.desk.usage.micros == 2 * (7 + 6)


def test_labels_over_http_are_asked_under_a_schema() -> None:
    async def handler(request: web.Request) -> web.Response:
        schema = (await request.json())["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["1"]["enum"] == ["x", "y"]
        return web.json_response(answer({"content": '{"1": "y"}'}))

    profile = Profile(can=frozenset({Need.JSON_SCHEMA}))
    done = serving(handler, lambda model: working(Role("a", output=Literal["x", "y"]), "t", model), profile=profile)
    assert done.output == "y"
