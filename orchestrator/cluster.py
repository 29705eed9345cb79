"""The runtime on Ray that ends with its driver: on a local Ray that is started for it, or on the Ray that the process has joined."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray

from orchestrator import model_server
from orchestrator.actors import Settings, end_all, make_coordinator
from orchestrator.code import Roles
from orchestrator.journal import address_of, open_journal
from orchestrator.remote import NAMESPACE, ActorHandle, RemoteCoordinator, called
from protocols.failures import BadInput
from protocols.team import Resources, TeamSpec

END_SECONDS = 2.5
"""How long coordinators are given to end in good order."""

# Ray's own types do not describe classes decorated with options, so here they are not typed at all.
_ray: Any = ray


def check(role: str, wanted: Resources) -> None:
    """Raises ``BadInput`` when no node that this Ray has could carry a host with these resources, unless one may come."""
    if wanted.await_nodes:
        return
    have = _ray.cluster_resources()
    asked = {"CPU": wanted.num_cpus, "GPU": wanted.num_gpus, "memory": wanted.memory or 0}
    for name, count in asked.items():
        if count > have.get(name, 0):
            raise BadInput(
                f"role {role!r} asks for {count:g} {name} and this Ray has {have.get(name, 0):g}; ask for less, use another cluster, "
                f"or set await_nodes where an autoscaler makes such nodes"
            )
    choices = [wanted.labels, *wanted.fallback_labels] if wanted.labels else []
    if choices and not any(_has(node, labels) for node in _ray.nodes() if node["Alive"] for labels in choices):
        raise BadInput(
            f"role {role!r} asks for a node labelled {wanted.labels} and this Ray has none; label one, drop the labels, "
            f"or set await_nodes where an autoscaler makes such nodes"
        )


def _has(node: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(node.get("Labels", {}).get(key) == value for key, value in labels.items())


class RayRuntime:
    """Coordinators and hosts that are ended with this runtime, and Ray as well if it was started here."""

    def __init__(self, store: str | None, hosts: int, coordinators: int = 1) -> None:
        """Each coordinator has as many ``hosts``."""
        self.store = store
        self._settings = Settings(token=secrets.token_hex(3), store=store, coordinators=coordinators, hosts=hosts)
        self._started_ray = False
        self._actors: list[ActorHandle] = []
        self._coordinators: list[RemoteCoordinator] = []
        self._models: set[str] = set()

    async def open(self, roles: Callable[[], dict[str, Roles]]) -> tuple[RemoteCoordinator, ...]:
        """Start Ray if need be, then hosts and coordinators. The journal is opened here first, so that a bad store is told at once."""
        if self._settings.coordinators > 1 and address_of(self.store) is None:
            raise BadInput("several coordinators can't share a journal in memory; name a file with --store, or use one coordinator")
        (await asyncio.to_thread(open_journal, self.store)).close()
        await asyncio.to_thread(self._start_ray)
        self._actors = [make_coordinator(number, self._settings) for number in range(self._settings.coordinators)]
        await asyncio.gather(*(called(actor.start.remote()) for actor in self._actors))
        self._coordinators = [RemoteCoordinator(actor) for actor in self._actors]
        return tuple(self._coordinators)

    def _start_ray(self) -> None:
        if ray.is_initialized():
            return
        ray.init(
            address="local",
            namespace=NAMESPACE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        self._started_ray = True

    async def prepare(self, team: TeamSpec) -> None:
        """Have a server for each embedded model. Raises ``BadInput`` when this Ray could never carry a role's hosts."""
        for model in sorted({model for role in team.roles.values() for model in role.models()} - self._models):
            if model_server.is_embedded(model):
                self._models.add(model)
                self._actors += model_server.start(model, NAMESPACE, self._settings.token)
        for role in team.roles.values():
            check(role.name, role.resources)

    async def close(self) -> None:
        """Stop all work, end the actors, and Ray if it was started here."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await asyncio.gather(*(one.stop() for one in self._coordinators), return_exceptions=True)
        finally:
            await self._end()

    async def _end(self) -> None:
        self._actors, self._coordinators = [], []
        if self._started_ray:
            await asyncio.to_thread(ray.shutdown)
            self._started_ray = False
        elif ray.is_initialized():
            end_all(self._settings.token)
