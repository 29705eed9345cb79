"""Roles: the kinds of agent in a team, on the code side. A role is made once and shared by all agents that play it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

from pydantic_core import to_json

from agents.context import ContextPolicy
from agents.delegation import delegate_tool
from agents.fallback import CONCLUDED, Conclude, Fixed, Person, by_verdicts, is_handover
from agents.models.port import Model
from agents.settings import RoleSettings, check
from agents.tool import Tool, hints_of, is_context, tool
from agents.typed import Shape, name_of, prompt_of
from protocols import ids
from protocols.budget import Limits
from protocols.chat import Need, Option, Profile
from protocols.failures import BadInput, Failed, Failure, Verdict
from protocols.team import BY_TURNS, FallbackSpec, Resources, RoleSpec, Strategy

MODEL_LIMITS = Limits(turns=40, model_calls=80, tool_calls=120, seconds=600.0)
"""What a role that uses a model may use in one task, unless it says otherwise: above all that recorded runs needed that succeeded."""
FUNCTION_LIMITS = Limits(seconds=3_600.0)
"""What a role that is plain Python may use in one task, unless it says otherwise: it has no turns and no model to call."""

_CALLS = ("turns", "model_calls", "tool_calls")


def bounded(given: Limits | None, default: Limits) -> Limits:
    """``given`` with the ``default`` seconds, unless it says its own, and the default turns and calls, unless it says any of these.

    ``Limits()`` is no limit at all.
    """
    if given is None:
        return default
    said = given.model_fields_set
    kept = ("seconds", *(() if said.intersection(_CALLS) else _CALLS))
    more = {name: getattr(default, name) for name in kept if name not in said}
    return given.model_copy(update=more) if said else given


_CACHES = ("input_shape", "output_shape", "toolbox", "shots", "choice_options", "run_context", "run_is_async", "fallbacks", "_spec")


@dataclass(frozen=True, eq=False, repr=False)
class Role:
    """A kind of agent: what it is told, what it takes and gives, and how it works.

    ``run`` is a function of the input, and of a ``Context`` if it has a parameter annotated so; without a ``strategy`` a role
    with ``run`` is a *function*, one with ``tools`` *react*, any other *single*. A sync ``run`` works in a thread (about
    0.1 ms more), an ``async`` one on the event loop, which it must not block.

    ``limits`` (one task, all its attempts and what failed in them) are, unless given, 40 turns, 80 model calls, 120 tool calls and 600
    seconds for a role with a model (``MODEL_LIMITS``), and 3600 seconds for plain Python (``FUNCTION_LIMITS``); time spent waiting for
    subtasks, or for a turn to call a model whose provider has limits, does not count. Seconds that are given replace the seconds, and
    turns or calls that are given all three of these; ``Limits()`` is no limit. An agent that repeats itself is stopped before.
    ``prompt`` makes the prompt from the typed input. ``options`` (label → description) and ``baseline`` describe the answers
    of a ``Literal`` or ``Enum`` output for a scored choice. ``plan`` makes the *sequential* strategy's steps by rule:
    ``plan(input, observations)`` gives the steps that remain, none when done; a step is text for the model or a ``ToolCall``.
    ``done`` (a function of the tool results so far, as JSON) says by rule when a *react* agent without planning ability has
    what it needs; without it, the first result is enough. ``examples`` are (input, output) pairs shown before each task: small models
    fill in values far better with a few. ``check(input, output)`` says what is wrong with an answer that fits its type (nothing when it
    is right); the model is told, and asked again within bounds. ``agents.checks.grounded`` is one.
    ``delegates`` names the roles that it may give subtasks to.
    ``fallback_models`` take over from ``model``, in their order and for the rest of the attempt: when its provider keeps failing, when the
    tries of a call are used up, or, where they are cheaper, when the budget has no room for it any more.
    With ``hedge_after`` a call to a provider that has said nothing for so many seconds is made a second time, where there is room for both;
    the first to speak is heard, and the other is stopped and counts at its worst case, as it may have been charged.
    With ``cache`` a reply is kept for ``cache_seconds``, and is the reply to every request that is the same word for word until then: of
    runs of the same user (``"user"``), or of any (``"shared"``). It costs nothing then. Where a tool has written, nothing is kept.
    ``fallback`` says who takes a task over that ended with a verdict, instead of its failing: a mapping of verdicts (one, several in a
    tuple, or ``"*"`` for all others) to a role of the team (by name, or the role itself), or ``Fixed(value)``, ``Person(question)`` or
    ``Conclude()`` of ``agents.fallback``; or one of these, for every verdict. Without one, an agent that works by turns concludes where a
    budget, not its role's own limits, has no room for its next.
    ``max_output_tokens`` bounds each reply (where a limit leaves less room it is shorter, down to a quarter), ``attempts`` the tries at a
    task that failed in a way that may pass, as what its own code raises does that is one of ``retry_on``; between them it waits.
    ``context`` says what becomes of the oldest turns when a conversation outgrows its model's context: ``trim`` leaves them out,
    ``summarise`` has the model summarise them first, ``fail`` ends the task (verdict context).

    Raises ``BadInput`` for what cannot work.
    """

    name: str
    instructions: str = ""
    input: Any = str
    output: Any = str
    run: Callable[..., Any] | None = None
    tools: Sequence[Tool | Callable[..., Any]] = ()
    model: "str | Model | None" = None
    strategy: Strategy | str | None = None
    limits: Limits | None = None
    concurrency: int | None = None
    attempts: int = 2
    retry_on: tuple[type[Exception], ...] = (OSError,)
    resources: Resources = field(default_factory=Resources)
    prompt: Callable[[Any], str] | None = None
    options: Mapping[str, str] | None = None
    baseline: Sequence[str] = ()
    max_output_tokens: int = 512
    temperature: float = 0.0
    delegates: Sequence[str] = ()
    examples: Sequence[tuple[Any, Any]] = ()
    check: Callable[[Any, Any], Sequence[str]] | None = None
    plan: Callable[..., Sequence[Any]] | None = None
    done: Callable[[list[Any]], bool] | None = None
    fallback: Any = None
    cache: Literal["user", "shared"] | None = None
    cache_seconds: float = 86_400.0
    fallback_models: "Sequence[str | Model]" = ()
    hedge_after: float | None = None
    context: ContextPolicy | str = ContextPolicy.TRIM

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not ids.is_role_name(self.name):
            raise BadInput(f"role name {self.name!r} is not allowed; use lower-case letters, digits, _ and -, at most 50, a letter first")
        check(RoleSettings, self, f"role {self.name!r}")
        try:
            default = Strategy.FUNCTION if self.run else Strategy.REACT if self.tools or self.delegates else Strategy.SINGLE
            object.__setattr__(self, "strategy", Strategy(self.strategy or default))
        except ValueError:
            known = ", ".join(Strategy)
            raise BadInput(f"role {self.name!r}: there is no strategy {self.strategy!r}; there are: {known}") from None
        try:
            object.__setattr__(self, "context", ContextPolicy(self.context))
        except ValueError:
            known = ", ".join(ContextPolicy)
            raise BadInput(f"role {self.name!r}: there is no context policy {self.context!r}; there are: {known}") from None
        for given in ("tools", "delegates", "fallback_models"):
            if isinstance(getattr(self, given), str) or not isinstance(getattr(self, given), Sequence):
                raise BadInput(f"role {self.name!r}: {given} is a list; put [ ] around the one you gave")
        for one in (self.model, *self.fallback_models):
            if not (one is None or isinstance(one, str) or hasattr(one, "profile")):
                raise BadInput(f"role {self.name!r} has the model {one!r}; give an id, like 'embedded', or a model")
        kinds = self.retry_on if isinstance(self.retry_on, Sequence) else (None,)
        if not all(isinstance(one, type) and issubclass(one, Exception) for one in kinds):
            raise BadInput(f"role {self.name!r}: retry_on is a list of exception types, like [ConnectionError, TimeoutError]")
        object.__setattr__(self, "retry_on", tuple(self.retry_on))
        if self.fallback_models and self.model is None:
            raise BadInput(f"role {self.name!r} has fallback_models= and no model= that they could take over from; give it one")
        foreign = [one for one in self.tools if not isinstance(one, Tool) and not callable(one)]
        if foreign:
            raise BadInput(f"role {self.name!r} has {foreign[0]!r} among its tools; a tool is a typed function, or made by @tool")
        object.__setattr__(self, "tools", tuple(one if isinstance(one, Tool) else tool(one) for one in self.tools))
        usual = FUNCTION_LIMITS if self.is_function and self.model is None else MODEL_LIMITS
        object.__setattr__(self, "limits", bounded(self.limits, usual))
        if self.is_function and self.run is None:
            raise BadInput(f"role {self.name!r} has the function strategy and no function; give it run=")
        if not self.is_function and self.run is not None:
            raise BadInput(f"role {self.name!r} has run= and strategy {self.strategy!r}; a function role has no other strategy")
        labels = self.output_shape.labels or self.output_shape.item_labels
        unknown = set(self.options or ()) - set(labels or self.options or ())
        if unknown:
            raise BadInput(f"role {self.name!r}: options {sorted(unknown)} are not labels of its output {name_of(self.output)}")
        _ = self.toolbox
        try:
            _ = self.shots
        except (Failed, TypeError, ValueError) as error:
            raise BadInput(f"role {self.name!r}: its examples are (input, output) pairs of the role's types: {error}") from None
        _ = self.fallbacks

    @property
    def is_function(self) -> bool:
        """Whether the role is plain Python."""
        return self.strategy is Strategy.FUNCTION

    @property
    def concludes(self) -> bool:
        """Whether it works by turns, so that it can be told to answer from what it has."""
        return self.strategy in BY_TURNS

    @property
    def model_id(self) -> str | None:
        """The model's id, ``provider:name``; of one that plays another, where it has that from."""
        return None if self.model is None else _id_of(self.model)

    @property
    def models(self) -> "tuple[str | Model, ...]":
        """All models that it may ask, in the order in which they take over."""
        return () if self.model is None else (self.model, *self.fallback_models)

    @cached_property
    def input_shape(self) -> Shape:
        """The input type."""
        return Shape(self.input)

    @cached_property
    def output_shape(self) -> Shape:
        """The output type."""
        return Shape(self.output)

    @cached_property
    def toolbox(self) -> dict[str, Tool]:
        """The tools by name; raises ``BadInput`` when two share one."""
        box: dict[str, Tool] = {}
        own = (delegate_tool(self.delegates),) if self.delegates and not self.is_function else ()
        for one in (*self.tools, *own):
            assert isinstance(one, Tool)
            if one.name in box:
                raise BadInput(f"role {self.name!r} has two tools called {one.name!r}; give one another name=")
            if one.unbound:
                raise BadInput(f"role {self.name!r}: tool {one.name!r} is a method; give the tool of an instance")
            box[one.name] = one
        return box

    @cached_property
    def shots(self) -> tuple[tuple[str, str], ...]:
        """The examples as they are shown: prompt and answer."""
        pairs = [(self.prompt_for(asked), self.output_shape.dump(answered)) for asked, answered in self.examples]
        return tuple((asked, said if self.output_shape.is_text else to_json(said).decode()) for asked, said in pairs)

    @cached_property
    def fallbacks(self) -> tuple[FallbackSpec, ...]:
        """Who takes over what it fails at."""
        declared = [] if self.fallback is None else by_verdicts(self.name, self.fallback)
        return tuple(self._fallback(verdicts, target) for verdicts, target in declared)

    def _fallback(self, verdicts: tuple[Verdict, ...], target: Any) -> FallbackSpec:
        match target:
            case str():
                return FallbackSpec(verdicts=verdicts, role=target)
            case Role():
                return FallbackSpec(verdicts=verdicts, role=target.name)
            case Person():
                return FallbackSpec(verdicts=verdicts, kind="person", question=target.question)
            case Conclude():
                if self.is_function or not verdicts or not CONCLUDED.issuperset(verdicts):
                    raise BadInput(f"role {self.name!r}: only a role that works by turns can conclude, after budget or turns")
                return FallbackSpec(verdicts=verdicts, kind="conclude")
            case Fixed():
                try:
                    return FallbackSpec(verdicts=verdicts, kind="answer", answer=self.output_shape.dump(target.value))
                except Failed as error:
                    raise BadInput(f"role {self.name!r}: its fixed fallback does not fit: {error}") from None
        raise BadInput(f"role {self.name!r} falls back to {target!r}; give a role, its name, Fixed(value), Person(question) or Conclude()")

    @cached_property
    def choice_options(self) -> tuple[Option, ...] | None:
        """The options of a ``Literal``/``Enum`` output, or of a list of them over a list of texts; else ``None``."""
        labels = self.output_shape.labels
        if labels is None and self.input == list[str]:
            labels = self.output_shape.item_labels
        if labels is None:
            return None
        described = self.options or {}
        return tuple(Option(label=label, description=described.get(label, label)) for label in labels)

    def spec(self) -> RoleSpec:
        """The role without its code, for the coordinator."""
        return self._spec

    @cached_property
    def _spec(self) -> RoleSpec:
        assert isinstance(self.strategy, Strategy)
        assert self.limits is not None
        return RoleSpec(
            name=self.name,
            strategy=self.strategy,
            model=self.model_id,
            limits=self.limits,
            concurrency=self.concurrency,
            attempts=self.attempts,
            delegates=bool(self.delegates),
            resources=self.resources,
            input_schema=self.input_shape.schema,
            output_schema=self.output_shape.adapter.json_schema(mode="serialization"),
            fallbacks=self.fallbacks,
            fallback_models=tuple(_id_of(model) for model in self.fallback_models),
            told=is_handover(self.input),
        )

    def read_input(self, value: Any) -> Any:
        """The typed input of a JSON value (or of a value that is typed already); raises ``BadInput`` with place and reason."""
        try:
            return self.input_shape.read(value)
        except BadInput as error:
            raise BadInput(f"the input of role {self.name!r} is not {name_of(self.input)}: {error}") from None

    def dump_output(self, value: Any) -> Any:
        """The output as JSON; raises ``Failed`` (schema) when it is not of the output type."""
        try:
            return self.output_shape.dump(value)
        except Failed as error:
            found = error.failure
            message = f"role {self.name!r}: {found.message}"
            raise Failed(Failure(verdict=found.verdict, message=message, evidence=found.evidence)) from None

    def prompt_for(self, value: Any) -> str:
        """The prompt for a typed input."""
        return self.prompt(value) if self.prompt else prompt_of(value)

    def needs(self) -> set[Need]:
        """What the role uses of a model at best; ``unmet`` knows what can stand in for it."""
        if self.is_function:
            return set()
        found = {Need.NATIVE_TOOLS} if self.toolbox else set()
        if self.choice_options:
            found.add(Need.LOG_PROBABILITIES)
        elif not self.output_shape.is_text:
            found.add(Need.JSON_SCHEMA)
        elif not self._tools_answer:
            found.add(Need.TEXT)
        if self.strategy is Strategy.SEQUENTIAL and self.plan is None:
            found.add(Need.PLANNING)
        return found

    @property
    def _tools_answer(self) -> bool:
        """Whether a tool's result can be the answer, so that the model need not write it."""
        return bool(self.toolbox) and all(one.returns_text for one in self.toolbox.values())

    @cached_property
    def run_context(self) -> str | None:
        """The name of the parameter of ``run`` that takes the ``Context``."""
        assert self.run is not None
        hints = hints_of(self.run, f"role {self.name!r}")
        return next((key for key, hint in hints.items() if key != "return" and is_context(hint)), None)

    @cached_property
    def run_is_async(self) -> bool:
        """Whether ``run`` belongs on the event loop."""
        return inspect.iscoroutinefunction(self.run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.run is None:
            raise BadInput(f"role {self.name!r} is no function; work through a team, or iterate agents.steps(role, input, model)")
        return self.run(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _CACHES}

    def __repr__(self) -> str:
        return f"Role({self.name!r}, {self.strategy})"


def _id_of(model: "str | Model") -> str:
    return model if isinstance(model, str) else str(getattr(model, "source", model.id))


@overload
def role(function: Callable[..., Any], /) -> Role: ...


@overload
def role(*, name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Role]: ...


def role(function: Callable[..., Any] | None = None, /, **settings: Any) -> Role | Callable[[Callable[..., Any]], Role]:
    """Make a typed function a function ``Role``; bare, or with the settings of ``Role``.

    The first parameter is the input, its annotation and that of the result the types; another parameter may be annotated
    ``Context``. Raises ``BadInput`` for other signatures.
    """

    def make(function: Callable[..., Any]) -> Role:
        called = settings.get("name") or function.__name__
        what = f"role {called!r}"
        hints = hints_of(function, what)
        parameters = list(inspect.signature(function).parameters.values())
        inputs = [one for one in parameters if not is_context(hints.get(one.name))]
        if not parameters or is_context(hints.get(parameters[0].name)):
            raise BadInput(f"{what}: its function takes no input; give it one typed parameter, like text: str")
        for one in inputs:
            if one.name not in hints:
                raise BadInput(f"{what}: parameter {one.name!r} has no type; annotate it, like {one.name}: str")
        for one in inputs[1:]:
            if one.default is one.empty:
                raise BadInput(f"{what}: a role has one input and {one.name!r} is a second; make them fields of one pydantic model")
        if "return" not in hints:
            raise BadInput(f"{what}: its function does not say what it returns; annotate it, like -> str")
        given = {"input": hints[inputs[0].name], "output": hints["return"], "instructions": inspect.getdoc(function) or ""}
        return Role(**{**given, **settings, "name": called, "run": function})

    return make if function is None else make(function)


def unmet(role: Role, profile: Profile) -> list[str]:
    """Why a model with this profile cannot play ``role``: one sentence each, with the setting that would help; empty when it can."""
    needs, can, who = role.needs(), profile.can, f"role {role.name!r}"
    found = []
    if Need.NATIVE_TOOLS in needs and not can & {Need.NATIVE_TOOLS, Need.JSON_SCHEMA}:
        found.append(
            f"{who} has tools, and its model has neither native tools nor the JSON schema that the schema-tool mode needs; "
            "set model= to one that has either, or call the tools from a function role (run=)"
        )
    if Need.LOG_PROBABILITIES in needs and not can & {Need.LOG_PROBABILITIES, Need.JSON_SCHEMA}:
        found.append(
            f"{who} chooses among labels, and its model has neither log-probabilities nor JSON schema; "
            "set model= to one that has either, like embedded"
        )
    if Need.JSON_SCHEMA in needs and Need.JSON_SCHEMA not in can:
        found.append(
            f"{who} answers with {name_of(role.output)}, and its model has no JSON schema; "
            "set model= to one that has it, or output=str where the model can write text"
        )
    if Need.TEXT in needs and Need.TEXT not in can:
        found.append(
            f"{who} answers in free text, and its model was measured to write none that can be used; "
            "set model= to a bigger one, or output= to a Literal, an Enum or a pydantic model"
        )
    if role.context == ContextPolicy.SUMMARISE and Need.TEXT not in can:
        found.append(
            f"{who} has what outgrows the context summarised, and its model was measured to write no text that can be used; "
            "set context='trim', or model= to a bigger one"
        )
    if Need.PLANNING in needs and Need.PLANNING not in can:
        found.append(
            f"{who} is sequential, and its model cannot plan; set plan= to a function that gives the steps, or model= to one that can"
        )
    return found
