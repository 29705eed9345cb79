"""What the coordinator must know of a team: names, schemas, limits and policy, but no code."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from protocols.budget import UNLIMITED, Limits
from protocols.chat import Throttling
from protocols.failures import Verdict
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
    are more hosts, up to ``most_hosts``. With ``await_nodes`` a host that no node could carry yet is waited for, as on a cluster whose
    autoscaler makes such nodes; else the run is refused."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    fallback_labels: tuple[dict[str, str], ...] = ()
    runtime_env: dict[str, Any] | None = None
    agents_per_host: int = Field(default=5_000, ge=1)
    most_hosts: int = Field(default=1, ge=1)
    await_nodes: bool = False

    def is_default(self) -> bool:
        """Whether any host will do."""
        return self == Resources()


BY_TURNS = frozenset({Strategy.REACT, Strategy.SEQUENTIAL})
"""Strategies whose agents have more than one turn, so that they can be told to conclude from those before."""


class FallbackSpec(Record):
    """Who takes over what a role failed at with one of ``verdicts``; none are all that no other fallback of the role names.

    ``kind`` says who: ``role`` of the team; a fixed ``answer`` (JSON); a person, who reads ``question`` and gives the output; or the role
    itself, which is told to conclude from what it has.
    """

    verdicts: tuple[Verdict, ...] = ()
    kind: Literal["role", "answer", "person", "conclude"] = "role"
    role: str | None = None
    answer: Any = None
    question: str = ""

    @property
    def who(self) -> str:
        """Whoever takes over, in words."""
        words = {"answer": "a fixed answer", "person": "a person", "conclude": "itself, told to conclude"}
        return words.get(self.kind) or f"role {self.role}"

    @property
    def by_host(self) -> bool:
        """Whether an agent does it, and not a person or nobody."""
        return self.kind in ("role", "conclude")


class RoleSpec(Record):
    """A role without its code. ``concurrency`` bounds its tasks at work at once in one run. ``fallback_models`` take over from ``model``,
    in their order. ``told`` says that as a fallback it takes a
    ``Handover``: the input, and why the role before it failed."""

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
    fallbacks: tuple[FallbackSpec, ...] = ()
    told: bool = False
    fallback_models: tuple[str, ...] = ()

    def models(self) -> tuple[str, ...]:
        """The ids of all models that it may ask."""
        return (() if self.model is None else (self.model,)) + self.fallback_models


class MergeSpec(Record):
    """How results become one. ``collect`` and ``only`` need no work; ``tree`` runs a role over at most ``fan_in`` results at a time.

    ``role`` names a role of the team that merges lists; without it the team's own ``merge`` role does. ``labelled`` says that its items
    are parts: results with their tasks, and among them what failed.
    """

    kind: Literal["collect", "only", "tree"] = "collect"
    role: str | None = None
    fan_in: int = Field(default=32, ge=2)
    labelled: bool = False


class TeamSpec(Record):
    """A team without its code. ``planned`` says that a task of role ``planner`` makes the plan; ``throttles`` are what providers allow, by
    the model's id."""

    name: str
    roles: dict[str, RoleSpec]
    planned: bool = False
    merge: MergeSpec = MergeSpec()
    most_tasks: int = Field(default=100_000, ge=1)
    depth: int = Field(default=3, ge=0)
    replans: int = Field(default=1, ge=0)
    throttles: dict[str, Throttling] = Field(default_factory=dict)
