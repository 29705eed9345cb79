"""Tools: typed functions that a model may call. Signature and docstring give the schema; arguments are validated strictly."""

import asyncio
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal, NotRequired, cast, get_args, get_origin, overload

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json
from typing_extensions import TypedDict

from agents import pure as purity
from agents.at_work import Context
from agents.declared import Declared, close
from agents.effects import Done, NotDone, Reconcile, Reconciled, Unknown
from agents.mishap import passes, worded
from agents.settings import ToolSettings, check, problems_of
from agents.threads import in_thread
from protocols import json_text
from protocols.chat import ToolSpec
from protocols.failures import BadInput, Failed, Failure, Verdict

Effect = Literal["read", "write"]
_CACHES = ("_shape", "spec")


_NETWORK: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)


class ToolResult(typing.NamedTuple):
    """What a call gave: the text that the model sees, the failure if there was one, whether its effect is in doubt, whether the tool
    says that it may be made ``again``, and whether its thread is ``going_on`` after a timeout."""

    content: str
    failure: Failure | None = None
    in_doubt: bool = False
    again: bool = False
    going_on: bool = False


class _Shape(typing.NamedTuple):
    arguments: TypeAdapter[Any] | Declared
    extra: Literal["forbid"] | None
    parameters: dict[str, Any]
    result: TypeAdapter[Any]
    is_text: bool
    context: str | None
    is_async: bool


