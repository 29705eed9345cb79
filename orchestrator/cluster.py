"""Ray: the actors around coordinator and hosts, and the runtime that starts them for one driver.

Hosts are made by the driver and handed to the coordinator, so that neither's end takes the other with it. Ray's retries and order are
relied on for nothing: every call may fail with ``LinkDown`` and is made again by numbered links and idempotent methods.
"""

import asyncio
import gc
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import ray

from orchestrator import model_server
from orchestrator.code import Roles
from orchestrator.coordinator import Coordinator
from orchestrator.host import Agent, Host, Models
from orchestrator.journal import open_journal
from orchestrator.link import LinkDown
from orchestrator.observe.exporter import export
from orchestrator.observe.logs import get_logger, to_json_lines
from orchestrator.observe.lookout import look_out
from orchestrator.pools import QUIET_SECONDS, Pools
from orchestrator.remote import NAMESPACE, ActorHandle, RemoteCoordinator, RemoteHost, called
from orchestrator.scheduler import SHARED
from protocols.failures import BadInput
from protocols.messages import SCHEMA
from protocols.team import Resources, TeamSpec

Method = TypeVar("Method", bound=Callable[..., Any])

TOKEN = "deployment"
"""Stands in the names of the actors that stay for the next driver, where a driver's own have a random token."""

ORPHANED_SECONDS = 60.0
"""A host that has heard no coordinator for this long ends itself and its work."""

# Ray's own types do not describe classes decorated with options, so here they are not typed at all.
_ray: Any = ray


def _untracked(method: Method) -> Method:
    """A method called so often that it would crowd everything else out of Ray's task list."""
    decorated: Method = _ray.method(enable_task_events=False)(method)
    return decorated


THREADS = 64
_MANY = 10_000  # calls that one actor may have open: links have one each, and drivers wait in long polls


def _log_to_json() -> None:
    context = ray.get_runtime_context()
    to_json_lines(
        {
            "job_id": context.get_job_id(),
            "node_id": context.get_node_id(),
            "worker_id": context.get_worker_id(),
            "actor_id": context.get_actor_id() or "",
        }
    )


def _collect_seldom() -> None:
    """Thousands of agents and tasks live at once and hold no cycles: to collect often would be to walk all of them for nothing."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class Hiring:
    """Host actors of roles with resources of their own. They outlive who made them: a coordinator that comes back finds them again."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def hire(self, pool: str, number: int, resources: Resources) -> RemoteHost:
        """See ``orchestrator.pools.Hiring``."""
        label = f"{pool}#{number}"
        name = f"callboard-host-{label}-{self._token}"
        options = host_options(name, resources)
        Hosts.options(**options, lifetime="detached", get_if_exists=True).remote(name, label, pool, self._token)
        return RemoteHost(name, pool, resources)

    async def dismiss(self, host: str) -> None:
        """See ``orchestrator.pools.Hiring``."""
        with suppress(ValueError):
            ray.kill(ray.get_actor(host, namespace=NAMESPACE), no_restart=True)


def end_all(token: str) -> None:
    """End every actor whose name ends in this token or holds it as a model server's does, the coordinator last."""
    listed = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]
    for name in sorted((name for name in listed if f"-{token}" in name), reverse=True):
        with suppress(ValueError):
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)


