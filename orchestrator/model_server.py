"""Model servers on Ray: one actor a node runs the engine of an embedded model, and all hosts of the node batch into its slots."""

import asyncio
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from protocols import codec
from protocols.failures import CallboardError, ModelError

if TYPE_CHECKING:
    from agents.models.embedded import Connect
    from agents.models.llama import Endpoint

PROVIDER = "embedded"

_ray: Any = ray


class ModelServer:
    """The engine of one model, in a process of its own."""

    def __init__(self, model: str) -> None:
        from agents.models.llama import LlamaServer

        self._model = model
        self._engine = LlamaServer()
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"ModelServer({self._model or 'default'})"

    async def endpoint(self) -> tuple[str, str, str]:
        """Where the engine listens (see ``agents.models.llama.Endpoint``), once it does; fetches the weights if this node lacks them."""
        from agents.models.catalogue import DEFAULT, find
        from agents.models.weights import pull

        async with self._starting:
            name = self._model or DEFAULT
            path = await asyncio.to_thread(pull, name)
            found = await asyncio.to_thread(self._engine.start, path, find(name).id)
            return found.url, found.api_key, found.model

    async def close(self) -> None:
        """Stop the engine."""
        await asyncio.to_thread(self._engine.stop)


_Servers: Any = _ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=1000)(ModelServer)


def is_embedded(model: str) -> bool:
    """Whether this model id needs a server of ours."""
    return model == PROVIDER or model.startswith(f"{PROVIDER}:")


def start(model: str, namespace: str, token: str, *, stay: bool = False) -> list[Any]:
    """Start a server for this model id on every node; they load while other things start. Returns the actors.

    Those that ``stay`` outlive this process, and one that is there already is left as it is.
    """
    return [
        _Servers.options(
            name=_name(model, token, node["NodeID"]),
            namespace=namespace,
            lifetime="detached" if stay else None,
            get_if_exists=stay,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(model.partition(":")[2])
        for node in _ray.nodes()
        if node["Alive"]
    ]


def connect(model: str, namespace: str, token: str) -> "Connect":
    """How a host reaches the server of its own node."""

    async def endpoint() -> "Endpoint":
        from agents.models.llama import Endpoint

        node = ray.get_runtime_context().get_node_id()
        try:
            server = ray.get_actor(_name(model, token, node), namespace=namespace)
            return Endpoint(*await server.endpoint.remote())
        except ValueError:
            message = f"no server runs model {model!r} on this node; name the model in a role of the team, so that one is started"
            raise ModelError(message, charged=False) from None
        except RayTaskError as error:
            if isinstance(error.cause, CallboardError):
                raise error.cause from None
            raise
        except RayError as error:
            raise ModelError(f"the server of model {model!r} did not answer: {error}", retryable=True, charged=False) from None

    return endpoint


def _name(model: str, token: str, node: str) -> str:
    return f"callboard-model-{codec.digest(model.encode())[:8]}-{token}-{node[:12]}"
