import asyncio
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import cloudpickle
import pytest
from pydantic import BaseModel

from agents import Context, Role, ScriptedModel, role, steps, tool
from agents.checks import grounded
from agents.role import FUNCTION_LIMITS, MODEL_LIMITS, unmet
from protocols.chat import ModelRequest, Need, Profile
from protocols.failures import BadInput, Failed, Verdict
from protocols.team import Strategy


class Ticket(BaseModel):
    subject: str
    urgent: bool = False


class Question(BaseModel):
    text: str


@dataclass
class Pair:
    left: int
    right: int


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


@tool
def look(n: int) -> int:
    """Look."""
    return n


def test_a_typed_function_becomes_a_role() -> None:
    @role
    async def shout(ticket: Ticket, context: Context) -> str:
        """Say it loudly."""
        return f"{context.task} {ticket.subject.upper()}"

    assert shout.name == "shout"
    assert (shout.input, shout.output) == (Ticket, str)
    assert shout.strategy is Strategy.FUNCTION
    assert shout.limits == FUNCTION_LIMITS
    assert shout.run_context == "context"


def test_settings_override_what_the_function_says() -> None:
    @role(name="louder", attempts=5, model=ScriptedModel([]))
    def shout(text: str) -> str:
        return text

    assert (shout.name, shout.attempts, shout.limits) == ("louder", 5, MODEL_LIMITS)
    assert shout("a") == "a"


def test_strategy_follows_from_what_the_role_has() -> None:
    assert Role("a").strategy is Strategy.SINGLE
    assert Role("a", tools=[look]).strategy is Strategy.REACT
    assert Role("a", delegates=["b"]).strategy is Strategy.REACT
    assert Role("a", run=lambda text: text).strategy is Strategy.FUNCTION
    assert Role("a", strategy="sequential").strategy is Strategy.SEQUENTIAL


def test_wrong_roles_are_refused_with_the_next_step() -> None:
    def untyped(text):  # type: ignore[no-untyped-def]
        return text

    def silent(text: str):  # type: ignore[no-untyped-def]
        return text

    def two(a: str, b: str) -> str:
        return a + b

    def none() -> str:
        return ""

    for function in (untyped, silent, two, none):
        with pytest.raises(BadInput):
            role(function)
    for settings in (
        {"name": "Big Name"},
        {"name": "a", "strategy": "magic"},
        {"name": "a", "strategy": "function"},
        {"name": "a", "run": print, "strategy": "react"},
        {"name": "a", "tools": [look, look]},
        {"name": "a", "tools": look},
        {"name": "a", "delegates": "b"},
        {"name": "a", "delegates": 5},
        {"name": "a", "tools": [None]},
        {"name": "a", "model": 5},
        {"name": "a", "model": "embedded", "fallback_models": [5]},
        {"name": "a", "attempts": 0},
        {"name": "a", "output": Mood, "options": {"awful": "very bad"}},
    ):
        with pytest.raises(BadInput):
            Role(**settings)
    for kind in ({}, "user", ""):
        with pytest.raises(BadInput, match="can't be an input or output"):
            Role("a", input=kind).spec()


def test_input_is_read_strictly_and_says_where_it_is_wrong() -> None:
    one = Role("sorter", input=Ticket)
    assert one.read_input({"subject": "a"}) == Ticket(subject="a")
    assert one.read_input(Ticket(subject="a")) == Ticket(subject="a")
    with pytest.raises(BadInput, match=r"role 'sorter' is not Ticket: urgent: .*boolean"):
        one.read_input({"subject": "a", "urgent": "yes"})
    with pytest.raises(BadInput, match="valid string"):
        Role("a").read_input(3)


def test_output_of_another_type_is_a_schema_failure() -> None:
    assert Role("a", output=Ticket).dump_output(Ticket(subject="a")) == {"subject": "a", "urgent": False}
    assert Role("a", output=Mood).dump_output(Mood.GOOD) == "good"
    with pytest.raises(Failed) as caught:
        Role("a", output=Ticket).dump_output({"subject": 3})
    assert caught.value.failure.verdict is Verdict.SCHEMA


def test_prompts_render_by_type() -> None:
    def shown(kind: object, value: object) -> str:
        one = Role("a", input=kind)
        return one.prompt_for(one.read_input(value))

    assert shown(str, "hi") == "hi"
    assert shown(Question, {"text": "why?"}) == "why?"
    assert shown(Ticket, {"subject": "a"}) == "subject: a\nurgent: false"
    assert shown(Pair, {"left": 1, "right": 2}) == "left: 1\nright: 2"
    assert shown(list[str], ["a", "b"]) == "- a\n- b"
    assert shown(list[Question], [{"text": "a"}]) == '- {"text": "a"}'
    assert shown(int, 3) == "3"
    assert Role("a", prompt=lambda text: f"<{text}>").prompt_for("x") == "<x>"


