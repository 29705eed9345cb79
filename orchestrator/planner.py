"""Planners: the function, plan or role that turns a goal into tasks, as the role ``planner``; and the typed checks of a plan."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, PydanticUserError, TypeAdapter, ValidationError

from agents.role import Role
from agents.settings import problems_of
from agents.typed import name_of
from protocols.failures import BadInput, Failed, Failure, Verdict
from protocols.plan import FROM, Plan, PlanAsk, problems, refs
from protocols.team import PLANNER, RoleSpec


def from_function(function: Callable[..., Any], roles: Mapping[str, Role], most_tasks: int) -> tuple[Role, bool]:
    """A planner role around ``goal -> Plan`` or ``(goal, failures) -> Plan``; and whether it can replan, having the second form."""
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the planner can't be called: {error}") from None
    if len(parameters) not in (1, 2):
        raise BadInput("a planner function takes the goal, and if it can plan anew also the failures: def plan(goal) -> Plan")
    goals: TypeAdapter[Any] = TypeAdapter(_goal_kind(function))
    replans = len(parameters) == 2

    async def run(ask: PlanAsk) -> Plan:
        try:
            goal = goals.validate_python(ask.goal)
        except ValidationError as error:
            raise _refused([f"the goal does not fit the planner: {problems_of(error)}"]) from None
        made = function(goal, ask.failures) if replans else function(goal)
        plan = await made if inspect.isawaitable(made) else made
        if not isinstance(plan, Plan):
            plan = Plan(tasks=tuple(plan))
        wrong = check(plan, roles, most_tasks, known=ask.done)
        if wrong:
            raise _refused(wrong)
        return plan

    return Role(name=PLANNER, input=PlanAsk, output=Plan, run=run), replans


def from_role(role: Role, roles: Mapping[str, Role], most_tasks: int) -> Role:
    """A planner role around a model: a plan that fails the checks goes back to the model with what is wrong."""

    def checked(plan: Plan) -> Plan:
        wrong = check(plan, roles, most_tasks)
        if wrong:
            raise ValueError("; ".join(wrong))
        return plan

    def prompt(ask: PlanAsk) -> str:
        known = "\n".join(f"- {name}: {one.instructions.splitlines()[0] if one.instructions else ''}" for name, one in roles.items())
        parts = [f"Goal: {ask.goal}", f"Roles that can do tasks:\n{known}"]
        if ask.failures:
            parts.append("These tasks failed:\n" + "\n".join(f"- {one}" for one in ask.failures))
            parts.append(f"These are done, and their ids are taken: {', '.join(ask.done) or 'none'}")
        return "\n\n".join(parts)

    return replace(role, name=PLANNER, input=PlanAsk, output=Annotated[Plan, AfterValidator(checked)], prompt=prompt)


def check_goal(planner: Callable[..., Any] | Role, goal: Any) -> None:
    """Raises ``BadInput`` for a goal (JSON) that the planner can't take. A role that plans from text takes every goal but none at all."""
    if isinstance(planner, Role):
        if goal is not None and planner.input is str:
            return
        kind, shape = planner.input, planner.input_shape.schema
        try:
            planner.input_shape.read(goal)
            return
        except BadInput as error:
            why = str(error)
    else:
        kind = _goal_kind(planner)
        goals: TypeAdapter[Any] = TypeAdapter(kind)
        try:
            goals.validate_python(goal)
            return
        except ValidationError as error:
            why = problems_of(error)
        try:
            shape = goals.json_schema()
        except PydanticUserError:
            shape = {}
    raise BadInput(unfit("the planner", kind, shape, goal, why))


def unfit(taker: str, kind: Any, shape: Mapping[str, Any], goal: Any, why: str) -> str:
    """The sentence for a goal that does not fit who takes it: what is wrong, what is wanted, and how it is given."""
    wrong = "there is no goal" if goal is None else f"the goal does not fit ({why})"
    written = _WRITTEN.get(next(iter(_types(_follow(shape, shape))), ""), "")
    return f"{wrong}: {taker} takes {name_of(kind)}; give it with --goal or --input{written}"


_WRITTEN = {
    "array": """, as JSON like --goal '["a", "b"]'""",
    "object": """, as JSON like --goal '{"name": "value"}'""",
}


def _goal_kind(function: Callable[..., Any]) -> Any:
    """The type of the goal that a planner function takes."""
    try:
        return get_type_hints(function).get(next(iter(inspect.signature(function).parameters)), Any)
    except NameError as error:
        raise BadInput(f"the planner's annotations can't be read: {error}") from None


