"""Between our words and those of pydantic-ai: requests, replies and errors. Imported where provider calls are made, and only there."""

import warnings
from collections.abc import Callable
from typing import Any

import httpx2
from pydantic import ValidationError
from pydantic_ai import exceptions as wrong
from pydantic_ai import messages as pm
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from agents.models.wire import GONE, unwrapped, wrapped
from agents.settings import problems_of
from protocols.chat import ChatMessage, Finish, ModelReply, ModelRequest, ToolCall
from protocols.failures import ModelError
from protocols.json_text import sendable

ANSWER_TOOL = "callboard_answer"
"""The tool by which a model that has no JSON schema of its own gives its answer."""

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_call": Finish.TOOL_CALLS,
    "content_filter": Finish.REFUSED,
}

# A reply whose usage can't be read is charged its reservation, which the journal shows; nobody needs a warning besides.
warnings.filterwarnings("ignore", category=wrong.UsageExtractionFailedWarning)
# Reasoning models take no temperature: it is left out for them, and every request of ours has one.
warnings.filterwarnings("ignore", message="Sampling parameters", category=UserWarning)


async def ask(
    model: Model[Any], request: ModelRequest, settings: ModelSettings, on_text: Callable[[str], None] | None = None
) -> tuple[ModelReply, pm.ModelResponse]:
    """The reply to ``request``, streamed when ``on_text`` listens, and the response that it was read from.

    Raises what pydantic-ai raises, and ``ModelError`` for a reply that is none.
    """
    talk, parameters = messages_of(request), parameters_of(request, native=bool(model.profile.get("supports_json_schema_output")))
    settings = {**settings, "max_tokens": request.max_output_tokens, "temperature": request.temperature}
    if request.seed is not None:
        settings["seed"] = request.seed
    if parameters.function_tools and not request.tools:
        settings["tool_choice"] = "none"
    if on_text is None:
        response = await model_request(model, talk, model_settings=settings, model_request_parameters=parameters, instrument=False)
    else:
        opened = model_request_stream(model, talk, model_settings=settings, model_request_parameters=parameters, instrument=False)
        async with opened as stream:
            async for event in stream:
                if isinstance(event, pm.PartStartEvent) and isinstance(event.part, pm.TextPart) and event.part.content:
                    on_text(event.part.content)
                elif isinstance(event, pm.PartDeltaEvent) and isinstance(event.delta, pm.TextPartDelta) and event.delta.content_delta:
                    on_text(event.delta.content_delta)
            response = stream.get()
        if response.finish_reason is None and "finish_reason" not in (response.provider_details or {}):
            raise ModelError("the stream broke off before the reply was finished", retryable=True)
    return reply_of(response, request), response


def messages_of(request: ModelRequest) -> list[pm.ModelMessage]:
    """The conversation: instructions as system prompt, what tools gave as tool returns, everything else where it was said."""
    found: list[pm.ModelMessage] = []
    asked: list[pm.ModelRequestPart] = []
    names: dict[str, str] = {}
    for message in request.messages:
        if message.role != "assistant":
            asked.append(_asked(message, names))
            continue
        if asked:
            found.append(pm.ModelRequest(parts=asked))
            asked = []
        names |= {call.id: call.name for call in message.tool_calls}
        said: list[pm.ModelResponsePart] = [pm.TextPart(message.content)] if message.content else []
        said += [pm.ToolCallPart(call.name, call.arguments, tool_call_id=call.id) for call in message.tool_calls]
        if said:
            found.append(pm.ModelResponse(parts=said))
    if asked:
        found.append(pm.ModelRequest(parts=asked))
    return found


def _asked(message: ChatMessage, names: dict[str, str]) -> pm.ModelRequestPart:
    if message.role == "system":
        return pm.SystemPromptPart(message.content)
    if message.role == "tool":
        called = message.tool_call_id or ""
        return pm.ToolReturnPart(names.get(called, called), message.content, tool_call_id=called)
    return pm.UserPromptPart(message.content)


def parameters_of(request: ModelRequest, *, native: bool) -> ModelRequestParameters:
    """Tools, and the schema of the answer: ``native``, or as the one tool by which to answer.

    Past calls of tools that are not on offer are declared as well, for providers that take calls of declared tools only.
    """
    tools = [ToolDefinition(name=one.name, description=one.description, parameters_json_schema=one.parameters) for one in request.tools]
    if not tools:
        called = dict.fromkeys(call.name for message in request.messages for call in message.tool_calls)
        tools = [ToolDefinition(name=name, description="not on offer now") for name in called]
    if request.output_schema is None:
        return ModelRequestParameters(function_tools=tools)
    schema = wrapped(request.output_schema)
    if native:
        answer = OutputObjectDefinition(json_schema=schema, name="answer")
        return ModelRequestParameters(function_tools=tools, output_mode="native", output_object=answer)
    by_tool = ToolDefinition(name=ANSWER_TOOL, description="Give the answer.", parameters_json_schema=schema, kind="output")
    if not request.tools:
        tools = []  # a choice of none would forbid the answer as well
    return ModelRequestParameters(function_tools=tools, output_mode="tool", output_tools=[by_tool], allow_text_output=False)


