"""The checks of fallbacks: that whoever takes over fits where the role before was taken, and that nobody falls back in a circle."""

from collections.abc import Iterable, Mapping
from typing import Any

from agents.fallback import by_verdicts
from agents.role import Role
from orchestrator.planner import unlike
from orchestrator.reducer.fallback import MOST_FALLBACKS, output_of
from protocols.failures import BadInput
from protocols.team import MERGE, PLANNER, RoleSpec


def carried(roles: Iterable[Role]) -> dict[str, Role]:
    """The roles that others hold as their fallbacks, and theirs, by name. Raises ``BadInput`` when two share one."""
    found: dict[str, Role] = {}
    todo = list(roles)
    while todo:
        role = todo.pop()
        for _, target in by_verdicts(role.name, role.fallback) if role.fallback is not None else ():
            if isinstance(target, Role) and found.setdefault(target.name, target) is not target:
                raise BadInput(f"two fallbacks are called {target.name!r}; every role needs a name of its own")
            if isinstance(target, Role):
                todo.append(target)
    return found


def named(role: Role) -> Any:
    """The fallback of ``role`` with roles by their names."""
    if role.fallback is None:
        return None
    pairs = by_verdicts(role.name, role.fallback)
    return {verdicts or "*": target.name if isinstance(target, Role) else target for verdicts, target in pairs}


def check(cast: Mapping[str, Role]) -> list[str]:
    """What is wrong with the fallbacks of these roles, one sentence each."""
    specs = {name: role.spec() for name, role in cast.items()}
    wrong = [words for name in specs for words in _wrong(name, specs)]
    return wrong or [words for name in specs if (words := _circle([name], specs))][:1]


def _wrong(name: str, specs: Mapping[str, RoleSpec]) -> list[str]:
    found = []
    mine = specs[name]
    for to in mine.fallbacks:
        if to.role is None:
            continue
        other = specs.get(to.role)
        if other is None or to.role in (PLANNER, MERGE):
            found.append(f"role {name!r} falls back to {to.role!r}, which the team does not have; add that role, or give the role itself")
            continue
        found += unlike(mine, other)
    return found


def _circle(line: list[str], specs: Mapping[str, RoleSpec]) -> str | None:
    """Why a task that went along ``line`` could go on too far."""
    for to in specs[line[-1]].fallbacks:
        if to.role in line:
            return f"roles fall back in a circle: {' -> '.join([*line, str(to.role)])}; let the last one fail, or give a fixed answer"
        if len(line) > MOST_FALLBACKS:
            return f"more than {MOST_FALLBACKS} fallbacks follow each other: {' -> '.join([*line, to.role or to.who])}; leave some out"
        deeper = _circle([*line, to.role], specs) if to.role is not None else None
        if deeper:
            return deeper
    return None


def answered(text: str, spec: RoleSpec) -> Any:
    """The output that a person gives for a task of this role. Raises ``BadInput`` when it does not fit."""
    from jsonschema.validators import Draft202012Validator  # it takes long to load, and few persons are asked

    value = output_of(text, spec.output_schema)
    wrong = next(iter(Draft202012Validator(spec.output_schema).iter_errors(value)), None)
    if wrong is not None:
        place = ".".join(str(part) for part in wrong.absolute_path) or "its root"
        raise BadInput(f"the result does not fit what role {spec.name!r} gives: at {place}: {wrong.message[:200]}")
    return value