@dataclass(frozen=True, eq=False)
class Tool:
    """A typed function that a model may call; made by ``@tool`` and still callable as the function that it was.

    ``timeout`` is in seconds. A call that raised one of ``retry_on`` is made again, up to ``retries`` times, after a wait that doubles.
    ``effect`` is ``write`` for whatever changes the world: such a call is announced before it starts, and is in doubt when its end was
    lost with its host, or it raised one of ``doubt_on``, timed out or was broken off (``CancelledError``). Then it is made again if it is
    ``idempotent`` (safe to repeat under the same ``Context.key``); else ``reconcile`` is asked what became of it, if there is one; else a
    person is. ``max_chars`` bounds a result in characters. A ``repeatable`` tool, like one that polls, may be called with equal arguments
    as long as its results change, and ten times in a row with equal results. ``parameters`` is the JSON schema of a tool that is declared,
    not typed: its function takes the arguments by name, as JSON. What a ``pure`` tool gave is kept for ``cache_seconds``, and is the result
    of every equal call until then, in any run: its result depends on its arguments and nothing else.
    """

    name: str
    description: str
    function: Callable[..., Any]
    timeout: float = 30.0
    effect: Effect = "read"
    idempotent: bool = False
    max_chars: int = 20_000
    repeatable: bool = False
    reconcile: Reconcile | None = None
    retries: int = 0
    retry_on: tuple[type[Exception], ...] = _NETWORK
    doubt_on: tuple[type[Exception], ...] = _NETWORK
    parameters: Mapping[str, Any] | None = None
    pure: bool = False
    cache_seconds: float = 86_400.0
    unbound: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check(ToolSettings, self, f"tool {self.name!r}")

    @cached_property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it."""
        return ToolSpec(name=self.name, description=self.description, parameters=self._shape.parameters)

    @cached_property
    def _shape(self) -> _Shape:
        if self.parameters is not None:
            return _declared(self.function, self.name, self.unbound, self.parameters)
        return _shape(self.function, self.name, self.unbound)

    @property
    def returns_text(self) -> bool:
        """Whether the function is declared to return a string."""
        return self._shape.is_text

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine, which ends when its call is stopped; another goes on in its thread."""
        return self._shape.is_async

    def read_arguments(self, arguments: dict[str, Any] | str) -> dict[str, Any]:
        """The arguments, typed. Raises ``BadInput`` naming each one that does not fit; nothing is coerced, but an integer is a number."""
        shape = self._shape
        if isinstance(arguments, str):
            raise BadInput(f"the arguments of {self.name!r} are {_misread(arguments)}; send a JSON object that fits its schema")
        wrong = json_text.flaw(arguments)
        if wrong is not None:
            problems = [wrong]
        elif isinstance(shape.arguments, Declared):
            problems = shape.arguments.problems(arguments)
            if not problems:
                return arguments
        else:
            try:
                return cast(dict[str, Any], shape.arguments.validate_json(to_json(arguments), strict=True, extra=shape.extra))
            except ValidationError as error:
                problems = [problems_of(error)]
        known = ", ".join(shape.parameters["properties"]) or "none"
        raise BadInput(f"the arguments of {self.name!r} do not fit: {'; '.join(problems)}; its arguments are: {known}")

    async def run(self, arguments: dict[str, Any], context: Context) -> ToolResult:
        """Call the function with arguments from ``read_arguments``; what it raises becomes a failure, except ``Failed``.

        A blocking function runs in a thread, which goes on after a timeout, or when this is cancelled, because threads cannot be stopped.
        """
        if self.unbound:
            raise BadInput(f"tool {self.name!r} is a method; give the role the tool of an instance, like tools=[thing.{self.name}]")
        shape = self._shape
        if shape.context is not None:
            arguments = {**arguments, shape.context: context}
        try:
            async with asyncio.timeout(self.timeout) as clock:
                if shape.is_async:
                    value = await self.function(**arguments)
                else:
                    value = await in_thread(self.function, **arguments)
            return ToolResult(self._bounded(self._dump(value)))
        except Failed:
            raise
        except PydanticSerializationError as error:
            return self.failed(f"it was carried out, and its result is not what it declares: {error}")
        except BaseException as error:
            if passes(error):
                raise
            late = isinstance(error, TimeoutError) and clock.expired()
            why = f"it took longer than {self.timeout:g} s" if late else worded(error)
            again = isinstance(error, self.retry_on)
            made = self.failed(why, retryable=again or isinstance(error, OSError))
            broken_off = late or isinstance(error, (*self.doubt_on, asyncio.CancelledError))
            in_doubt = self.effect == "write" and broken_off
            return made._replace(in_doubt=in_doubt, again=again, going_on=late and not shape.is_async)

    async def reconciled(self, key: str, arguments: dict[str, Any]) -> Reconciled:
        """What became of the write made under ``key``. Whatever goes wrong in asking means that it is not known."""
        if self.reconcile is None:
            return Unknown()
        known = {one.name: one.default for one in inspect.signature(self.function).parameters.values()} | arguments
        named = {name: known[name] for name in _parameters(self.reconcile)[1:]}
        try:
            async with asyncio.timeout(self.timeout):
                if inspect.iscoroutinefunction(self.reconcile):
                    found = await self.reconcile(key, **named)
                else:
                    found = await in_thread(self.reconcile, key, **named)
        except BaseException as error:
            if passes(error):
                raise
            return Unknown(f"its reconcile function failed: {worded(error)}")
        if not isinstance(found, (Done, NotDone, Unknown)):
            return Unknown(f"its reconcile function returned {type(found).__name__}, not Done, NotDone or Unknown")
        return found

    def result(self, value: Any) -> ToolResult | None:
        """``value`` as if a call had returned it; ``None`` when that is no result of this tool."""
        try:
            return ToolResult(self._bounded(self._dump(value)))
        except PydanticSerializationError:
            return None

    def read_result(self, content: str) -> Any:
        """The JSON value behind the text of a result; raises ``ValueError`` when it was cut."""
        if self._shape.is_text:
            return content
        return typing.cast(Any, _JSON.validate_json(content))

    def _dump(self, value: Any) -> str:
        if isinstance(value, str):
            return value if self._shape.is_text else to_json(value).decode()
        return self._shape.result.dump_json(value, warnings="error").decode()

    def _bounded(self, text: str) -> str:
        text = json_text.sendable(text)
        if len(text) <= self.max_chars:
            return text
        return f"{text[: self.max_chars]}\n[cut: {self.max_chars} of {len(text)} characters shown]"

    def failed(self, why: str, *, retryable: bool = False) -> ToolResult:
        """A call that failed, and why."""
        message = self._bounded(f"tool {self.name!r} failed: {why}")
        return ToolResult(message, Failure(verdict=Verdict.TOOL_ERROR, message=message, retryable=retryable))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> "Tool":
        if instance is None or not self.unbound:
            return self
        reconcile = self.reconcile
        if reconcile is not None and _is_method(reconcile):
            reconcile = reconcile.__get__(instance, owner)
        bound = replace(self, function=self.function.__get__(instance, owner), reconcile=reconcile, unbound=False)
        bound.__dict__.update({name: self.__dict__[name] for name in _CACHES if name in self.__dict__})
        return bound

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _CACHES}


