"""What the coordinator must know of a team: names, schemas, limits and policy, but no code."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from protocols.budget import UNLIMITED, Limits
from protocols.record import Record

PLANNER = "planner"
MERGE = "merge"


class Strategy(StrEnum):
    """How a role works on a task."""

    FUNCTION = "function"
    SINGLE = "single"
    SEQUENTIAL = "sequential"
    REACT = "react"


class Resources(Record):
    """What a role's hosts ask of the cluster. Memory is in bytes; ``labels`` select nodes, and where none fits,
    ``fallback_labels`` in their order; ``runtime_env`` is Ray's. A host carries ``agents_per_host`` at once, and where more wait there
    are more hosts, up to ``most_hosts``."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    fallback_labels: tuple[dict[str, str], ...] = ()
    runtime_env: dict[str, Any] | None = None
    agents_per_host: int = Field(default=5_000, ge=1)
    most_hosts: int = Field(default=1, ge=1)

    def is_default(self) -> bool:
        """Whether any host will do."""
        return self == Resources()


class RoleSpec(Record):
    """A role without its code. ``concurrency`` bounds its tasks at work at once in one run."""

    name: str
    strategy: Strategy
    model: str | None = None
    limits: Limits = UNLIMITED
    concurrency: int | None = None
    attempts: int = Field(default=2, ge=1)
    delegates: bool = False
    resources: Resources = Resources()
    input_schema: dict[str, Any] = Field(default_factory=dict)
    output_schema: dict[str, Any] = Field(default_factory=dict)


class MergeSpec(Record):
    """How results become one. ``collect`` and ``only`` need no work; ``tree`` runs a role over at most ``fan_in`` results at a time.

    ``role`` names a role of the team that merges lists; without it the team's own ``merge`` role does.
    """

    kind: Literal["collect", "only", "tree"] = "collect"
    role: str | None = None
    fan_in: int = Field(default=32, ge=2)


class TeamSpec(Record):
    """A team without its code. ``planned`` says that a task of role ``planner`` makes the plan."""

    name: str
    roles: dict[str, RoleSpec]
    planned: bool = False
    merge: MergeSpec = MergeSpec()
    most_tasks: int = Field(default=100_000, ge=1)
    depth: int = Field(default=3, ge=0)
    replans: int = Field(default=1, ge=0)