def reply_of(response: pm.ModelResponse, request: ModelRequest) -> ModelReply:
    """The reply in a response. A count that the provider left out is ``None``; arguments that are no JSON object stay text."""
    if response.finish_reason == "error":
        raise ModelError("the provider broke the reply off with an error", retryable=True)
    calls = [part for part in response.parts if isinstance(part, pm.ToolCallPart)]
    text = "".join(part.content for part in response.parts if isinstance(part, pm.TextPart))
    finish = _FINISH.get(response.finish_reason or "stop", Finish.STOP)
    answers = [part for part in calls if part.tool_name == ANSWER_TOOL]
    calls = [part for part in calls if part.tool_name != ANSWER_TOOL]
    if finish is Finish.REFUSED:
        text = text or str((response.provider_details or {}).get("refusal") or "")
    elif calls:
        finish = finish if finish is Finish.LENGTH else Finish.TOOL_CALLS
    elif answers:
        text, finish = answers[0].args_as_json_str(), finish if finish is Finish.LENGTH else Finish.STOP
    elif finish is Finish.TOOL_CALLS:
        finish = Finish.STOP
    if request.output_schema is not None and not calls:
        text = unwrapped(text, request.output_schema)
    used = response.usage
    told = not used.unmeasured_requests
    return ModelReply(
        text=text,
        tool_calls=tuple(ToolCall(id=part.tool_call_id, name=part.tool_name, arguments=_arguments(part)) for part in calls),
        finish=finish,
        input_tokens=used.input_tokens if told and used.input_tokens else None,
        output_tokens=used.output_tokens if told and (used.output_tokens or not response.parts) else None,
    )


def _arguments(part: pm.ToolCallPart) -> dict[str, Any] | str:
    return part.args if isinstance(part.args, str) and part.args else part.args_as_dict()


def error_of(error: Exception, key: str) -> ModelError:
    """What an exception of a call means for us: whether the same call may work later, when, and whether it may have been charged.

    Nothing is charged that was refused before the model began: by its status, and not from inside a stream. ``key`` names the
    variable that holds the key.
    """
    if isinstance(error, ModelError):
        return error
    why, streamed, after = _told(error), getattr(error, "in_stream", False), getattr(error, "retry_after", None)
    match error:
        case wrong.ModelConnectionError():
            kind = "did not answer in time" if isinstance(error, wrong.ModelTimeoutError) else "can't be reached, or the connection broke"
            return ModelError(f"it {kind}: {why}", retryable=True, charged=error.phase not in ("pool", "connect"))
        case wrong.ModelQuotaExceededError():
            return ModelError(f"the account's quota is used up: {why}", charged=streamed, elsewhere=True)
        case wrong.ModelRateLimitError() | wrong.ModelUnavailableError():
            return ModelError(why, retryable=True, retry_after=after, charged=streamed, refused=True)
        case wrong.ModelAuthenticationError():
            return ModelError(f"{why}; set {key} to a key that may use this model", charged=False, elsewhere=True)
        case wrong.ModelContextWindowExceededError():
            return ModelError(f"{why}; give the model a profile= with its real context_tokens", charged=False)
        case wrong.ModelNotFoundError():
            return ModelError(f"{why}; is that the model's name, and the base URL right?", charged=False, elsewhere=True)
        case wrong.ModelHTTPError() if error.status_code < 500 and error.status_code not in (408, 409, 425):
            return ModelError(why, charged=streamed, elsewhere=error.status_code in GONE)
        case wrong.ModelAPIError():
            return ModelError(why, retryable=True, retry_after=after)
        case wrong.UserError():
            return ModelError(f"it can't be asked this: {why}", charged=False)
        case httpx2.HTTPError() | OSError() | TimeoutError():
            return ModelError(f"the connection broke: {type(error).__name__}: {why}", retryable=True)
        case wrong.UnexpectedModelBehavior():
            return ModelError(f"it answered with no reply: {why}", retryable=not isinstance(error, wrong.ContentFilterError))
        case _:
            return ModelError(f"it answered with something that is no reply: {type(error).__name__}: {why}", elsewhere=True)


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return problems_of(error)
    status = f"it answered {error.status_code}: " if isinstance(error, wrong.ModelHTTPError) else ""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    return sendable(status + str(said or error).strip().partition("\n")[0][:300])
