"""The actors around coordinators and hosts, how they are named, made and ended.

Hosts belong to no coordinator and are handed to it by name, so that neither's end takes the other with it. Ray's retries and order
are relied on for nothing: every call may fail with ``LinkDown`` and is made again by numbered links and idempotent methods.
"""

import asyncio
import gc
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import ray

from orchestrator import model_server
from orchestrator.agent import Agent
from orchestrator.coordinator import Coordinator
from orchestrator.host import Host
from orchestrator.journal import address_of, open_journal
from orchestrator.link import LinkDown
from orchestrator.models import Models
from orchestrator.observe.exporter import export
from orchestrator.observe.logs import get_logger, to_json_lines
from orchestrator.observe.lookout import look_out
from orchestrator.pools import QUIET_SECONDS, Pools
from orchestrator.remote import NAMESPACE, ActorHandle, Peers, RemoteCoordinator, RemoteHost, called
from orchestrator.scheduler import SHARED
from orchestrator.sides import Place
from orchestrator.throttle import Word
from protocols.messages import SCHEMA
from protocols.record import Record
from protocols.team import Resources

Method = TypeVar("Method", bound=Callable[..., Any])

ORPHANED_SECONDS = 60.0
"""A host that has heard no coordinator for this long ends itself and its work."""

# Ray's own types do not describe classes decorated with options, so here they are not typed at all.
_ray: Any = ray


class Settings(Record):
    """What the coordinators of one deployment have in common.

    ``token`` is in the names of all its actors; each of so many ``coordinators`` has as many shared ``hosts``. ``idle`` is after how
    many seconds without a run or a driver it all ends, ``None`` is never; ``quiet`` after how many a host that is not needed goes.
    """

    token: str
    store: str | None
    coordinators: int = 1
    hosts: int = 2
    idle: float | None = None
    quiet: float = QUIET_SECONDS


def _untracked(method: Method) -> Method:
    """A method called so often that it would crowd everything else out of Ray's task list."""
    decorated: Method = _ray.method(enable_task_events=False)(method)
    return decorated


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
    """The host actors of one coordinator. They outlive who made them: a coordinator that comes back finds them again."""

    def __init__(self, token: str, coordinator: int) -> None:
        self._token = token
        self._coordinator = coordinator

    def there(self, pool: str) -> list[int]:
        """See ``orchestrator.pools.Hiring``."""
        first, last = f"callboard-host-{self._label(pool, '')}", f"-{self._token}"
        numbers = [name.removeprefix(first).removesuffix(last) for name in names(self._token)]
        return sorted(int(number) for number in numbers if number.isdigit())

    async def hire(self, pool: str, number: int, resources: Resources) -> RemoteHost:
        """See ``orchestrator.pools.Hiring``."""
        return RemoteHost(self.make(pool, number, resources), pool, resources)

    async def dismiss(self, host: str) -> None:
        """See ``orchestrator.pools.Hiring``."""
        with suppress(ValueError):
            ray.kill(ray.get_actor(host, namespace=NAMESPACE), no_restart=True)

    def make(self, pool: str, number: int, resources: Resources) -> str:
        """Have host ``number`` of a pool; returns its name."""
        label = self._label(pool, number)
        name = f"callboard-host-{label}-{self._token}"
        Hosts.options(**_host_options(name, resources)).remote(name, label, pool, self._token)
        return name

    def _label(self, pool: str, number: int | str) -> str:
        return f"{pool}#{number}" if self._coordinator == 0 else f"{pool}#{self._coordinator}.{number}"


def make_coordinator(number: int, settings: Settings, **options: Any) -> ActorHandle:
    """Have coordinator ``number`` of a deployment, and its shared hosts, which start meanwhile."""
    hiring = Hiring(settings.token, number)
    for host in range(settings.hosts):
        hiring.make(SHARED, host, Resources())
    name = coordinator_name(number, settings.token)
    owner = f"{name}/{secrets.token_hex(4)}"
    return Coordinators.options(name=name, namespace=NAMESPACE, get_if_exists=True, **options).remote(number, settings, owner)


def coordinator_name(number: int, token: str) -> str:
    """The name of a coordinator actor."""
    return f"callboard-coordinator-{number}-{token}"


def names(token: str) -> list[str]:
    """The names of the actors of a deployment that are there."""
    listed = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]
    return [name for name in listed if f"-{token}" in name]


def end_all(token: str) -> None:
    """End every actor of a deployment, the coordinators last and the first of them at the very end."""
    for name in sorted(names(token), reverse=True):
        with suppress(ValueError):
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)