def test_spec_is_json_and_holds_no_code() -> None:
    spec = Role("a", input=Ticket, output=list[int], delegates=["b"], model=ScriptedModel([], name="m")).spec()
    assert json.loads(spec.model_dump_json())["input_schema"]["required"] == ["subject"]
    assert spec.output_schema == {"type": "array", "items": {"type": "integer"}}
    assert (spec.delegates, spec.model, spec.strategy) == (True, "scripted:m", Strategy.REACT)


def test_labels_come_from_literals_enums_and_lists_of_them() -> None:
    options = Role("a", output=Mood, options={"good": "all is well"}).choice_options
    assert options is not None
    assert [(one.label, one.description) for one in options] == [("good", "all is well"), ("bad", "bad")]
    assert Role("a", output=Literal["x", "y"]).choice_options
    assert Role("a", input=list[str], output=list[Literal["x", "y"]]).choice_options
    assert Role("a", input=str, output=list[Literal["x", "y"]]).choice_options is None
    assert Role("a", output=str).choice_options is None


def test_unmet_needs_name_the_setting_that_would_help() -> None:
    nothing, scores = Profile(can=frozenset()), Profile(can=frozenset({Need.LOG_PROBABILITIES}))
    schema = Profile(can=frozenset({Need.JSON_SCHEMA}))
    assert "schema-tool" in unmet(Role("a", tools=[look], output=int), scores)[0]
    assert unmet(Role("a", tools=[look], output=int), schema) == []
    assert "log-probabilities" in unmet(Role("a", output=Mood), nothing)[0]
    assert unmet(Role("a", output=Mood), scores) == unmet(Role("a", output=Mood), schema) == []
    assert "output=str" in unmet(Role("a", output=Ticket), scores)[0]
    assert "free text" in unmet(Role("a"), schema)[0]
    assert "plan=" in unmet(Role("a", output=int, strategy="sequential"), schema)[0]
    assert unmet(Role("a", output=int, strategy="sequential", plan=lambda value: []), schema) == []
    assert unmet(Role("a", run=print), nothing) == []


def test_roles_travel_by_cloudpickle_after_use() -> None:
    one = Role("a", input=Ticket, output=Mood, tools=[look], model=ScriptedModel(["good"]))
    one.spec(), one.read_input({"subject": "a"})
    copy = cloudpickle.loads(cloudpickle.dumps(one))
    assert copy.spec() == one.spec()
    assert copy.read_input({"subject": "a"}).subject == "a"


def test_examples_are_shown_before_the_task_and_checked_when_the_role_is_made() -> None:
    heard: list[Any] = []

    class Sum(BaseModel):
        total: int

    def reply(request: ModelRequest) -> Any:
        heard.extend(request.messages)
        return Sum(total=7)

    adder = Role("adder", input=str, output=Sum, examples=[("1 and 2", Sum(total=3))], model=ScriptedModel(reply))

    async def ended() -> Any:
        return [message async for message in steps(adder, "3 and 4")][-1].output.inline

    assert asyncio.run(ended()) == {"total": 7}
    assert [(one.role, one.content) for one in heard] == [("user", "1 and 2"), ("assistant", '{"total":3}'), ("user", "3 and 4")]
    with pytest.raises(BadInput, match="its examples are"):
        Role("adder", input=str, output=Sum, examples=[("1 and 2", "three")], model=ScriptedModel(reply))


class Invoice(BaseModel):
    vendor: str
    total: float


def test_an_answer_that_does_not_stand_in_its_source_is_sent_back_and_at_last_refused() -> None:
    text = "Invoice of ACME  Tools, total 1,234.50 EUR"
    invented, right = Invoice(vendor="Acme Corp", total=99), Invoice(vendor="Acme tools", total=1234.5)
    reader = Role("reader", input=str, output=Invoice, check=grounded, model=ScriptedModel([invented, right]))

    async def ended(role: Role) -> Any:
        return [message async for message in steps(role, text)][-1]

    assert asyncio.run(ended(reader)).output.inline == {"vendor": "Acme tools", "total": 1234.5}
    stubborn = Role("reader", input=str, output=Invoice, check=grounded, model=ScriptedModel([invented] * 9))
    failure = asyncio.run(ended(stubborn)).failure
    assert failure.verdict is Verdict.SCHEMA
    assert "'Acme Corp' does not stand in the source" in failure.message


@pytest.mark.parametrize(
    ("output", "wrong"),
    [({"a": ["one two", 3]}, 0), ({"a": "three"}, 1), ([2500, 2.5, None, True], 0), ([7], 1), ("ONE  TWO", 0)],
)
def test_grounded_looks_for_every_text_and_number(output: Any, wrong: int) -> None:
    assert len(grounded("one two 3, 2.500 and 2,5", output)) == wrong


def test_the_default_limits_are_those_that_the_docstring_names() -> None:
    said = " ".join((Role.__doc__ or "").split())
    model, code = MODEL_LIMITS, FUNCTION_LIMITS
    assert f"{model.turns} turns, {model.model_calls} model calls, {model.tool_calls} tool calls and {model.seconds:g} seconds" in said
    assert f"{code.seconds:g} seconds for plain Python" in said
    assert Role("a").limits == Role("b", run=print, input=str, model="embedded").limits == model
