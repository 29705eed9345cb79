"""Models on servers of one's own that speak OpenAI's chat completions; needs no extra. Hosted providers: ``agents.models.provider``."""

import asyncio
import math
import os
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from agents.models import worst_case
from agents.models.wire import GONE, BrokenStream, Streamed, body_of, reply_of
from agents.settings import problems_of
from protocols.chat import ModelReply, ModelRequest, Need, Price, Profile, Throttling
from protocols.failures import BadInput, ModelError

if TYPE_CHECKING:
    import aiohttp

CHAT = Profile(can=frozenset({Need.TEXT, Need.NATIVE_TOOLS, Need.JSON_SCHEMA, Need.PLANNING}), context_tokens=128_000)
"""The default profile: what a current chat model can do."""


class HttpModel:
    """A model behind ``base_url``, which ends in ``/v1`` or the like: vLLM, Ray Serve LLM, a llama.cpp server, Ollama.

    The key is ``api_key``, or what the environment variable ``api_key_env`` holds; without either none is sent. ``timeout`` is in
    seconds without a byte from the server; a role's ``limits`` bound the whole. ``price`` is ``None`` (*unpriced*) unless given: such
    calls cost no money in budgets, only tokens. ``connections`` bounds the calls under way at once in a process; others wait for
    their turn. ``extra`` is added to every body.
    """

    def __init__(
        self,
        base_url: str,
        name: str,
        *,
        api_key: str | None = None,
        api_key_env: str | None = None,
        profile: Profile = CHAT,
        price: Price | None = None,
        timeout: float = 120.0,
        connections: int = 256,
        extra: dict[str, Any] | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise BadInput(f"base_url {base_url!r} is no address; it looks like http://127.0.0.1:8080/v1")
        self.id = f"http:{name}"
        self.name, self.base_url, self.profile, self.price = name, base_url.rstrip("/"), profile, price
        self.throttling = Throttling()
        self._api_key, self._api_key_env = api_key, api_key_env
        self._timeout, self._connections, self._extra = timeout, connections, extra or {}
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        """One token for each byte of input, which byte-level tokenisers cannot pass, and ``max_output_tokens``."""
        return worst_case.input_tokens(request), request.max_output_tokens

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Answer ``request``, streamed when ``on_text`` listens. Raises ``ModelError``."""
        import aiohttp

        if request.choice is not None:
            raise ModelError(f"{self.id} cannot score choices; its profile must not promise log_probabilities", charged=False)
        body = body_of(request, self.name, native_tools=Need.NATIVE_TOOLS in self.profile.can, stream=on_text is not None)
        body = {**body, "max_tokens": request.max_output_tokens, **self._extra}
        try:
            async with self._connected().post(f"{self.base_url}/chat/completions", data=to_json(body), headers=self._headers()) as response:
                if response.status != 200:
                    raise self._refusal(response.status, response.headers.get("Retry-After"), await response.text(errors="replace"))
                if on_text is None or "event-stream" not in response.headers.get("Content-Type", ""):
                    reply = reply_of(from_json(await response.read()), request)
                    if on_text is not None and reply.text:
                        on_text(reply.text)
                    return reply
                streamed = Streamed(on_text)
                async for line in response.content:
                    streamed.hear(line)
                return reply_of(streamed.whole(), request)
        except TimeoutError:  # aiohttp's own timeouts are kinds of it, the one for connecting included
            raise ModelError(f"{self.id} said nothing for {self._timeout:g} s", retryable=True) from None
        except aiohttp.ClientConnectorError as error:
            where = f"{self.id} can't be reached at {self.base_url}"
            raise ModelError(f"{where}: {error}; is the server running?", retryable=True, charged=False) from None
        except aiohttp.ClientError as error:
            raise ModelError(f"the connection to {self.id} broke: {type(error).__name__}: {error}", retryable=True) from None
        except BrokenStream as error:
            raise ModelError(f"{self.id}: {error}", retryable=True) from None
        except ValidationError as error:
            why = f"{self.id} answered with something that is no chat completion: {problems_of(error)}"
            raise ModelError(why, elsewhere=True) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ModelError(f"{self.id} answered with something that is no chat completion: {error}", elsewhere=True) from None

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _connected(self) -> "aiohttp.ClientSession":
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=self._connections)
            # A wait for a free connection is no delay of the provider's, so only the time after it is bounded.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(self._timeout, 30.0), sock_read=self._timeout)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**20)
            self._loop = loop
        return self._session

    def _headers(self) -> dict[str, str]:
        key = self._api_key or (os.environ.get(self._api_key_env) if self._api_key_env else None)
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def _refusal(self, status: int, retry_after: str | None, body: str) -> ModelError:
        said = " ".join(_message(body).split())[:300]
        where = f"{self.id} answered {status}: {said or 'no reason given'}"
        if status in (401, 403):
            variable = f"; set {self._api_key_env} to a key that may use this model" if self._api_key_env else "; give api_key="
            return ModelError(where + variable, charged=False, elsewhere=True)
        if status == 404:
            return ModelError(f"{where}; is {self.name!r} the model's name, and does base_url end in /v1?", charged=False, elsewhere=True)
        if status in (429, 503):
            spent = "insufficient_quota" in body
            after = _seconds(retry_after)
            return ModelError(where, retryable=not spent, retry_after=after, charged=False, refused=not spent, elsewhere=spent)
        if status == 408 or status >= 500:
            return ModelError(where, retryable=True, retry_after=_seconds(retry_after))
        return ModelError(where, charged=False, elsewhere=status in GONE)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_loop": None}

    def __repr__(self) -> str:
        return f"HttpModel({self.base_url!r}, {self.name!r})"


def _message(body: str) -> str:
    try:
        error = from_json(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body


def _seconds(retry_after: str | None) -> float | None:
    """``Retry-After`` in seconds: a number, or a date. What is no number of seconds says nothing."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