def check(plan: Plan, roles: Mapping[str, Role], most_tasks: int, known: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with a plan: its graph, the inputs that do not fit their role, and outputs that can't be an input."""
    wrong = problems(plan, list(roles), most_tasks=most_tasks, known=known)
    if wrong:
        return wrong
    specs = {name: role.spec() for name, role in roles.items()}
    makers = {task.id: specs[task.role].output_schema for task in plan.tasks}
    for task in plan.tasks:
        for other in dict.fromkeys((task.fallback or {}).values()):
            wrong += [f"task {task.id!r}: {why}" for why in unlike(specs[task.role], specs[other])]
    fitting: dict[tuple[str, str, tuple[str | int, ...]], str | None] = {}
    role_of = {task.id: task.role for task in plan.tasks}
    for task in plan.tasks:
        if not any(True for _ in refs(task.input)):
            try:
                roles[task.role].read_input(task.input)
            except BadInput as error:
                wrong.append(f"the input of task {task.id!r}: {error}")
            continue
        schema = specs[task.role].input_schema
        for path, source in _references(task.input):
            if source not in makers:
                continue
            key = (role_of[source], task.role, path)
            if key not in fitting:
                slot = _slot(schema, path, schema)
                fitting[key] = None if slot is None else misfit(makers[source], slot, makers[source], schema)
            if fitting[key]:
                wrong.append(f"task {task.id!r} takes the output of {source!r}, but {fitting[key]}")
    return wrong[:20]


def unlike(mine: RoleSpec, other: RoleSpec) -> list[str]:
    """Why ``other`` can't take over what ``mine`` failed at, one sentence each."""
    found = []
    gives = misfit(other.output_schema, mine.output_schema, other.output_schema, mine.output_schema)
    if gives:
        found.append(f"the output of {other.name!r} can't stand in for that of {mine.name!r}, which falls back to it: {gives}")
    slot = other.input_schema.get("properties", {}).get("input") if other.told else other.input_schema
    takes = misfit(mine.input_schema, slot, mine.input_schema, other.input_schema)
    if takes:
        found.append(f"role {other.name!r} can't take the input of {mine.name!r}, which falls back to it: {takes}")
    return found


def _refused(wrong: list[str]) -> Failed:
    message = f"the plan did not pass the checks: {wrong[0]}"
    return Failed(Failure(verdict=Verdict.PLAN, message=message, evidence=tuple(wrong)))


def _references(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get(FROM), str):
            yield path, value[FROM]
            return
        for key, item in value.items():
            yield from _references(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _references(item, (*path, 0))


def _follow(schema: Any, root: Mapping[str, Any]) -> Any:
    while isinstance(schema, dict) and "$ref" in schema:
        schema = root.get("$defs", {}).get(schema["$ref"].removeprefix("#/$defs/"))
    return schema


def _slot(schema: Any, path: tuple[str | int, ...], root: Mapping[str, Any]) -> Any:
    schema = _follow(schema, root)
    if not path or not isinstance(schema, dict):
        return schema
    inner = schema.get("items") if isinstance(path[0], int) else schema.get("properties", {}).get(path[0])
    return _slot(inner, path[1:], root)


def misfit(given: Any, wanted: Any, given_root: Mapping[str, Any], wanted_root: Mapping[str, Any], depth: int = 0) -> str | None:
    """Why values of one JSON schema can't all be values of another; ``None`` when they can, or nobody can tell from the schemas."""
    given, wanted = _follow(given, given_root), _follow(wanted, wanted_root)
    if not isinstance(given, dict) or not isinstance(wanted, dict) or not given or not wanted or depth > 8:
        return None
    if "anyOf" in given:
        return next(filter(None, (misfit(one, wanted, given_root, wanted_root, depth + 1) for one in given["anyOf"])), None)
    if "anyOf" in wanted:
        tries = [misfit(given, one, given_root, wanted_root, depth + 1) for one in wanted["anyOf"]]
        return None if None in tries else tries[0]
    mine, theirs = _types(given), _types(wanted)
    if mine and theirs and not mine <= theirs | ({"integer"} if "number" in theirs else set()):
        return f"it is {' or '.join(sorted(mine))} where {' or '.join(sorted(theirs))} is wanted"
    if "enum" in wanted and "enum" in given and not set(given["enum"]) <= set(wanted["enum"]):
        return f"it may be one of {given['enum']} where one of {wanted['enum']} is wanted"
    if mine == {"array"}:
        return misfit(given.get("items"), wanted.get("items"), given_root, wanted_root, depth + 1)
    if mine == {"object"} and "properties" in given:
        missing = set(wanted.get("required", ())) - set(given["properties"])
        if missing:
            return f"it has no {', '.join(sorted(missing))}"
        for name, inner in wanted.get("properties", {}).items():
            if name in given["properties"]:
                why = misfit(given["properties"][name], inner, given_root, wanted_root, depth + 1)
                if why:
                    return f"{name}: {why}"
    return None


def _types(schema: Mapping[str, Any]) -> set[str]:
    kind = schema.get("type")
    return set(kind) if isinstance(kind, list) else {kind} if kind else set()
