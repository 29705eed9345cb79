from typing import Any

import cloudpickle
import pytest

from agents import Context, Role, ScriptedModel, Tool, call, tool
from protocols.failures import BadInput
from tests.agents.bench import worked
from tests.agents.declared_calls import tried
from tests.agents.recorded_runs import DATA

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "where"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": None},
        "place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
        "from-to": {"type": "array", "items": {"$ref": "#/$defs/hour"}},
    },
    "required": ["city"],
    "$defs": {"hour": {"type": "integer"}},
}


@tool(name="weather", description="Tell the weather.", parameters=WEATHER)
async def weather(context: Context, **arguments: Any) -> Any:
    return {"asked": arguments, "task": context.task}


def test_a_declared_tool_is_called_with_what_fits_its_schema() -> None:
    assert isinstance(weather, Tool)
    given = {"city": "Leeds", "days": 2, "place": {"lat": 53}, "from-to": [6, 18], "unit": "celsius"}
    done = worked(Role("a", tools=[weather]), "go", ScriptedModel([call("weather", **given), "ok"]))
    assert done.tool_calls[0].failure is None
    assert done.tool_calls[0].content.endswith('"task":"t"}')
    assert weather.spec.parameters["additionalProperties"] is False
    assert "additionalProperties" not in WEATHER
    again = cloudpickle.loads(cloudpickle.dumps(weather))
    assert again.read_arguments(given) == given


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "city is missing"),
        ({"city": 5}, "city: it should be string, not integer"),
        ({"city": "a", "days": True}, "days: it should be integer, not boolean"),
        ({"city": "a", "days": 5.0}, "days: it should be integer, not number"),
        ({"city": "a", "days": 0}, "days: it does not keep to minimum 1"),
        ({"city": "a", "unit": "kelvin"}, 'unit: it should be one of ["celsius","fahrenheit"]'),
        ({"city": "a", "citty": 1}, "there is no argument 'citty'; did you mean 'city'?"),
        ({"city": "a", "place": {"lat": 1.5, "lon": 2}}, "place: there is no argument 'lon'"),
        ({"city": "a", "place": {}}, "place.lat is missing"),
        ({"city": "a", "from-to": [1, "2"]}, "from-to.1: it should be integer, not string"),
        ('{"city": "a"', "no valid JSON (EOF while parsing an object at line 1 column 12)"),
        ("[1]", "no JSON object"),
    ],
)
def test_what_is_wrong_is_said_precisely(arguments: dict[str, Any] | str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        weather.read_arguments(arguments)
    assert told in str(caught.value)


def test_what_may_be_left_out_may_be_given_as_its_default() -> None:
    assert weather.read_arguments({"city": "a", "unit": None}) == {"city": "a", "unit": None}
    with pytest.raises(BadInput, match="days: it should be integer, not null"):
        weather.read_arguments({"city": "a", "days": None})


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"type": "array"}, "type object"),
        ({"properties": {"a": {"type": "no such"}}}, "no JSON schema: at properties.a"),
        ({"properties": {"a": {"$ref": "https://example.com/schema"}}}, r"put what is meant there into \$defs"),
        ({"properties": {"b": {}}}, r"does not take b of its schema; let it take \*\*arguments"),
        ({"properties": {"context": {}}}, "name the Context otherwise"),
    ],
)
def test_what_is_no_schema_of_arguments_is_refused_where_it_is_written(parameters: dict[str, Any], why: str) -> None:
    def function(context: Context, a: int = 0) -> None: ...

    with pytest.raises(BadInput, match=why):
        tool(parameters=parameters)(function)


@pytest.mark.skipif(not DATA.exists(), reason=f"the BFCL subset is not on this machine ({DATA})")
def test_every_call_that_a_public_benchmark_accepts_passes_and_no_mutant_of_one() -> None:
    counts, wrong = tried(every=4)
    assert wrong == []
    assert counts["accepted call", "passes"] > 1_000
    assert counts["accepted call", "refused"] == 0
    assert sum(count for (_, how), count in counts.items() if how == "refused") > 5_000
    assert counts["accepted call that its own declaration rules out", "refused"] < 20
