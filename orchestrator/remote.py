"""Coordinator and host actors as others reach them. Any call may fail with ``LinkDown``; what the other side raised is raised here."""

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from orchestrator.link import HostGone, LinkDown
from orchestrator.sides import Attached, CoordinatorSide, Place, Watched
from orchestrator.throttle import Word
from protocols.failures import CallboardError
from protocols.messages import BlobRef
from protocols.team import Resources

NAMESPACE = "callboard"
ANY = Resources()

# Ray's own types do not describe classes decorated with options, so here they are not typed at all.
ActorHandle = Any


async def called(awaitable: Awaitable[Any]) -> Any:
    """A remote call's answer; what the other side raised on purpose is raised here, anything of Ray's is ``LinkDown``."""
    try:
        return await awaitable
    except RayTaskError as error:
        if isinstance(error.cause, CallboardError):
            raise error.cause from None
        raise CallboardError(f"an actor failed: {error.cause or error}; its log in Ray's session folder says more") from None
    except ActorDiedError as error:
        raise HostGone(f"the actor has ended: {error}") from None
    except RayError as error:
        raise LinkDown(f"the actor did not answer: {error}") from None


class RemoteHost:
    """A host actor as the coordinator reaches it, by its name in the cluster."""

    def __init__(self, name: str, pool: str, resources: Resources = ANY) -> None:
        self.name = name
        self.pool = pool
        self.capacity = resources.agents_per_host
        self._handle = ray.get_actor(name, namespace=NAMESPACE)

    async def attach(self, coordinator: str, side: CoordinatorSide, born: int, wanted: Sequence[Place] = ()) -> Attached:
        """See ``HostSide``. The coordinator is this very actor, so the host gets its handle."""
        me = ray.get_runtime_context().current_actor
        incarnation, first, kept = await called(self._handle.attach.remote(coordinator, me, born, list(wanted)))
        return Attached(incarnation, first, kept)

    async def deliver(self, batch: bytes, label: str = "") -> int:
        """See ``HostSide``. The label is the name of the call in Ray's dashboard."""
        taken: int = await called(self._handle.deliver.options(name=label or "deliver").remote(batch))
        return taken

    async def stop(self) -> Sequence[Place]:
        """See ``HostSide``."""
        left: list[Place] = await called(self._handle.stop.remote())
        return left

    async def ping(self) -> str:
        """See ``HostSide``."""
        incarnation: str = await called(self._handle.ping.remote())
        return incarnation


class Peers:
    """The other coordinators of a deployment, by name. What they are told may be lost, and nobody waits for them to have heard it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._handles: dict[str, ActorHandle] = {}

    def tell(self, word: Word) -> None:
        """Tell all that are there."""
        for name in self._names:
            with suppress(ValueError, RayError):  # it has not been made yet, or is gone
                if name not in self._handles:
                    self._handles[name] = ray.get_actor(name, namespace=NAMESPACE)
                self._handles[name].overhear.options(num_returns=0).remote(tuple(word))


class RemoteCoordinator:
    """A coordinator actor as hosts and drivers reach it."""

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle

    async def deliver(self, host: str, batch: bytes, label: str = "") -> int:
        """See ``CoordinatorSide``."""
        taken: int = await called(self._handle.deliver.remote(host, batch))
        return taken

    async def stop(self) -> None:
        """See ``Coordinator``."""
        await called(self._handle.stop.remote())

    async def put_blob(self, data: bytes) -> BlobRef:
        """See ``CoordinatorSide``."""
        digest, size = await called(self._handle.put_blob.remote(data))
        return BlobRef(digest=digest, size=size)

    async def get_blob(self, digest: str) -> bytes:
        """See ``CoordinatorSide``."""
        data: bytes = await called(self._handle.get_blob.remote(digest))
        return data

    async def kept(self, run: str, name: str, shared: bool, claimant: str) -> str | None:
        """See ``CoordinatorSide``."""
        said: str | None = await called(self._handle.kept.remote(run, name, shared, claimant))
        return said

    async def keep(self, run: str, name: str, said: str, seconds: float, shared: bool) -> None:
        """See ``CoordinatorSide``."""
        await called(self._handle.keep.remote(run, name, said, seconds, shared))

    async def let_go(self, run: str, name: str, shared: bool, claimant: str) -> None:
        """See ``CoordinatorSide``."""
        await called(self._handle.let_go.remote(run, name, shared, claimant))

    async def begun(self, run: str) -> bytes | None:
        """See ``Coordinator``."""
        request: bytes | None = await called(self._handle.begun.remote(run))
        return request

    async def limits_money(self, user: str) -> bool:
        """See ``Coordinator``."""
        return bool(await called(self._handle.limits_money.remote(user)))

    async def submit(self, run: str, request: bytes) -> None:
        """See ``Coordinator``."""
        await called(self._handle.submit.options(name=f"submit {run}").remote(run, request))

    async def resume(self, run: str) -> None:
        """See ``Coordinator``."""
        await called(self._handle.resume.options(name=f"resume {run}").remote(run))

    async def cancel(self, run: str, reason: str) -> None:
        """See ``Coordinator``."""
        await called(self._handle.cancel.options(name=f"cancel {run}").remote(run, reason))

    async def pause(self, run: str, paused: bool) -> None:
        """See ``Coordinator``."""
        await called(self._handle.pause.options(name=f"{'pause' if paused else 'continue'} {run}").remote(run, paused))

    async def decide(self, run: str, decided: bytes) -> None:
        """See ``Coordinator``."""
        await called(self._handle.decide.options(name=f"decide {run}").remote(run, decided))

    async def abandon(self, run: str, reason: str) -> None:
        """See ``Coordinator``."""
        await called(self._handle.abandon.options(name=f"abandon {run}").remote(run, reason))

    async def wait(self, run: str, seconds: float) -> bool:
        """See ``Coordinator``."""
        done: bool = await called(self._handle.wait.remote(run, seconds))
        return done

    async def watch(self, run: str, after: int, partial: int, seconds: float) -> Watched:
        """See ``Coordinator``."""
        return Watched(*await called(self._handle.watch.remote(run, after, partial, seconds)))

    async def outcomes(self, run: str, start: int) -> bytes:
        """See ``Coordinator``."""
        page: bytes = await called(self._handle.outcomes.remote(run, start))
        return page

    async def ended(self, run: str) -> bytes:
        """See ``Coordinator``."""
        body: bytes = await called(self._handle.ended.remote(run))
        return body
