"""The engine: llama.cpp's server inside this process, listening on loopback behind a key of its own.

llama.cpp computes in threads that do not hold the interpreter, so an event loop beside it keeps running. Two busy
engines on the same cores slow each other down many times over: start one a machine.
"""

import json
import os
import secrets
import threading
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from agents.models.catalogue import CONTEXT_TOKENS
from protocols.failures import BadInput, ModelError

SLOTS = 8
_HOST = "127.0.0.1"
_GREETING_SECONDS = 60.0


class Endpoint(NamedTuple):
    """Where a model server listens: its address, the key it wants as a bearer token, and the model it serves."""

    url: str
    api_key: str
    model: str


class LlamaServer:
    """At most one engine for this process. ``start`` and ``stop`` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Any = None
        self._endpoint: Endpoint | None = None
        self._path: Path | None = None

    def start(
        self,
        path: Path,
        model: str = "",
        *,
        slots: int = SLOTS,
        context_tokens: int = CONTEXT_TOKENS,
        threads: int | None = None,
    ) -> Endpoint:
        """Load the GGUF file at ``path`` and listen; takes about a second for each 100 MB and blocks until it is ready.

        ``slots`` requests are computed together; they share room for twice ``context_tokens``. ``threads`` defaults to the cores that
        this process may use. Starting the same file again gives the same endpoint. Raises ``BadInput`` when the engine is
        not installed or another model runs here, and ``ModelError`` when the file cannot be loaded.
        """
        with self._lock:
            if self._endpoint is not None:
                if self._path == path:
                    return self._endpoint
                raise BadInput(f"This process already runs the model {self._endpoint.model}. Stop it before starting another.")
            key = secrets.token_urlsafe(24)
            params = _params(path, key, slots, context_tokens, threads or _cores())
            try:
                server = _library().Server(params)
            except Exception as error:
                raise ModelError(
                    f"llama.cpp could not load {path.name} ({error}). Check that it is a GGUF model and that memory suffices.",
                    charged=False,
                ) from None
            endpoint = Endpoint(url=str(server.listening_address), api_key=key, model=model or path.stem)
            _greet(endpoint)
            self._server, self._path, self._endpoint = server, path, endpoint
            return endpoint

    def stop(self) -> None:
        """Stop listening and free the model. Requests under way fail. Nothing happens when it does not run."""
        with self._lock:
            # The destructor of the native server joins its threads: dropping the last reference is the way to stop it.
            self._server = None
            self._endpoint = None
            self._path = None


def _greet(endpoint: Endpoint) -> None:
    """Have one token computed: only then does the server's loop surely run, and stopping it before would wait forever."""
    body = json.dumps({"prompt": "a", "n_predict": 1}).encode()
    headers = {"Authorization": f"Bearer {endpoint.api_key}", "Content-Type": "application/json"}
    try:
        # No proxy: the address is this machine's own.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(f"{endpoint.url}/completion", body, headers), timeout=_GREETING_SECONDS).read()
    except OSError as error:
        raise ModelError(f"The model server started and did not answer ({error}).", retryable=True, charged=False) from None


def _library() -> Any:
    # Waiting threads sleep instead of spinning: beside other busy processes a spinning engine is many times slower.
    # It counts only when set before the engine's OpenMP runtime is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import xllamacpp
    except ImportError:
        raise BadInput("The embedded model needs its engine. Install it with: pip install 'callboard[local]'") from None
    return xllamacpp


def _cores() -> int:
    """The cores that this process may use: a container's limit counts, the machine's size does not."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _params(path: Path, key: str, slots: int, context_tokens: int, threads: int) -> Any:
    params = _library().CommonParams()
    params.model.path = str(path)
    params.api_keys = [key]
    params.hostnames = [_HOST]
    params.port = 0  # the system picks a free one
    params.n_parallel = slots
    # A cache of its own for every slot: in a shared one, what a call scores depends on what its neighbours do (by 0.07 nats a token).
    params.kv_unified = False
    params.n_ctx = context_tokens * slots
    params.fit_params = False  # it would load the model twice to measure memory that is not scarce here
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = slots + 4
    params.verbosity = -1
    params.warmup = False  # the greeting is one
    params.ui = False
    params.endpoint_slots = False
    # Prompts of finished requests would be copied to a second cache of gigabytes.
    params.cache_ram_mib = 0
    return params
