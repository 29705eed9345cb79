"""What is said to a model and what it answers: requests, replies, tools, scored choices, profiles and prices."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from protocols import json_text
from protocols.record import Record
from protocols.trust import Origin


def _arguments(given: dict[str, Any] | str) -> dict[str, Any] | str:
    if isinstance(given, dict):
        if json_text.flaw(given) is None:
            return given
        given = json_text.written(given)
    try:
        found = json_text.read(given)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else json_text.sendable(given)


Text = Annotated[str, AfterValidator(json_text.sendable)]


class ToolCall(Record):
    """One call that a model asks for. ``arguments`` is a dict that can be sent as JSON, or text that is no such JSON object."""

    id: Text
    name: Text
    arguments: Annotated[dict[str, Any] | str, AfterValidator(_arguments)]


class ChatMessage(Record):
    """One message of a conversation, with the origin of its content."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    origin: Origin = Origin.USER
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class ToolSpec(Record):
    """A tool as a model sees it; ``parameters`` is a JSON schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Option(Record):
    """One answer of a scored choice: the label that is returned and the description that is scored."""

    label: str
    description: str


class Choice(Record):
    """Which option fits each text. Several texts are one batch, and their scores are centred over it.

    ``baseline`` are texts that take part in the centring and get no answer of their own.
    """

    texts: tuple[str, ...] = Field(min_length=1)
    options: tuple[Option, ...] = Field(min_length=1)
    baseline: tuple[str, ...] = ()


class Cut(Record):
    """Earlier messages of a conversation that no longer go into the model's context, about ``tokens`` tokens: ``left_out`` of a request,
    ``summarised`` in it, or what a ``summary`` is asked of."""

    messages: int
    tokens: int
    how: Literal["left_out", "summarised", "summary"] = "left_out"


class ModelRequest(Record):
    """One model call. With ``choice`` set the model scores and does not generate; ``messages`` may then be empty.

    ``digest`` names the whole request, ``place`` is where it is made, task and step, and ``cut`` what it does not show; none of them
    goes to a provider.
    """

    messages: tuple[ChatMessage, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    output_schema: dict[str, Any] | None = None
    choice: Choice | None = None
    max_output_tokens: int = Field(default=512, ge=1)
    temperature: float = 0.0
    seed: int | None = None
    digest: str = ""
    place: tuple[str, int] | None = None
    cut: Cut | None = None


class Finish(StrEnum):
    """Why a model stopped."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    REFUSED = "refused"


class Shortened(Record):
    """A reply could have only so many output ``tokens``, fewer than its role asks for, as there was no room for more. ``limit`` names what
    had none, where that is not the role's own limits."""

    tokens: int
    limit: str = ""


MOST_COUNTED = 10**12
"""No reply has more tokens, and none costs more micro-units: a count above is a mistake."""


class ModelReply(Record):
    """What a model answered. Token counts are the provider's; ``None`` when it reported none. ``micros`` is what the call cost where
    that is known better than by the model's price, which is a worst case: by the list's tiers and for cached tokens. ``shortened`` is
    set in a recorded reply for which there was too little room then.

    For a scored choice, ``labels`` has one label a text and ``margins`` how far it led the runner-up (nats a token).
    """

    text: Text = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish = Finish.STOP
    input_tokens: int | None = Field(default=None, ge=0, le=MOST_COUNTED)
    output_tokens: int | None = Field(default=None, ge=0, le=MOST_COUNTED)
    micros: int | None = Field(default=None, ge=0, le=MOST_COUNTED)
    shortened: Shortened | None = None
    labels: tuple[str, ...] = ()
    margins: tuple[float, ...] = ()


class Need(StrEnum):
    """Something that a role may require of its model."""

    NATIVE_TOOLS = "native_tools"
    JSON_SCHEMA = "json_schema"
    LOG_PROBABILITIES = "log_probabilities"
    TEXT = "text"
    PLANNING = "planning"


class Profile(Record):
    """What a model can do: a set of ``Need``, its context length in tokens, and what it was measured to be good at."""

    can: frozenset[Need] = frozenset({Need.TEXT})
    context_tokens: int = 8192
    good_at: tuple[str, ...] = ()


class Price(Record):
    """Price in integer micro-units of currency for a million tokens, input and output: the most that one can cost."""

    input_micros: int = Field(ge=0)
    output_micros: int = Field(ge=0)

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Micro-units for a call, rounded up, so that many small calls are never free."""
        total = input_tokens * self.input_micros + output_tokens * self.output_micros
        return -(-total // 1_000_000)


class Throttling(Record):
    """What a model's provider allows all who share it: requests and tokens (of input and output) a minute, and calls at once. ``None`` is
    not known: then the provider's refusals show it."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1)


FREE = Price(input_micros=0, output_micros=0)
