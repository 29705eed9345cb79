"""Models of hosted providers, and whatever speaks their wire: OpenAI, Anthropic, Google, through pydantic-ai's provider layer."""

import asyncio
import os
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.models import pricing, worst_case
from protocols.chat import ModelReply, ModelRequest, Need, Price, Profile, Throttling
from protocols.failures import BadInput, ModelError

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings

CONTEXT_TOKENS = 128_000
"""Assumed of a model that the price data does not know."""
HIDDEN_TOKENS = 1_024
"""Counted when tools or a schema are sent: providers put instructions of their own before them (about 700 tokens at most)."""
_OF_CALLER = " in the environment of the process that calls (on a cluster that of `callboard up` or `ray start`)"
_CAN = frozenset({Need.TEXT, Need.NATIVE_TOOLS, Need.JSON_SCHEMA, Need.PLANNING})


class Provider(NamedTuple):
    """A provider: its extra's module, the variables that may hold its key (the first that is set counts), the one that may hold another
    address, and its own."""

    module: str
    keys: tuple[str, ...]
    address: str
    own: str


PROVIDERS = {
    "openai": Provider("openai", ("OPENAI_API_KEY",), "OPENAI_BASE_URL", "https://api.openai.com"),
    "anthropic": Provider("anthropic", ("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
    "google": Provider(
        "google.genai", ("GOOGLE_API_KEY", "GEMINI_API_KEY"), "GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"
    ),
}


class ProviderModel:
    """The model of an id like ``openai:NAME``, ``anthropic:NAME`` or ``google:NAME``; needs the extra of that name.

    ``base_url`` (by default what ``OPENAI_BASE_URL``, ``ANTHROPIC_BASE_URL`` or ``GOOGLE_GEMINI_BASE_URL`` says) reaches another server
    that speaks the provider's wire: vLLM, Ray Serve LLM, a llama.cpp server, Ollama, a gateway. Such a server needs no key and has no
    list price. For a server of one's own that speaks chat completions ``HttpModel`` is the lighter choice: it needs no extra, and a call
    costs a tenth of the processor time. The key is read from the
    environment of the process that calls, so that it is never stored; ``api_key_env`` names another variable.

    ``price`` replaces the list price, ``profile`` what is assumed of the model. ``timeout`` is in seconds without a byte from the
    server; a role's ``limits`` bound the whole. ``connections`` bounds the calls under way at once in a process. OpenAI is spoken to by
    chat completions. The provider's client never retries: that is the agent loop's part, which reserves and records every try.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = None,
        profile: Profile | None = None,
        price: Price | None = None,
        timeout: float = 120.0,
        connections: int = 256,
    ) -> None:
        provider, _, name = model.partition(":")
        if provider not in PROVIDERS or not name:
            raise BadInput(f"there is no provider model {model!r}; it looks like openai:NAME, anthropic:NAME or google:NAME")
        self.id, self.provider, self.name = model, provider, name
        where = PROVIDERS[provider]
        url = base_url or os.environ.get(where.address) or where.own
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"the base URL {url!r} of {model} is no address; it looks like http://127.0.0.1:8080/v1")
        self.base_url = None if url.startswith(where.own) else url
        self._keys = (api_key_env,) if api_key_env else where.keys
        self.throttling = Throttling()
        self._own_profile, self._own_price = profile, price
        self._timeout, self._connections = timeout, connections
        self._model: Model[Any] | None = None
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @cached_property
    def profile(self) -> Profile:
        """What a current hosted chat model can do, with this one's context length where it is known."""
        if self._own_profile is not None:
            return self._own_profile
        listed = None if self.base_url else pricing.context_tokens(self.provider, self.name)
        return Profile(can=_CAN, context_tokens=listed or CONTEXT_TOKENS)

    @cached_property
    def price(self) -> Price | None:
        """The most that its tokens can cost by the list; ``None`` (*unpriced*) where nobody knows."""
        if self._own_price is not None or self.base_url:
            return self._own_price
        return pricing.list_price(self.provider, self.name)

    @property
    def missing(self) -> str | None:
        """Why it can't be called here, in one sentence that says what to do: no extra, or no key."""
        return self._lacks()

    def _lacks(self, place: str = "") -> str | None:
        where = PROVIDERS[self.provider]
        if not all(map(_installed, ("pydantic_ai", where.module))):
            return f"model {self.id} needs an extra; install it with: pip install 'callboard[{self.provider}]'"
        if self._key() is None and self.base_url is None:
            return f"model {self.id} needs a key; set {self._keys[0]}{place}, or {where.address} to a server that needs none"
        return None

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        """One token for each byte of input, what the provider may add, and ``max_output_tokens``."""
        size = worst_case.input_tokens(request)
        if request.output_schema is not None or request.tools or any(one.tool_calls for one in request.messages):
            size += HIDDEN_TOKENS
        return size, request.max_output_tokens

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Answer ``request``, streamed when ``on_text`` listens. Raises ``ModelError``."""
        if request.choice is not None:
            raise ModelError(f"{self.id} cannot score choices; its profile must not promise log_probabilities", charged=False)
        lacks = self._lacks(_OF_CALLER)
        if lacks is not None:
            raise ModelError(lacks, charged=False)
        from agents.models import exchange

        try:
            reply, response = await exchange.ask(self._connected(), request, self._settings(request), on_text)
        except Exception as error:
            raise exchange.error_of(error, self._keys[0]) from error
        if self._own_price is not None or self.base_url or reply.input_tokens is None or reply.output_tokens is None:
            return reply
        micros = pricing.charge(self.provider, self.name, response.usage)
        return reply.model_copy(update={"micros": micros})

    async def aclose(self) -> None:
        """Close the connections."""
        client, loop, self._client, self._model, self._loop = self._client, self._loop, None, None, None
        if client is not None and loop is asyncio.get_running_loop():
            await client.aclose()

    def _key(self) -> str | None:
        return next((key for name in self._keys if (key := os.environ.get(name))), None)

    def _settings(self, request: ModelRequest) -> "ModelSettings":
        settings: ModelSettings = {"max_retries": 0}
        if not self.base_url:
            settings["service_tier"] = "default"  # a dearer tier that an account prefers would pass the reserved price
            if self.provider == "anthropic":  # others do so unasked; to write costs a quarter more
                goes_on = bool(request.tools) or any(one.role == "assistant" for one in request.messages)
                settings["cache"] = {"messages": goes_on}  # what all tasks of a role begin with, and the rest where it is sent again
        return settings

    def _connected(self) -> "Model[Any]":
        loop = asyncio.get_running_loop()
        if self._model is None or self._loop is not loop:
            self._model, self._loop = self._made(), loop
        return self._model

    def _made(self) -> "Model[Any]":
        import httpx2

        limits = httpx2.Limits(max_connections=self._connections, max_keepalive_connections=self._connections)
        # A wait for a free connection is no delay of the provider's, so only the time after it is bounded.
        timeout = httpx2.Timeout(self._timeout, connect=min(self._timeout, 30.0), pool=None)
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits)
        key = self._key() or "none"
        if self.provider == "openai":
            return self._openai(key)
        if self.provider == "anthropic":
            return self._anthropic(key)
        return self._google(key)

    def _openai(self, key: str) -> "Model[Any]":
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.profiles.openai import OpenAIModelProfile
        from pydantic_ai.providers.openai import OpenAIProvider

        client = AsyncOpenAI(api_key=key, base_url=self.base_url, http_client=self._client, timeout=self._client.timeout, max_retries=0)
        # Other servers know the older name of the limit on output; a stream without an end is no answer.
        profile = OpenAIModelProfile(
            openai_chat_supports_max_completion_tokens=not self.base_url, openai_chat_streaming_requires_finish_reason=True
        )
        return OpenAIChatModel(self.name, provider=OpenAIProvider(openai_client=client), profile=profile)

    def _anthropic(self, key: str) -> "Model[Any]":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        client = AsyncAnthropic(api_key=key, base_url=self.base_url, http_client=self._client, timeout=self._client.timeout, max_retries=0)
        return AnthropicModel(self.name, provider=AnthropicProvider(anthropic_client=client))

    def _google(self, key: str) -> "Model[Any]":
        from google.genai.types import HttpRetryOptions
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        once = HttpRetryOptions(attempts=1)
        provider = GoogleProvider(api_key=key, base_url=self.base_url, http_client=self._client, retry_options=once)
        return GoogleModel(self.name, provider=provider)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_client": None, "_loop": None}

    def __repr__(self) -> str:
        return f"ProviderModel({self.id!r})"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