_JSON: TypeAdapter[Any] = TypeAdapter(Any)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = 30.0,
    effect: Effect = "read",
    idempotent: bool = False,
    max_chars: int = 20_000,
    repeatable: bool = False,
    reconcile: Reconcile | None = None,
    retries: int = 0,
    retry_on: tuple[type[Exception], ...] = _NETWORK,
    doubt_on: tuple[type[Exception], ...] = _NETWORK,
    parameters: Mapping[str, Any] | None = None,
    pure: bool = False,
    cache_seconds: float = 86_400.0,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = 30.0,
    effect: Effect = "read",
    idempotent: bool = False,
    max_chars: int = 20_000,
    repeatable: bool = False,
    reconcile: Reconcile | None = None,
    retries: int = 0,
    retry_on: tuple[type[Exception], ...] = _NETWORK,
    doubt_on: tuple[type[Exception], ...] = _NETWORK,
    parameters: Mapping[str, Any] | None = None,
    pure: bool = False,
    cache_seconds: float = 86_400.0,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a typed function, sync or async, a ``Tool``; bare or with the options of ``Tool``.

    The docstring is the description; ``Annotated[..., Field(description=...)]`` describes an argument; a parameter annotated
    ``Context`` is injected and hidden. ``parameters`` declares the arguments by a JSON schema instead, like one that an MCP server gives:
    the function may then be ``**arguments``. Raises ``BadInput`` for a signature that no schema can be made of, or a schema that is none.
    """

    def make(function: Callable[..., Any]) -> Tool:
        called = name or str(getattr(function, "__name__", type(function).__name__))
        if effect == "read" and reconcile is not None:
            raise BadInput(f"tool {called!r}: reconcile is for tools with effect='write'; a read may always be repeated")
        made = Tool(
            name=called,
            description=description or inspect.getdoc(function) or "",
            function=function,
            timeout=timeout,
            effect=effect,
            idempotent=idempotent,
            max_chars=max_chars,
            repeatable=repeatable,
            reconcile=reconcile,
            retries=retries,
            retry_on=retry_on,
            doubt_on=doubt_on,
            parameters=parameters,
            pure=pure,
            cache_seconds=cache_seconds,
            unbound=_is_method(function),
        )
        _ = made.spec  # a wrong signature is met here, where the function is written
        if pure and (effect == "write" or repeatable or cache_seconds <= 0):
            raise BadInput(f"tool {called!r} can't be pure: it has effect='write', is repeatable, or its cache_seconds are not above 0")
        if pure:
            purity.check(function, called, made._shape.context)
        foreign = set(_parameters(reconcile)[1:]) - made.spec.parameters["properties"].keys() if reconcile else ()
        if foreign:
            raise BadInput(
                f"tool {called!r}: its reconcile function takes {sorted(foreign)}, which the tool does not; it takes the key first"
            )
        return made

    return make if function is None else make(function)


def _is_method(function: Callable[..., Any]) -> bool:
    return next(iter(inspect.signature(function).parameters), None) == "self"


def _parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, without ``self``."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def hints_of(function: Callable[..., Any], what: str) -> dict[str, Any]:
    """The resolved annotations of ``function``; raises ``BadInput`` when one names something that is not there."""
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError) as error:
        raise BadInput(f"{what}: its annotations can't be read ({error}); define their types at module level") from None


def is_context(annotation: Any) -> bool:
    """Whether a parameter with this annotation is to be given the ``Context``."""
    return annotation is Context or Context in get_args(annotation)


def _shape(function: Callable[..., Any], name: str, unbound: bool) -> _Shape:
    what = f"tool {name!r}"
    hints, context = hints_of(function, what), None
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1 if unbound else 0 :]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise BadInput(f"{what}: parameter {parameter} can't be given by name; use plain typed parameters")
        if parameter.name not in hints:
            raise BadInput(f"{what}: parameter {parameter.name!r} has no type; annotate it, like {parameter.name}: str")
        hint = hints[parameter.name]
        if is_context(hint):
            context = parameter.name
        elif isinstance(parameter.default, FieldInfo):
            raise BadInput(f"{what}: put the Field of {parameter.name!r} into its type: Annotated[..., Field(...)]")
        elif parameter.default is parameter.empty:
            fields[parameter.name] = _without_default(hint, what)
        else:
            fields[parameter.name] = NotRequired[_without_default(hint, what)]
            defaults[parameter.name] = parameter.default
    returns = hints.get("return", Any)
    try:
        made: Any = TypedDict  # made at run time, which static types have no words for
        shape = made("Arguments", fields)
        shape.__pydantic_config__ = ConfigDict(extra="forbid")
        arguments: TypeAdapter[Any] = TypeAdapter(shape)
        parameters = arguments.json_schema()
        result: TypeAdapter[Any] = TypeAdapter(returns)
    except PydanticUserError as error:
        raise BadInput(f"{what}: no schema can be made of its types: {error.message}") from None
    parameters.pop("title", None)
    parameters.setdefault("properties", {})
    close(parameters)
    for key, default in defaults.items():
        try:
            parameters["properties"][key].setdefault("default", _JSON.dump_python(default, mode="json", warnings="error"))
        except PydanticSerializationError:
            continue  # a default that is no JSON is the function's own business
    extra: Literal["forbid"] | None = None if _takes_others(parameters) else "forbid"
    return _Shape(arguments, extra, parameters, result, returns is str, context, inspect.iscoroutinefunction(function))


def _declared(function: Callable[..., Any], name: str, unbound: bool, parameters: Mapping[str, Any]) -> _Shape:
    what = f"tool {name!r}"
    hints, arguments = hints_of(function, what), Declared(parameters, what)
    takes = list(inspect.signature(function).parameters.values())[1 if unbound else 0 :]
    context = next((one.name for one in takes if is_context(hints.get(one.name))), None)
    named = {one.name for one in takes if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)} - {context}
    properties = arguments.parameters["properties"]
    if context in properties:
        raise BadInput(f"{what}: {context!r} is an argument of its schema and the Context of its function; name the Context otherwise")
    missing = set(properties) - named
    if missing and not any(one.kind is one.VAR_KEYWORD for one in takes):
        raise BadInput(f"{what}: its function does not take {', '.join(sorted(missing))} of its schema; let it take **arguments")
    returns = hints.get("return", Any)
    result: TypeAdapter[Any] = TypeAdapter(returns)
    return _Shape(arguments, None, arguments.parameters, result, returns is str, context, inspect.iscoroutinefunction(function))


def _takes_others(part: Any) -> bool:
    """Whether an object of this closed schema says itself that it takes other fields than those it declares."""
    if isinstance(part, list):
        return any(map(_takes_others, part))
    if not isinstance(part, dict):
        return False
    return ("properties" in part and part.get("additionalProperties", False) is not False) or any(map(_takes_others, part.values()))


def _misread(text: str) -> str:
    """What is wrong with text that came where a JSON object should have."""
    try:
        found = json_text.read(text)
    except ValueError as error:
        return f"no valid JSON ({error})"
    return "no JSON object" if not isinstance(found, dict) else "text"


def _without_default(hint: Any, what: str) -> Any:
    """``hint``, if its ``Field`` has no default: the function would never see it."""
    if get_origin(hint) is Annotated:
        for one in get_args(hint)[1:]:
            if isinstance(one, FieldInfo) and not one.is_required():
                raise BadInput(f"{what}: a default belongs in the signature, not in Field(default=...)")
    return hint