class CoordinatorActor:
    """A ``Coordinator`` in a process of its own. Its memory is empty after a restart; drivers then resume their runs.

    Hosts come by name and not by handle: what an actor is constructed from must survive its maker, to make it again.
    """

    def __init__(
        self,
        number: int,
        store: str | None,
        hosts: list[tuple[str, str]],
        token: str,
        idle: float | None = None,
        quiet: float = QUIET_SECONDS,
    ) -> None:
        """``token`` is in the names of all its actors. ``idle`` is after how many seconds without a run or a driver it ends itself and
        them, ``None`` is never; ``quiet`` after how many a host that is not needed is let go."""
        _log_to_json()
        _collect_seldom()
        self._number = number
        self._store = store
        self._hosts = hosts
        self._token = token
        self._idle = idle
        self._quiet = quiet
        self._heard = time.monotonic()
        self._coordinator: Coordinator | None = None
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Coordinator({self._number})"

    async def _ready(self) -> Coordinator:
        async with self._starting:
            if self._coordinator is None:
                journal = await asyncio.to_thread(open_journal, self._store)
                pools = Pools(Hiring(self._token), self._quiet)
                coordinator = Coordinator(journal, [RemoteHost(*host) for host in self._hosts], pools)
                self._exporting = export(coordinator)
                await coordinator.start()
                self._coordinator = coordinator
                if self._idle is not None:
                    self._reaping = asyncio.create_task(self._reap(coordinator, self._idle), name="reaper")
            self._heard = time.monotonic()
            return self._coordinator

    async def _reap(self, coordinator: Coordinator, idle: float) -> None:
        while True:
            await asyncio.sleep(min(idle / 4, 5.0))
            if coordinator.is_busy():
                self._heard = time.monotonic()
            elif time.monotonic() - self._heard > idle:
                await self.end()

    async def start(self) -> None:
        """Open the journal and attach to the hosts."""
        await self._ready()

    async def hello(self) -> tuple[int, str | None]:
        """The schema of its messages, and where its journal is."""
        return SCHEMA, self._store

    async def end(self) -> None:
        """End the hosts, the model servers of the deployment and this actor; runs at work can be resumed."""
        end_all(self._token)

    async def has(self, run: str) -> bool:
        return await (await self._ready()).has(run)

    @_untracked
    async def deliver(self, host: str, batch: bytes) -> int:
        # Not through _ready: a host may deliver only after it was attached, and start() waits for hosts.
        return 0 if self._coordinator is None else await self._coordinator.deliver(host, batch)

    @_untracked
    async def put_blob(self, data: bytes) -> tuple[str, int]:
        ref = await (await self._ready()).put_blob(data)
        return ref.digest, ref.size

    @_untracked
    async def get_blob(self, digest: str) -> bytes:
        return await (await self._ready()).get_blob(digest)

    async def submit(self, run: str, request: bytes) -> None:
        await (await self._ready()).submit(run, request)

    async def resume(self, run: str) -> None:
        await (await self._ready()).resume(run)

    async def cancel(self, run: str, reason: str) -> None:
        await (await self._ready()).cancel(run, reason)

    async def abandon(self, run: str, reason: str) -> None:
        await (await self._ready()).abandon(run, reason)

    @_untracked
    async def wait(self, run: str, seconds: float) -> bool:
        return await (await self._known(run)).wait(run, seconds)

    @_untracked
    async def watch(self, run: str, after: int, partial: int, seconds: float) -> tuple[Any, ...]:
        return tuple(await (await self._known(run)).watch(run, after, partial, seconds))

    @_untracked
    async def outcomes(self, run: str, start: int) -> bytes:
        return await (await self._known(run)).outcomes(run, start)

    async def ended(self, run: str) -> bytes:
        return await (await self._known(run)).ended(run)

    async def _known(self, run: str) -> Coordinator:
        coordinator = await self._ready()
        if not coordinator.knows(run):
            raise LinkDown(f"this coordinator has been restarted and does not have run {run} yet")
        return coordinator


class HostActor:
    """A ``Host`` in a process of its own. After a restart it is another incarnation, with nothing at work."""

    def __init__(self, name: str, label: str, pool: str, token: str) -> None:
        _log_to_json()
        _collect_seldom()
        self._label = label
        self._lookout: asyncio.Task[None] | None = None
        self._orphaned: asyncio.Task[None] | None = None
        self._heard = time.monotonic()
        self._host = Host(name, pool, Models(lambda model: model_server.connect(model, NAMESPACE, token)))

    def __repr__(self) -> str:
        return f"Host({self._label})"

    async def attach(self, coordinator: str, handle: ActorHandle) -> str:
        # Blocking tools and functions wait in threads: more of them than cores.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="tools"))
        self._lookout = self._lookout or asyncio.create_task(look_out(self._host.at_work, self._show), name="lookout")
        self._orphaned = self._orphaned or asyncio.create_task(self._end_orphaned(), name="orphaned")
        self._heard = time.monotonic()
        return await self._host.attach(coordinator, RemoteCoordinator(handle))

    def _show(self, agent: Agent) -> None:
        """Have a task in Ray's dashboard that lasts as long as the agent."""
        me = ray.get_runtime_context().current_actor
        me.work.options(name=agent.label).remote(agent.run, agent.task)

    async def work(self, run: str, task: str) -> None:
        await self._host.ended(run, task)

    async def deliver(self, batch: bytes) -> int:
        return await self._host.deliver(batch)

    @_untracked
    async def ping(self) -> str:
        self._heard = time.monotonic()
        return await self._host.ping()

    async def _end_orphaned(self) -> None:
        silent = 0
        while silent < 10:  # counted in wakings: where a tool blocks the loop, nobody can be heard, and it is not silence
            heard = self._heard
            await asyncio.sleep(ORPHANED_SECONDS / 10)
            silent = silent + 1 if self._heard == heard else 0
        get_logger("cluster").warning("no coordinator has been heard; this host ends", seconds=ORPHANED_SECONDS)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    async def close(self) -> None:
        await self._host.close()


