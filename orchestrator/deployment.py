"""A deployment: coordinator and hosts that stay on a Ray cluster between drivers, found again by their names.

They are detached actors of one namespace. Whoever comes first makes them, everybody else attaches; the coordinator ends them, and
itself, when no run is at work and no driver has been heard for a while.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator import model_server
from orchestrator.cluster import TOKEN, Coordinators, Hosts, check, host_options
from orchestrator.code import Roles
from orchestrator.journal import address_of
from orchestrator.link import HostGone
from orchestrator.pools import QUIET_SECONDS
from orchestrator.remote import NAMESPACE, RemoteCoordinator, called
from orchestrator.scheduler import SHARED
from protocols.failures import BadInput
from protocols.messages import SCHEMA
from protocols.team import Resources, TeamSpec

COORDINATOR = f"callboard-coordinator-0-{TOKEN}"
IDLE_SECONDS = 900.0
"""How long a deployment that nobody uses stays, unless it was started to stay."""

KNOCK_SECONDS = 5.0
"""How long a cluster is given to accept a connection."""

_HEAD = "node:__internal_head__"
_ray: Any = ray


class DeploymentRuntime:
    """The deployment on the Ray at ``address``: joined when it is there, made when it is not, and left behind on close.

    ``store`` is where its journal is kept, on the cluster's head node. ``idle`` is after how many seconds without a run or a driver
    it ends, and ``quiet`` after how many it lets go of a host that is not needed, when this driver is the one that makes it.
    """

    def __init__(
        self, address: str, store: str | None, hosts: int, idle: float | None = IDLE_SECONDS, quiet: float = QUIET_SECONDS
    ) -> None:
        self.address = address
        self.store = store
        self._count = hosts
        self._idle = idle
        self._joined = False
        self._quiet = quiet

    async def open(self, roles: Callable[[], dict[str, Roles]]) -> RemoteCoordinator:
        """Join the cluster and attach to its coordinator, or make it. Raises ``BadInput`` for one of another schema or journal."""
        wanted = address_of(self.store)
        if wanted is None:
            raise BadInput("a deployment outlives this process and memory: does not; leave --store out, or name a file")
        await asyncio.to_thread(self._join)
        while True:
            coordinator = self._coordinator(wanted)
            try:
                schema, store = await called(coordinator.hello.remote())
                if schema != SCHEMA:
                    raise BadInput(
                        f"the coordinator at {self.address} speaks schema {schema} and this callboard schema {SCHEMA}; use the release "
                        f"that it was started with, or end it with `callboard down --address {self.address}` when its runs are done"
                    )
                if self.store is not None and store != wanted:
                    raise BadInput(
                        f"the deployment at {self.address} keeps its journal in {store}; leave --store out, or use another cluster "
                        f"(--address local is one of its own)"
                    )
                self.store = store
                await called(coordinator.start.remote())
            except HostGone:  # it ended itself between being found and being asked
                await asyncio.sleep(0.2)
                continue
            return RemoteCoordinator(coordinator)

    def _join(self) -> None:
        if _ray.is_initialized():
            return
        try:
            _knock(self.address)
            _ray.init(address=self.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            said = str(error).strip().splitlines()
            raise BadInput(
                f"no Ray cluster could be joined at {self.address} ({said[0] if said else type(error).__name__}); "
                f"check the address, or start one with `callboard up`"
            ) from None
        self._joined = True

    def _coordinator(self, store: str) -> Any:
        hosts = [(f"callboard-host-{SHARED}#{number}-{TOKEN}", SHARED) for number in range(self._count)]
        try:
            return _ray.get_actor(COORDINATOR, namespace=NAMESPACE)
        except ValueError:
            pass
        for number, (name, pool) in enumerate(hosts):
            _make(name, f"{pool}#{number}", pool, Resources())
        return Coordinators.options(
            name=COORDINATOR,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            # its journal is a file: it can come back where that file is, and nowhere else
            scheduling_strategy=NodeAffinitySchedulingStrategy(_head(), soft=False),
        ).remote(0, store, hosts, TOKEN, self._idle, self._quiet)

    async def prepare(self, team: TeamSpec) -> None:
        """Have a server for each embedded model. Raises ``BadInput`` when this Ray could never carry a role's hosts."""
        for model in sorted({role.model for role in team.roles.values() if role.model}):
            if model_server.is_embedded(model):
                model_server.start(model, NAMESPACE, TOKEN, stay=True)
        for role in team.roles.values():
            check(role.name, role.resources)

    async def close(self) -> None:
        """Leave the cluster. The deployment goes on with its runs."""
        if self._joined:
            await asyncio.to_thread(_ray.shutdown)
            self._joined = False

    async def end(self) -> bool:
        """End the deployment, if it is there: its actors are gone when this returns. Its runs can be resumed."""
        await asyncio.to_thread(self._join)
        try:
            coordinator = _ray.get_actor(COORDINATOR, namespace=NAMESPACE)
        except ValueError:
            return False
        with suppress(HostGone):  # it ends in the middle of answering
            await called(coordinator.end.remote())
        return True


def _knock(address: str) -> None:
    """Raises ``OSError`` when nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _make(name: str, label: str, pool: str, resources: Resources) -> None:
    Hosts.options(**host_options(name, resources), lifetime="detached", get_if_exists=True).remote(name, label, pool, TOKEN)


def _head() -> str:
    head: str = next(node["NodeID"] for node in _ray.nodes() if node["Alive"] and _HEAD in node["Resources"])
    return head
