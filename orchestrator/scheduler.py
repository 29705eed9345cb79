"""The scheduler: which ready tasks start now, and where. Pure: it reads the run's state and how much room hosts have."""

import heapq
from collections.abc import Mapping

from orchestrator.ledger import RUN, as_usage, plus, times
from orchestrator.reducer.state import RunState
from protocols import codec
from protocols.budget import ZERO, Amount
from protocols.messages import Dispatch, Dispatched
from protocols.team import Resources

SHARED = "shared"
"""The pool of hosts that serve every role without resources of its own."""

EVERY = "every"
"""The pool of hosts that serve any role for which there is no pool: where there is but one machine."""


def pool_of(resources: Resources) -> str:
    """The name of the pool that serves these resources."""
    if resources.is_default():
        return SHARED
    return "pool-" + codec.digest(resources.model_dump_json().encode())[:8]


def schedule(state: RunState, room: Mapping[str, dict[str, int]], most: int = 1000) -> Dispatched | None:
    """The next attempts to start, at most ``most``. ``room`` is, by pool and host, how many more tasks a host may take.

    Roles take turns, so that none waits for another; within a role, tasks go in the order in which they became ready, to the host
    with the most room.
    """
    if state.stopping is not None or state.closing or state.paused:
        return None
    items: list[Dispatch] = []
    heaps: dict[str, list[tuple[int, str]]] = {}
    promised = ZERO
    for role, queue in state.ready.items():
        if not queue or len(items) >= most:
            continue
        spec = state.request.team.roles[role]
        pool = pool_of(spec.resources)
        if pool not in room:
            pool = EVERY
        if pool not in heaps:
            heaps[pool] = [(-free, host) for host, free in room.get(pool, {}).items() if free > 0]
            heapq.heapify(heaps[pool])
        heap = heaps[pool]
        allowed = most - len(items)
        if spec.concurrency is not None:
            allowed = min(allowed, spec.concurrency - state.working.get(role, 0))
        need = None if spec.delegates else state.typical.get(role)
        for name, _ in zip(queue, range(allowed), strict=False):
            if not heap:
                break
            free, host = heap[0]
            if free + 1 < 0:
                heapq.heapreplace(heap, (free + 1, host))
            else:
                heapq.heappop(heap)
            me = state.tasks[name]
            lease = None
            if need is not None and me.parent is None and _plenty(state, plus(promised, need)):
                lease, promised = as_usage(need), plus(promised, need)
            items.append(Dispatch(task=name, attempt=me.attempt + 1, host=host, lease=lease))
    return Dispatched(items=tuple(items)) if items else None


def _plenty(state: RunState, promised: Amount) -> bool:
    """Whether first leases of this much, sized by what agents of the role asked for before, leave the run as much again."""
    return state.ledger.limited and not state.asks and state.ledger.shortage(RUN, times(promised, 2)) is None
