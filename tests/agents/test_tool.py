import asyncio
import datetime
import threading
import time
from enum import Enum
from typing import Annotated, Any, Literal

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agents import Context, Tool, tool
from agents.tool import ToolResult
from protocols.failures import BadInput, Failed, Failure, Verdict

HERE = Context("run", "t", "r", 1, 4)


class Colour(Enum):
    RED = "red"


class Point(BaseModel):
    x: int


def run(made: Tool, arguments: dict[str, Any]) -> ToolResult:
    return asyncio.run(made.run(made.read_arguments(arguments), HERE))


def test_signature_and_docstring_become_the_schema() -> None:
    @tool
    def find(
        query: Annotated[str, Field(description="what to find", min_length=2)], most: int = 3, context: Context | None = None
    ) -> list[str]:
        """Find things."""
        return [query] * most

    assert find.spec.name == "find"
    assert find.spec.description == "Find things."
    schema = find.spec.parameters
    assert set(schema["properties"]) == {"query", "most"}
    assert schema["properties"]["query"]["description"] == "what to find"
    assert schema["properties"]["most"]["default"] == 3
    assert schema["required"] == ["query"]
    assert schema["additionalProperties"] is False
    assert find("ab", 1) == ["ab"]
    assert run(find, {"query": "ab"}).content == '["ab","ab","ab"]'


@pytest.mark.parametrize(
    ("arguments", "place"),
    [({"n": "1"}, "n"), ({"n": True}, "n"), ({"n": 1, "z": 2}, "z"), ({}, "n"), ({"n": 1, "point": {"x": "1"}}, "point.x")],
)
def test_arguments_are_never_coerced(arguments: dict[str, Any], place: str) -> None:
    @tool
    def count(n: int, point: Point | None = None) -> int:
        raise AssertionError("the function must not be called")

    with pytest.raises(BadInput, match=place):
        count.read_arguments(arguments)


def test_json_stands_for_the_types_that_it_has_no_words_for() -> None:
    @tool
    def take(when: datetime.date, colour: Colour, pair: tuple[int, ...], names: set[str], way: Literal["up"], point: Point) -> str:
        assert isinstance(point, Point)
        return f"{when:%Y} {colour.name} {pair} {names} {way} {point.x}"

    given = {"when": "2020-01-02", "colour": "red", "pair": [1, 2], "names": ["a"], "way": "up", "point": {"x": 1}}
    assert run(take, given).content == "2020 RED (1, 2) {'a'} up 1"


def test_raw_text_in_place_of_arguments_is_refused() -> None:
    @tool
    def count(n: int) -> int:
        return n

    with pytest.raises(BadInput, match=r"no valid JSON .*line 1 column 2"):
        count.read_arguments("{n: 1")


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
        max_size=3,
    )
)
def test_only_arguments_of_exactly_the_declared_types_pass(arguments: dict[str, Any]) -> None:
    fits = set(arguments) <= {"a", "b"} and type(arguments.get("a")) is int and type(arguments.get("b", "")) is str
    try:
        passed = TYPED.read_arguments(arguments) == arguments
    except BadInput:
        passed = False
    assert passed is fits


@tool
def typed(a: int, b: str = "") -> None: ...


TYPED = typed


def test_wrong_signatures_are_refused_where_they_are_written() -> None:
    def untyped(a) -> None: ...  # type: ignore[no-untyped-def]
    def starred(*a: int) -> None: ...
    def keywords(**a: int) -> None: ...
    def positional(a: int, /) -> None: ...
    def unfit(a: threading.Lock) -> None: ...
    def unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def default(a: Annotated[int, Field(default=3)]) -> None: ...

    for function in (untyped, starred, keywords, positional, unfit, unknown, default):
        with pytest.raises(BadInput):
            tool(function)


def test_methods_are_tools_of_their_instance() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool(effect="write", idempotent=True)
        async def sell(self, n: int) -> str:
            """Sell n."""
            return f"{self.name} {n}"

        def count(self, n: int) -> int:
            return n + len(self.name)

    shop = Shop("a")
    assert run(shop.sell, {"n": 2}).content == "a 2"
    assert shop.sell.effect == "write"
    assert list(shop.sell.spec.parameters["properties"]) == ["n"]
    assert run(tool(shop.count), {"n": 2}).content == "3"
    with pytest.raises(BadInput, match="instance"):
        run(Shop.sell, {"n": 2})


def test_blocking_functions_leave_the_event_loop_free() -> None:
    @tool
    def slow() -> int:
        time.sleep(0.1)
        return threading.get_ident()

    async def main() -> tuple[list[ToolResult], float]:
        began = time.perf_counter()
        found = await asyncio.gather(*(slow.run({}, HERE) for _ in range(3)))
        return found, time.perf_counter() - began

    found, seconds = asyncio.run(main())
    assert seconds < 0.28
    assert all(int(one.content) != threading.get_ident() for one in found)


def test_timeout_is_a_failure_and_puts_a_write_in_doubt() -> None:
    async def hang() -> None:
        await asyncio.sleep(10)

    read = asyncio.run(tool(timeout=0.02)(hang).run({}, HERE))
    write = asyncio.run(tool(timeout=0.02, effect="write")(hang).run({}, HERE))
    assert read.failure is not None
    assert "longer than 0.02 s" in read.content
    assert not read.in_doubt
    assert write.in_doubt


def test_what_a_tool_raises_is_a_failure_except_failed() -> None:
    @tool
    def broken() -> None:
        raise ValueError("no such thing")

    @tool
    def final() -> None:
        raise Failed(Failure(verdict=Verdict.REFUSED, message="stop"))

    result = run(broken, {})
    assert result.failure is not None
    assert result.failure.verdict is Verdict.TOOL_ERROR
    assert "ValueError: no such thing" in result.content
    with pytest.raises(Failed, match="stop"):
        run(final, {})


def test_results_are_typed_and_bounded_in_plain_sight() -> None:
    @tool
    def lying() -> int:
        return "text"  # type: ignore[return-value]

    @tool
    def wrong() -> list[int]:
        return {"a": 1}  # type: ignore[return-value]

    @tool(max_chars=10)
    def long() -> str:
        return "x" * 50

    assert run(lying, {}).content == '"text"'
    assert run(wrong, {}).failure is not None
    assert run(long, {}).content == "x" * 10 + "\n[cut: 10 of 50 characters shown]"
    assert run(tool(lambda: None), {}).content == "null"


def test_half_a_surrogate_pair_does_not_travel() -> None:
    @tool
    def odd() -> str:
        return "a\ud800b"

    assert run(odd, {}).content == "a?b"


def test_context_is_injected_and_carries_the_key() -> None:
    @tool
    def where(context: Context) -> str:
        return context.key

    assert where.spec.parameters["properties"] == {}
    assert run(where, {}).content == "run/t/4"


def test_tools_travel_by_cloudpickle() -> None:
    made = tool(name="n", timeout=2)(lambda: 3)
    assert run(cloudpickle.loads(cloudpickle.dumps(made)), {}).content == "3"
