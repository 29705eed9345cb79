"""Arguments as they come from models: what can't be sent stops nothing, and what a type does not declare is refused wherever it stands."""

from dataclasses import dataclass
from typing import Any, NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from agents import HttpModel, Role, ScriptedModel, Tool, call, tool
from agents.models.wire import reply_of
from orchestrator import RunResult, Team
from protocols import codec
from protocols.chat import ModelReply, ModelRequest, ToolCall
from protocols.failures import BadInput, Verdict
from protocols.messages import ModelCalled
from tests.conftest import Endpoint, said

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(2**60) | st.floats() | st.text() | st.just("\ud800") | st.binary(max_size=3)
)
VALUES = st.recursive(SCALARS, lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text() | st.integers(), some, max_size=3))


@given(
    st.dictionaries(st.text() | st.just("\udfff"), VALUES, max_size=3) | st.text() | st.just('{"a": "\\ud800"}'),
    st.text() | st.just("\ud800"),
)
def test_every_call_can_be_sent_and_is_the_same_on_the_other_side(arguments: Any, name: str) -> None:
    reply = ModelReply(text=name, tool_calls=(ToolCall(id=name, name=name, arguments=arguments),))
    told = ModelCalled(task="t", attempt=1, step=0, model="m", request="", reply=reply)
    assert codec.unpack(codec.pack(told)) == told


class Point(BaseModel):
    model_config = ConfigDict(extra="ignore")
    x: int


@dataclass
class Leg:
    end: Point


class Note(TypedDict):
    text: NotRequired[str]


class Bag(BaseModel):
    model_config = ConfigDict(extra="allow")


@tool
def go(
    n: int = 0,
    point: Point | None = None,
    leg: Leg | None = None,
    notes: tuple[Note, ...] = (),
    named: dict[str, Point] | None = None,
    kind: Leg | Note | None = None,
) -> str:
    """Go"""
    raise AssertionError("the function must not be called")


@tool
def put(bag: Bag) -> None:
    """Put"""


@pytest.mark.parametrize(
    "arguments",
    [
        {"z": 1},
        {"point": {"x": 1, "z": 1}},
        {"leg": {"end": {"x": 1}, "z": 1}},
        {"leg": {"end": {"x": 1, "z": 1}}},
        {"notes": [{"text": "a"}, {"z": "a"}]},
        {"named": {"any": {"x": 1, "z": 1}}},
        {"kind": {"end": {"x": 1}, "z": 1}},
    ],
)
def test_a_field_that_no_type_declares_is_refused_wherever_it_stands(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"\bz: (Extra inputs are not permitted|Unexpected keyword argument)"):
        go.read_arguments(arguments)


def test_models_are_told_so_and_a_type_that_takes_others_keeps_them() -> None:
    parts = go.spec.parameters["$defs"]
    assert [parts[name]["additionalProperties"] for name in ("Point", "Leg", "Note")] == [False] * 3
    assert go.read_arguments({"leg": {"end": {"x": 1}}, "named": {"any": {"x": 2}}}) == {
        "leg": Leg(Point(x=1)),
        "named": {"any": Point(x=2)},
    }
    assert put.spec.parameters["$defs"]["Bag"]["additionalProperties"] is True
    assert put.read_arguments({"bag": {"hat": 1}})["bag"].hat == 1
    with pytest.raises(BadInput, match="z: Extra"):
        put.read_arguments({"bag": {}, "z": 1})


@tool(name="add", description="Add", parameters={"type": "object", "properties": {"n": {"type": "number"}, "of": {"type": "object"}}})
def declared(**arguments: Any) -> None: ...


@tool(name="add")
def typed(n: float, of: dict[str, int] | None = None) -> None:
    """Add"""


@pytest.mark.parametrize("made", [declared, typed])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"n": NaN}', "no valid JSON (expected value at line 1 column 7)"),
        ('{"n": -Infinity}', "no valid JSON"),
        ('{"n": 1e999}', "no valid JSON (inf is no number of JSON)"),
        ('{"n": 1, "n": 2}', "no valid JSON (the key 'n' stands there twice)"),
        ('{"n": 1, "of": {"a": 1, "a": 1}}', "no valid JSON (the key 'a' stands there twice)"),
        (f'{{"n": {2**64}}}', "no valid JSON (an integer has more than 64 bits)"),
        ('{"n": 1}{"n": 1}', "no valid JSON"),
        ("[1]", "no JSON object"),
    ],
)
def test_what_is_no_json_or_not_one_is_no_arguments(made: Tool, text: str, why: str) -> None:
    message = {"content": None, "tool_calls": [{"id": "c", "function": {"name": "add", "arguments": text}}]}
    (asked,) = reply_of({"choices": [{"message": message}]}, ModelRequest()).tool_calls
    with pytest.raises(BadInput) as caught:
        made.read_arguments(asked.arguments)
    assert f"the arguments of 'add' are {why}" in str(caught.value)


def ran(script: Any) -> RunResult:
    return Team("adders", [Role("adder", tools=[typed], model=ScriptedModel(script))]).run_sync("go", runtime="inline", store="memory:")


def test_an_integer_that_can_not_be_sent_is_told_and_counted_like_other_wrong_arguments() -> None:
    assert ran([call("add", n=10**25), call("add", n=float("nan")), "done"]).output == "done"
    failure = ran([call("add", n=10**25 + place) for place in range(4)]).tasks[0].failure
    assert failure is not None
    assert failure.verdict is Verdict.BAD_ARGUMENTS
    assert "an integer has more than 64 bits" in failure.message


@pytest.mark.parametrize("count", [2**64, 9 * 10**18, -1])
def test_a_count_that_no_reply_can_have_is_the_providers_failure(endpoint: Endpoint, count: int) -> None:
    endpoint.answer = lambda request: said("ok") | {"usage": {"prompt_tokens": count, "completion_tokens": 2}}
    team = Team("askers", [Role("asker", model=HttpModel(endpoint.url, "m"))])
    failure = team.run_sync("go", runtime="inline", store="memory:").tasks[0].failure
    assert failure is not None
    assert (failure.verdict, failure.retryable) == (Verdict.PROVIDER, False)
    assert "input_tokens: Input should be" in failure.message


class Boundless(ScriptedModel):
    """Its worst case is more than can be sent, and so is what it used, for it reports nothing."""

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        return 10**30, 1


def test_a_task_whose_end_can_not_be_told_ends_all_the_same() -> None:
    team = Team("askers", [Role("asker", model=Boundless(["ok"], counts_tokens=False))])
    (task,) = team.run_sync("go", runtime="inline", store="memory:").tasks
    assert task.failure is not None
    assert task.failure.verdict is Verdict.CODE_ERROR
    assert "how it ended can't be told: BadInput: a value can't be sent" in task.failure.message
