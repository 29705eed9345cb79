"""Teams: the roles, planner, merge and budget that carry out goals. What a user defines and runs."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, InstanceOf

from agents import settings
from agents.models.port import Model
from agents.role import Role, unmet
from orchestrator import fallback
from orchestrator.merge import Merge, collect, only
from orchestrator.planner import check, check_goal, from_function, from_role, unfit
from protocols import ids
from protocols.budget import COUNTED, SPOKEN, UNLIMITED, Limits, spoken
from protocols.chat import Throttling
from protocols.failures import BadInput
from protocols.plan import Plan, Task
from protocols.team import MERGE, PLANNER, TeamSpec

if TYPE_CHECKING:
    from orchestrator.board import RunHandle, RunResult


class TeamSettings(settings.Settings):
    """The plain settings of a team."""

    name: Annotated[str, Field(min_length=1)]
    merge: InstanceOf[Merge] | None
    budget: InstanceOf[Limits]
    user: str
    most_tasks: Annotated[int, Field(ge=1)]
    depth: Annotated[int, Field(ge=0)]
    replans: Annotated[int, Field(ge=0)]
    reserve: InstanceOf[Limits]
    throttles: Mapping[str, InstanceOf[Throttling]]


UNNAMED = "the user's name is empty, too long or can't be printed; give one like 'ada'"

Planner = Callable[..., Any] | Plan | Role


@dataclass(frozen=True)
class Team:
    """Roles that work on goals together.

    ``planner`` is a function ``goal -> Plan`` (or ``(goal, failures) -> Plan``, which can plan anew), a fixed ``Plan``, or a role whose
    model plans; a team of one role needs none. ``merge`` makes one result of many (see ``orchestrator.merge``). ``budget`` bounds a
    whole run, ``user`` is charged for it. ``most_tasks`` bounds what a plan or a delegation may hold, ``depth`` how deep agents may
    delegate, ``replans`` how often a plan may be mended. ``reserve`` is what of the budget's counted limits only fallbacks may use
    (see ``Role``), so that one can always run. Raises ``BadInput`` for parts that do not fit together.
    """

    name: str
    roles: Sequence[Role]
    planner: Planner | None = None
    merge: Merge | None = None
    budget: Limits = UNLIMITED
    user: str = "nobody"
    most_tasks: int = 100_000
    depth: int = 3
    replans: int = 1
    reserve: Limits = UNLIMITED
    throttles: Mapping[str, Throttling] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings.check(TeamSettings, self, f"team {self.name!r}")
        if not ids.is_user_name(self.user):
            raise BadInput(f"team {self.name!r}: {UNNAMED}")
        if not isinstance(self.roles, Sequence) or not self.roles:
            raise BadInput(f"team {self.name!r} has no roles; give it a list of at least one")
        for role in self.roles:
            if not isinstance(role, Role):
                raise BadInput(f"team {self.name!r} has {role!r} among its roles; a role is made by Role(...) or @role")
            if role.name in (PLANNER, MERGE):
                raise BadInput(f"a role of team {self.name!r} is called {role.name!r}, which is the framework's own; choose another name")
            if not ids.is_role_name(role.name):
                raise BadInput(f"role name {role.name!r} is not allowed; use up to 50 lower-case letters, digits, _ and -")
        names = [role.name for role in self.roles]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise BadInput(f"team {self.name!r} has two roles called {sorted(twice)[0]!r}; every role needs a name of its own")
        if self.planner is None and len(self._first) != 1:
            raise BadInput(f"team {self.name!r} has {len(names)} roles and no planner; give it a function goal -> Plan, or a Plan")
        if isinstance(self.planner, Plan):
            wrong = check(self.planner, self._working, self.most_tasks)
            if wrong:
                raise BadInput(f"the plan of team {self.name!r} does not pass the checks: {wrong[0]}")
        elif self.planner is not None and not isinstance(self.planner, Role) and not callable(self.planner):
            raise BadInput(f"the planner of team {self.name!r} is {self.planner!r}; give a function, a Plan or a Role")
        for role in self.roles:
            for name in role.delegates:
                if name not in self._working:
                    raise BadInput(f"role {role.name!r} may delegate to {name!r}, which team {self.name!r} does not have")
        wrong = [*fallback.check(self.cast), *self.unkept(self.budget)]
        if wrong:
            raise BadInput(wrong[0])

    @cached_property
    def _working(self) -> dict[str, Role]:
        merger = self.merge.role if self.merge is not None else None
        own = {role.name: role for role in self.roles}
        others = [role for role in (self.planner, merger) if isinstance(role, Role)]
        return fallback.carried([*own.values(), *others]) | own

    @cached_property
    def _first(self) -> list[Role]:
        """The roles that are not there only for others to fall back to."""
        behind = {to.role for role in self.roles for to in role.fallbacks}
        return [role for role in self.roles if role.name not in behind]

    @cached_property
    def _merge(self) -> Merge:
        return self.merge if self.merge is not None else only() if self.planner is None else collect()

    @cached_property
    def _planning(self) -> tuple[Role | None, bool]:
        if isinstance(self.planner, Role):
            return from_role(self.planner, self._working, self.most_tasks), True
        if self.planner is None or isinstance(self.planner, Plan):
            return None, False
        return from_function(self.planner, self._working, self.most_tasks)

    @cached_property
    def cast(self) -> Mapping[str, Role]:
        """Every role by name, the planner's and the merge's own included."""
        roles = dict(self._working)
        if self._planning[0] is not None:
            roles[PLANNER] = self._planning[0]
        if self._merge.role is not None:
            roles[self._merge.role.name] = self._merge.role
        return roles

    def spec(self) -> TeamSpec:
        """The team without its code."""
        planner, replans = self._planning
        return TeamSpec(
            name=self.name,
            roles={name: role.spec() for name, role in self.cast.items()},
            planned=planner is not None,
            merge=self._merge.spec,
            most_tasks=self.most_tasks,
            depth=self.depth,
            replans=self.replans if replans else 0,
            throttles=self._declared() | dict(self.throttles),
        )

    def _declared(self) -> dict[str, Throttling]:
        """What models say themselves that their providers allow."""
        models = [model for role in self.cast.values() for model in role.models if not isinstance(model, str)]
        found = {model.id: getattr(model, "throttling", None) for model in models}
        return {name: declared for name, declared in found.items() if declared is not None and declared != Throttling()}

    def plan(self, goal: Any) -> Plan | None:
        """The plan that is known before the run: the fixed one, or the one task of a team of one role.

        Raises ``BadInput`` for a goal that its planner or that role can't take.
        """
        if isinstance(self.planner, Plan):
            return self.planner
        if self.planner is not None:
            check_goal(self.planner, goal)
            return None
        (role,) = self._first
        try:
            role.input_shape.read(goal)
        except BadInput as error:
            raise BadInput(unfit(f"role {role.name!r}", role.input, role.input_shape.schema, goal, str(error))) from None
        return Plan(tasks=(Task(id=role.name, role=role.name, input=goal),))

    @property
    def plan_is_one_task(self) -> bool:
        """Whether a run is one task, so that its output is the run's."""
        return self.planner is None

    def with_model(self, model: str | Model) -> "Team":
        """The same team with every role that has a model using this one. Raises ``BadInput`` when none has."""
        return self.with_models(lambda name, role: (model,))

    def with_models(self, choose: Callable[[str, Role], Sequence[str | Model]]) -> "Team":
        """The same team with, for every role that has a model, those that ``choose`` gives for its name in ``cast`` and itself: its model,
        and the fallbacks of that.

        Raises ``BadInput`` when none has.
        """
        if all(role.model is None for role in self.cast.values()):
            raise BadInput(f"no role of team {self.name!r} uses a model; leave the model out")

        def changed(name: str, role: Role) -> Role:
            if role.model is None and role.fallback is None:
                return role
            model, *others = choose(name, role) if role.model is not None else (None,)
            return replace(role, model=model, fallback_models=tuple(others), fallback=fallback.named(role))

        merge = self.merge
        if merge is not None and merge.role is not None:
            merge = replace(merge, role=changed(merge.role.name, merge.role))
        planner = changed(PLANNER, self.planner) if isinstance(self.planner, Role) else self.planner
        return replace(self, roles=tuple(changed(*one) for one in self._working.items()), planner=planner, merge=merge)

    def unmet(self, budget: Limits) -> list[str]:
        """What models lack to be called, what roles ask of them that they can't do, and money limits on models without a price."""
        return unmet_among(self.cast.values(), budget)

    def unkept(self, budget: Limits) -> list[str]:
        """Why ``reserve`` can't be kept of this budget."""
        for name in ("seconds", "subtasks"):
            if getattr(self.reserve, name) is not None:
                return [f"the reserve of team {self.name!r} has {name}, which can't be kept; give it {', '.join(SPOKEN)}"]
        return [
            f"the reserve of team {self.name!r} is {spoken(place, kept)} of {spoken(place, limit)}; keep less, or raise the limit"
            for place, name in enumerate(COUNTED)
            if (kept := getattr(self.reserve, name)) is not None and (limit := getattr(budget, name)) is not None and kept > limit
        ]

    async def run(self, goal: Any = None, **settings: Any) -> "RunResult":
        """Carry out ``goal`` and return the merged result. Settings as for ``start``."""
        handle = await self.start(goal, **settings)
        try:
            return await handle.result()
        finally:
            await handle.close()

    def run_sync(self, goal: Any = None, **settings: Any) -> "RunResult":
        """``run`` for code without an event loop."""
        return asyncio.run(self.run(goal, **settings))

    async def start(
        self,
        goal: Any = None,
        *,
        runtime: str = "ray",
        store: str | None = None,
        hosts: int = 2,
        address: str | None = None,
        user: str | None = None,
        budget: Limits | None = None,
        model: str | Model | None = None,
    ) -> "RunHandle":
        """Begin to carry out ``goal`` and return a handle on the run; close the handle when done with it.

        ``runtime`` is ``ray`` (a local cluster, started for this run and ended with it) or ``inline`` (this process, no Ray).
        ``address`` is that of a Ray cluster to run on instead; what is started there stays for the next run.
        ``store`` is where the journal is kept, ``$CALLBOARD_HOME/journal.db`` by default. ``user``, ``budget`` and ``model`` replace
        the team's; the model ``recorded:RUN`` plays what models answered in an earlier run of this journal. Raises ``BadInput`` when
        the goal, a role or a setting can't work.
        """
        from orchestrator.board import Board

        board = await Board(runtime=runtime, store=store, hosts=hosts, address=address).__aenter__()
        try:
            handle = await board.start(self, goal, user=user, budget=budget, model=model)
        except BaseException:
            await board.close()
            raise
        handle.owns(board)
        return handle


def unmet_among(roles: Iterable[Role], budget: Limits) -> list[str]:
    """As ``Team.unmet``, for some roles."""
    found = []
    for role in roles:
        if role.model is None:
            if not role.is_function:
                found.append(f"role {role.name!r} works by {role.strategy} and has no model; give it one, such as model='embedded'")
            continue
        for named in role.models:
            if isinstance(named, str):
                from agents.models.registry import resolve

                model = resolve(named)
            else:
                model = named
            missing: str | None = getattr(model, "missing", None)
            if missing is not None:
                found.append(f"role {role.name!r}: {missing}")
            found += unmet(role, model.profile)
            own = role.limits is not None and role.limits.micros is not None
            if model.price is None and (own or budget.micros is not None):
                found.append(
                    f"role {role.name!r} uses {model.id}, whose price is not known, and {'it' if own else 'the run'} has a limit on money; "
                    f"give the model a price, or limit tokens and calls instead"
                )
    return found
