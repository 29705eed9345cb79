"""A deployment: coordinators and hosts that stay on a Ray cluster between drivers, found again by their names.

They are detached actors of one namespace. Whoever comes first makes them, everybody else attaches; the first coordinator ends them all
when no run is at work and no driver has been heard for a while.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator import model_server
from orchestrator.actors import Settings, coordinator_name, end_all, make_coordinator, names
from orchestrator.cluster import END_SECONDS, check
from orchestrator.code import Roles
from orchestrator.journal import address_of
from orchestrator.link import HostGone, LinkDown
from orchestrator.pools import QUIET_SECONDS
from orchestrator.remote import NAMESPACE, ActorHandle, RemoteCoordinator, called
from protocols.failures import BadInput, CallboardError
from protocols.messages import SCHEMA
from protocols.team import TeamSpec

TOKEN = "deployment"
"""Stands in the names of its actors, where a driver's own have a random token."""

IDLE_SECONDS = 900.0
"""How long a deployment that nobody uses stays, unless it was started to stay."""

START_SECONDS = 20.0
"""How long a coordinator that does not answer is given to start, or to come back."""

KNOCK_SECONDS = 5.0
"""How long a cluster is given to accept a connection."""

_HEAD = "node:__internal_head__"
_ray: Any = ray


class DeploymentRuntime:
    """The deployment on the Ray at ``address``: joined when it is there, made when it is not, and left behind on close.

    ``store`` is where its journal is kept: a file is one of the cluster's head node. ``idle`` is after how many seconds without a run or
    a driver it ends, and ``quiet`` after how many it lets go of a host that is not needed, when this driver is the one that makes it.
    """

    def __init__(
        self,
        address: str,
        store: str | None,
        hosts: int,
        coordinators: int | None = None,
        idle: float | None = IDLE_SECONDS,
        quiet: float = QUIET_SECONDS,
    ) -> None:
        """Each of so many ``coordinators`` has as many ``hosts``; ``None`` takes as many as there are, or makes one."""
        self.address = address
        self.store = store
        self._coordinators = coordinators
        self._hosts = hosts
        self._idle = idle
        self._quiet = quiet
        self._joined = False

    async def open(self, roles: Callable[[], dict[str, Roles]]) -> tuple[RemoteCoordinator, ...]:
        """Join the cluster and attach to its coordinators, or make them. Raises ``BadInput`` for those of another schema or journal."""
        wanted = None if self.store is None else address_of(self.store)  # its default is that of the head, and known there
        if self.store is not None and wanted is None:
            raise BadInput("a deployment outlives this process and memory: does not; leave --store out, or name a file")
        await asyncio.to_thread(self._join)
        settings = Settings(
            token=TOKEN, store=wanted, coordinators=self._coordinators or 1, hosts=self._hosts, idle=self._idle, quiet=self._quiet
        )
        new, until = not names(TOKEN), time.monotonic() + START_SECONDS
        while True:
            try:
                return await self._attached(settings)
            except HostGone:  # it ended itself between being found and being asked
                await asyncio.sleep(0.2)
            except LinkDown as error:
                if time.monotonic() > until:
                    if new:
                        end_all(TOKEN)
                    raise CallboardError(
                        f"the coordinator at {self.address} does not start; check that every node of the cluster has callboard installed, "
                        f"of this version ({str(error).splitlines()[0]})"
                    ) from None
                await asyncio.sleep(1.0)

    async def _attached(self, settings: Settings) -> tuple[RemoteCoordinator, ...]:
        first = _have(0, settings)
        hello = await called(first.hello.remote())
        schema, store, count = hello if len(hello) == 3 else (hello[0], None, 1)
        if schema != SCHEMA:
            raise BadInput(
                f"the coordinator at {self.address} speaks schema {schema} and this callboard schema {SCHEMA}; use the release "
                f"that it was started with, or end it with `callboard down --address {self.address}` when its runs are done"
            )
        if self.store is not None and store != settings.store:
            where = "elsewhere" if _is_server(store) else f"in {store}"
            raise BadInput(
                f"the deployment at {self.address} keeps its journal {where}; leave --store out, or use another cluster "
                f"(--address local is one of its own)"
            )
        if self._coordinators not in (None, count):
            raise BadInput(
                f"the deployment at {self.address} has {count} coordinators and not {self._coordinators}; leave --coordinators out, "
                f"or end it with `callboard down --address {self.address}` first"
            )
        self.store = store
        settings = settings.model_copy(update={"store": store, "coordinators": count})
        handles = [first, *(_have(number, settings) for number in range(1, count))]
        await asyncio.gather(*(called(handle.start.remote()) for handle in handles))
        return tuple(RemoteCoordinator(handle) for handle in handles)

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

    async def prepare(self, team: TeamSpec) -> None:
        """Have a server for each embedded model. Raises ``BadInput`` when this Ray could never carry a role's hosts."""
        for model in sorted({model for role in team.roles.values() for model in role.models()}):
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
        """End the deployment, if it is there: its actors are gone when this returns. Its runs can be resumed, with what they held."""
        await asyncio.to_thread(self._join)
        there = names(TOKEN)
        coordinators = [name for number in range(len(there)) if (name := coordinator_name(number, TOKEN)) in there]
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*(_stop(name) for name in coordinators), return_exceptions=True)
        end_all(TOKEN)
        return bool(there)


def _knock(address: str) -> None:
    """Raises ``OSError`` when nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _have(number: int, settings: Settings) -> ActorHandle:
    """A coordinator, made if it is not there. With its journal in a file it can come back where that file is, and nowhere else."""
    try:
        return _ray.get_actor(coordinator_name(number, TOKEN), namespace=NAMESPACE)
    except ValueError:
        pinned = {} if _is_server(settings.store) else {"scheduling_strategy": NodeAffinitySchedulingStrategy(_head(), soft=False)}
        return make_coordinator(number, settings, lifetime="detached", **pinned)


async def _stop(name: str) -> None:
    await RemoteCoordinator(_ray.get_actor(name, namespace=NAMESPACE)).stop()


def _is_server(store: str | None) -> bool:
    return store is not None and "://" in store


def _head() -> str:
    head: str = next(node["NodeID"] for node in _ray.nodes() if node["Alive"] and _HEAD in node["Resources"])
    return head
