"""Settings: what a definition was given is checked by its type where it is given, and what is wrong is said in one sentence."""

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from protocols.budget import Limits
from protocols.failures import BadInput
from protocols.team import Resources

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Function = Callable[..., Any]


class Settings(BaseModel):
    """The plain settings of one kind of definition, by the names that they have there."""

    model_config = ConfigDict(strict=True, extra="ignore")


class RoleSettings(Settings):
    """Of a ``Role``."""

    instructions: str
    run: Function | None
    limits: InstanceOf[Limits] | None
    concurrency: Annotated[int, Field(ge=1)] | None
    attempts: Annotated[int, Field(ge=1)]
    resources: InstanceOf[Resources]
    prompt: Function | None
    options: InstanceOf[Mapping[str, str]] | None
    max_output_tokens: Annotated[int, Field(ge=1, le=1 << 31)]
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    check: Function | None
    plan: Function | None
    done: Function | None
    cache: Literal["user", "shared"] | None
    cache_seconds: Seconds
    hedge_after: Seconds | None


class ToolSettings(Settings):
    """Of a ``Tool``."""

    timeout: Seconds
    effect: Literal["read", "write"]
    idempotent: bool
    max_chars: Annotated[int, Field(ge=1)]
    repeatable: bool
    reconcile: Function | None
    retries: Annotated[int, Field(ge=0)]
    pure: bool
    cache_seconds: Seconds


def check(kind: type[Settings], of: object, what: str) -> None:
    """Raises ``BadInput`` where a setting of ``of`` (``what`` names it) is not what ``kind`` says."""
    given = {name: getattr(of, name) for name in kind.model_fields}
    try:
        kind.model_validate(given)
    except ValidationError as error:
        raise BadInput(f"{what}: {problems_of(error)}") from None


def problems_of(error: ValidationError, known: Collection[str] = ()) -> str:
    """What is wrong, place by place, without repeating the value: it may be long, and it is not ours. ``known`` are the names that there
    are, where one that there is not may be meant for one of them."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False)[:8]:
        where = ".".join(str(part) for part in one["loc"])
        said = one["msg"]
        if known and one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, known, n=1)
            said = "there is no such setting" + (f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}")
        found.append(f"{where}: {said}" if where else said)
    return "; ".join(found)