class CoordinatorActor:
    """A ``Coordinator`` in a process of its own. After a restart its memory is empty, and it takes its runs up from the journal.

    What an actor is constructed from survives its maker, to make it again: so ``owner`` is the same then.
    """

    def __init__(self, number: int, settings: Settings, owner: str) -> None:
        _log_to_json()
        _collect_seldom()
        self._number = number
        self._settings = settings
        self._owner = owner
        self._heard = time.monotonic()
        self._coordinator: Coordinator | None = None
        self._ready_to_serve = False
        self._starting = asyncio.Lock()
        self._first = asyncio.get_running_loop().create_task(self._begin(), name="first start")

    def __repr__(self) -> str:
        return f"Coordinator({self._number})"

    async def _begin(self) -> None:
        """Start without being asked: whoever had runs here may be gone."""
        try:
            await self._ready()
        except Exception as error:
            get_logger("cluster").warning("the coordinator could not start; whoever asks it for something tries again", why=str(error))

    async def _ready(self) -> Coordinator:
        async with self._starting:
            if self._coordinator is None or not self._ready_to_serve:
                self._coordinator = await self._start()
                self._ready_to_serve = True
                if self._number == 0 and self._settings.idle is not None:
                    self._reaping = asyncio.create_task(self._reap(self._settings.idle), name="reaper")
            self._heard = time.monotonic()
            return self._coordinator

    async def _start(self) -> Coordinator:
        settings = self._settings
        journal = await asyncio.to_thread(open_journal, settings.store)
        hiring = Hiring(settings.token, self._number)
        hosts = [await hiring.hire(SHARED, number, Resources()) for number in range(settings.hosts)]
        coordinator = Coordinator(journal, hosts, Pools(hiring, settings.hosts, settings.quiet), self._owner, 1 / settings.coordinators)
        others = [number for number in range(settings.coordinators) if number != self._number]
        coordinator.turnstile.spread = Peers([coordinator_name(number, settings.token) for number in others]).tell
        self._exporting = export(coordinator)
        self._coordinator = coordinator  # hosts that are attached deliver what they kept while it starts
        try:
            await coordinator.start()
        except BaseException:
            await coordinator.close()
            journal.close()
            raise
        return coordinator

    async def _reap(self, idle: float) -> None:
        others = range(1, self._settings.coordinators)
        while True:
            await asyncio.sleep(min(idle / 4, 5.0))
            if await self.unused() > idle:
                with suppress(LinkDown, ValueError):
                    handles = [ray.get_actor(coordinator_name(number, self._settings.token), namespace=NAMESPACE) for number in others]
                    if all([await called(handle.unused.remote()) > idle for handle in handles]):
                        await self.end()

    async def unused(self) -> float:
        """For how many seconds there has been neither a run nor a driver."""
        if self._coordinator is not None and self._coordinator.is_busy():
            self._heard = time.monotonic()
        return time.monotonic() - self._heard

    async def start(self) -> None:
        """Open the journal and attach to the hosts."""
        await self._ready()

    async def stop(self) -> None:
        """See ``Coordinator``. One that has not started yet has nothing at work."""
        if self._coordinator is not None and self._ready_to_serve:
            await self._coordinator.stop()

    async def hello(self) -> tuple[int, str | None, int]:
        """The schema of its messages, where its journal is, and how many coordinators there are."""
        return SCHEMA, address_of(self._settings.store), self._settings.coordinators

    async def end(self) -> None:
        """End the hosts, the model servers and the coordinators of the deployment; runs at work can be resumed."""
        end_all(self._settings.token)

    async def begun(self, run: str) -> bytes | None:
        return await (await self._ready()).begun(run)

    async def limits_money(self, user: str) -> bool:
        return await (await self._ready()).limits_money(user)

    @_untracked
    async def deliver(self, host: str, batch: bytes) -> int:
        # Not through _ready: a host may deliver only after it was attached, and start() waits for hosts.
        return 0 if self._coordinator is None else await self._coordinator.deliver(host, batch)

    @_untracked
    async def overhear(self, word: tuple[Any, ...]) -> None:
        if self._coordinator is not None:
            self._coordinator.turnstile.overhear(Word(*word))

    @_untracked
    async def put_blob(self, data: bytes) -> tuple[str, int]:
        ref = await (await self._ready()).put_blob(data)
        return ref.digest, ref.size

    @_untracked
    async def get_blob(self, digest: str) -> bytes:
        return await (await self._ready()).get_blob(digest)

    @_untracked
    async def kept(self, run: str, name: str, shared: bool, claimant: str) -> str | None:
        return await (await self._ready()).kept(run, name, shared, claimant)

    @_untracked
    async def keep(self, run: str, name: str, said: str, seconds: float, shared: bool) -> None:
        await (await self._ready()).keep(run, name, said, seconds, shared)

    @_untracked
    async def let_go(self, run: str, name: str, shared: bool, claimant: str) -> None:
        await (await self._ready()).let_go(run, name, shared, claimant)

    async def submit(self, run: str, request: bytes) -> None:
        await (await self._ready()).submit(run, request)

    async def resume(self, run: str) -> None:
        await (await self._ready()).resume(run)

    async def cancel(self, run: str, reason: str) -> None:
        await (await self._ready()).cancel(run, reason)

    async def pause(self, run: str, paused: bool) -> None:
        await (await self._known(run)).pause(run, paused)

    async def decide(self, run: str, decided: bytes) -> None:
        await (await self._known(run)).decide(run, decided)

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

    async def attach(self, coordinator: str, handle: ActorHandle, born: int, wanted: list[Place]) -> tuple[Any, ...]:
        self._lookout = self._lookout or asyncio.create_task(look_out(self._host.at_work, self._show), name="lookout")
        self._orphaned = self._orphaned or asyncio.create_task(self._end_orphaned(), name="orphaned")
        self._heard = time.monotonic()
        return tuple(await self._host.attach(coordinator, RemoteCoordinator(handle), born, [(run, task, n) for run, task, n in wanted]))

    def _show(self, agent: Agent) -> None:
        """Have a task in Ray's dashboard that lasts as long as the agent."""
        me = ray.get_runtime_context().current_actor
        me.work.options(name=agent.label).remote(agent.run, agent.task)

    async def work(self, run: str, task: str) -> None:
        await self._host.ended(run, task)

    async def deliver(self, batch: bytes) -> int:
        return await self._host.deliver(batch)

    async def stop(self) -> list[Place]:
        return list(await self._host.stop())

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


def _host_options(name: str, resources: Resources) -> dict[str, Any]:
    """Ray's options of a host actor with these resources."""
    options: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "num_cpus": resources.num_cpus}
    options |= {"lifetime": "detached", "get_if_exists": True}
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