_as_actor = _ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=_MANY)
Coordinators: Any = _as_actor(CoordinatorActor)
Hosts: Any = _as_actor(HostActor)


def host_options(name: str, resources: Resources) -> dict[str, Any]:
    """Ray's options of a host actor with these resources."""
    options: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "num_cpus": resources.num_cpus}
    if resources.num_gpus:
        options["num_gpus"] = resources.num_gpus
    if resources.memory is not None:
        options["memory"] = resources.memory
    if resources.labels:
        options["label_selector"] = resources.labels
    if resources.fallback_labels:
        options["fallback_strategy"] = [{"label_selector": labels} for labels in resources.fallback_labels]
    if resources.runtime_env is not None:
        options["runtime_env"] = resources.runtime_env
    return options


def check(role: str, wanted: Resources) -> None:
    """Raises ``BadInput`` when no node of this Ray could ever carry a host with these resources."""
    have = _ray.cluster_resources()
    asked = {"CPU": wanted.num_cpus, "GPU": wanted.num_gpus, "memory": wanted.memory or 0}
    for name, count in asked.items():
        if count > have.get(name, 0):
            raise BadInput(
                f"role {role!r} asks for {count:g} {name} and this Ray has {have.get(name, 0):g}; ask for less or use another cluster"
            )
    choices = [wanted.labels, *wanted.fallback_labels] if wanted.labels else []
    if choices and not any(_has(node, labels) for node in _ray.nodes() if node["Alive"] for labels in choices):
        raise BadInput(f"role {role!r} asks for a node labelled {wanted.labels} and this Ray has none; label one or drop the labels")


def _has(node: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(node.get("Labels", {}).get(key) == value for key, value in labels.items())


class RayRuntime:
    """One coordinator and some hosts on a local Ray, started here and ended here; or on the Ray that this process has joined already."""

    def __init__(self, store: str | None, hosts: int) -> None:
        self.store = store
        self._count = hosts
        self._token = secrets.token_hex(3)
        self._started_ray = False
        self._coordinator: ActorHandle | None = None
        self._remote: RemoteCoordinator | None = None
        self._hosts: dict[str, list[ActorHandle]] = {}
        self._servers: list[ActorHandle] = []
        self._models: set[str] = set()

    async def open(self, roles: Callable[[], dict[str, Roles]]) -> RemoteCoordinator:
        """Start Ray if need be, then hosts and coordinator. The journal is opened here first, so that a bad store is told at once."""
        (await asyncio.to_thread(open_journal, self.store)).close()
        await asyncio.to_thread(self._start_ray)
        hosts = [self._make_host(SHARED, number, Resources()) for number in range(self._count)]
        name = f"callboard-coordinator-0-{self._token}"
        self._coordinator = Coordinators.options(name=name, namespace=NAMESPACE).remote(0, self.store, hosts, self._token)
        self._remote = RemoteCoordinator(self._coordinator)
        await called(self._coordinator.start.remote())
        return self._remote

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

    def _make_host(self, pool: str, number: int, resources: Resources) -> tuple[str, str]:
        label = f"{pool}#{number}"
        name = f"callboard-host-{label}-{self._token}"
        options = host_options(name, resources)
        handle = Hosts.options(**options).remote(name, label, pool, self._token)
        self._hosts.setdefault(pool, []).append(handle)
        return name, pool

    async def prepare(self, team: TeamSpec) -> None:
        """Have a server for each embedded model. Raises ``BadInput`` when this Ray could never carry a role's hosts."""
        for model in sorted({role.model for role in team.roles.values() if role.model} - self._models):
            if model_server.is_embedded(model):
                self._models.add(model)
                self._servers += model_server.start(model, NAMESPACE, self._token)
        for role in team.roles.values():
            check(role.name, role.resources)

    async def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        actors = [handle for hosts in self._hosts.values() for handle in hosts]
        if self._coordinator is not None:
            actors.append(self._coordinator)
        for actor in [*actors, *self._servers]:
            ray.kill(actor, no_restart=True)
        if ray.is_initialized() and not self._started_ray:
            end_all(self._token)
        self._hosts, self._coordinator, self._servers = {}, None, []
        if self._started_ray:
            await asyncio.to_thread(ray.shutdown)
            self._started_ray = False
