"""Tools and calls of the BFCL benchmark: every call that it accepts, and mutants of each that must be refused, by kind."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from agents import Tool, tool
from protocols.chat import ToolCall
from protocols.failures import BadInput
from tests.agents.recorded_runs import DATA, rows

KINDS = {"dict": "object", "float": "number", "tuple": "array"}
"""BFCL's own names of types; ``any`` is no type at all."""


def declared(function: dict[str, Any]) -> Tool:
    """A tool from a function as BFCL declares it."""

    def nothing(**arguments: Any) -> str:
        return "ok"

    return tool(name=function["name"], description=function["description"], parameters=schema(function["parameters"]))(nothing)


def schema(part: dict[str, Any]) -> dict[str, Any]:
    """BFCL's schema as a JSON schema."""
    made = {key: value for key, value in part.items() if key not in ("type", "optional", "format")}
    kind = part.get("type")
    if kind not in (None, "any"):
        made["type"] = KINDS.get(kind, kind)
    if isinstance(part.get("properties"), dict):
        made["properties"] = {name: schema(one) for name, one in part["properties"].items()}
    if isinstance(part.get("items"), dict):
        made["items"] = schema(part["items"])
    return made


def accepted(truth: dict[str, list[Any]], function: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Calls that BFCL accepts: each accepted value of each argument at least once."""
    choices = {name: _choices(values, function["properties"].get(name, {})) for name, values in truth.items()}
    for turn in range(max((len(one) for one in choices.values()), default=1)):
        picked = {name: one[turn % len(one)] for name, one in choices.items()}
        yield {name: value for name, (there, value) in picked.items() if there}


def _choices(values: list[Any], part: dict[str, Any]) -> list[tuple[bool, Any]]:
    """The accepted values of one argument; ``""`` among others says that it may be left out."""
    found: list[tuple[bool, Any]] = []
    for value in values or [[]]:
        if value == "" and not (part.get("type") == "string" and len(values) == 1):
            found.append((False, None))
        elif isinstance(value, dict):
            found += [(True, one) for one in accepted(value, part)] if "properties" in part else [(True, value)]
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value) and "properties" in part.get("items", {}):
            found.append((True, [next(accepted(one, part["items"])) for one in value]))
        else:
            found.append((True, value))
    return found


def mutants(call: dict[str, Any], parameters: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Calls with one thing wrong: an argument that is missing, too much or twice, of a wrong type, or none of its enum; or no JSON."""
    yield "no JSON", json.dumps(call)[:-1]
    for name in call:
        yield "an argument given twice", json.dumps(call)[:-1] + f", {json.dumps(name)}: {json.dumps(call[name])}}}"
    yield "an extra argument", {**call, "surely_not_declared": 1}
    for name in parameters.get("required", ()):
        if name in call:
            yield "a missing argument", {key: value for key, value in call.items() if key != name}
    for name, value in call.items():
        part = parameters["properties"].get(name, {})
        yield "a misspelt argument", {**{key: one for key, one in call.items() if key != name}, f"{name}_x": value}
        for wrong in _wrong(part):
            yield "a wrong type", {**call, name: wrong}
        if "enum" in part and part.get("type") == "string":
            yield "a wrong enum value", {**call, name: "surely none of them"}
        if isinstance(value, dict) and "properties" in part:
            for kind, inner in mutants(value, part):
                if isinstance(inner, dict):
                    yield f"{kind}, nested", {**call, name: inner}
        if part.get("type") in ("float", "integer"):
            for wrong in ("NaN", "-Infinity", "1e999", str(2**64)):
                text = json.dumps({key: one for key, one in call.items() if key != name})
                yield "a number that can't be sent", f"{text[:-1]}{', ' * (len(call) > 1)}{json.dumps(name)}: {wrong}}}"
        if isinstance(value, list) and value and isinstance(value[0], dict) and "properties" in part.get("items", {}):
            for kind, inner in mutants(value[0], part["items"]):
                if isinstance(inner, dict):
                    yield f"{kind}, in an item", {**call, name: [inner, *value[1:]]}
        if isinstance(value, list) and value and "items" in part:
            for wrong in _wrong(part["items"]):
                yield "a wrong item", {**call, name: [*deepcopy(value), wrong]}


def _wrong(part: dict[str, Any]) -> list[Any]:
    """Values of another type; what the declaration itself names as its default is none."""
    found: list[Any] = {
        "string": [7, True, ["x"], None],
        "integer": ["7", 7.5, True, None],
        "float": ["7.5", True, None],
        "boolean": ["true", 1, None],
        "array": ["x", 7, {"x": 1}],
        "tuple": ["x", 7],
        "dict": ["x", 7, [1]],
    }.get(part.get("type", "any"), [])
    return [one for one in found if "default" not in part or one != part["default"]]


class Tried(Counter[tuple[str, str]]):
    """How often what was tried, by (what, how it went)."""


def tried(data: Path = DATA, every: int = 1) -> tuple[Tried, list[str]]:
    """All calls of the data, the mutants of one in ``every``, and in words whatever went wrong."""
    counts, wrong = Tried(), list[str]()
    for row in rows(data, "bfcl_v4_subset"):
        functions = {one["name"]: one for one in row["function"]}
        tools = {name: declared(one) for name, one in functions.items()}
        counts["tools declared", "made"] += len(tools)
        for truth in row["ground_truth"] or ():
            ((name, values),) = truth.items()
            parameters = functions[name]["parameters"]
            for call in accepted(values, parameters):
                what = "accepted call" if possible(call, parameters) else "accepted call that its own declaration rules out"
                counts[what, "passes" if _fits(tools[name], call) else "refused"] += 1
                if not _fits(tools[name], call):
                    if what == "accepted call":
                        wrong.append(f"{row['id']}: {_why(tools[name], call)}: {json.dumps(call)[:300]}")
                    continue
                if counts[what, "passes"] % every:
                    continue
                for kind, mutant in mutants(call, parameters):
                    passed = _fits(tools[name], mutant)
                    counts[kind, "passes" if passed else "refused"] += 1
                    if passed:
                        wrong.append(f"{row['id']}: {kind}: {json.dumps(mutant)[:300]}")
    return counts, wrong


def possible(call: dict[str, Any], parameters: dict[str, Any]) -> bool:
    """Whether a call fits its declaration by the rules of JSON schema alone, leaving aside what is given as its own default."""
    properties = parameters["properties"]
    given = {name: value for name, value in call.items() if "default" not in properties[name] or properties[name]["default"] != value}
    required = [name for name in parameters.get("required", ()) if name not in call or name in given]
    return bool(Draft202012Validator({**schema(parameters), "required": required}).is_valid(given))


def _fits(made: Tool, arguments: dict[str, Any] | str) -> bool:
    return not _why(made, arguments)


def _why(made: Tool, arguments: dict[str, Any] | str) -> str:
    try:
        made.read_arguments(ToolCall(id="", name=made.name, arguments=arguments).arguments)
    except BadInput as error:
        return str(error)
    return ""


def main() -> None:
    """Print the counts, and whatever went wrong."""
    parser = argparse.ArgumentParser("python -m tests.agents.declared_calls", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with bfcl_v4_subset.jsonl.gz")
    data = parser.parse_args().data
    counts, wrong = tried(data)
    if not counts:
        print(f"skipped: there is no bfcl_v4_subset.jsonl.gz in {data}; name its folder with --data")
        return
    print("| what | passes | refused |\n| --- | --- | --- |")
    for what in dict.fromkeys(what for what, _ in counts):
        print(f"| {what} | {counts[what, 'passes'] or counts[what, 'made']} | {counts[what, 'refused']} |")
    for line in wrong[:40]:
        print(line)


if __name__ == "__main__":
    main()
