"""Declared arguments: those of a tool whose JSON schema somebody else wrote, like an MCP or HTTP server, checked to the letter."""

import difflib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from protocols.failures import BadInput

_OPEN = {"additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if"}
"""An object whose schema has one of these says elsewhere which other fields it may have."""
_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}


class Declared:
    """The arguments that a JSON schema (draft 2020-12, unless its ``$schema`` says another) declares for a tool.

    Objects take no other fields than those they declare, unless the schema says so. An integer fits where a number is declared; a
    boolean is no number; and a number with a point is no integer, 5.0 neither. What may be left out may also be given as the default that
    the schema names, even where that would not fit. References stay inside the schema: nothing is fetched.
    Raises ``BadInput`` for what is no such schema.
    """

    def __init__(self, parameters: Mapping[str, Any], what: str) -> None:
        from jsonschema.exceptions import SchemaError  # here and below: it takes long to load, and few tools are declared
        from jsonschema.validators import Draft202012Validator, validator_for

        schema = deepcopy(dict(parameters))
        if schema.setdefault("type", "object") != "object":
            raise BadInput(f"{what}: its parameters are a JSON schema of type object, not {schema['type']!r}")
        try:
            validator_for(schema, default=Draft202012Validator).check_schema(schema)
        except SchemaError as error:
            place = ".".join(str(part) for part in error.absolute_path) or "its root"
            raise BadInput(f"{what}: its parameters are no JSON schema: at {place}: {error.message[:200]}") from None
        foreign = next((one for one in _references(schema) if not one.startswith("#")), None)
        if foreign is not None:
            raise BadInput(f"{what}: its parameters refer to {foreign[:100]!r}; put what is meant there into $defs")
        schema.setdefault("properties", {})
        close(schema)
        self.parameters: dict[str, Any] = schema

    @cached_property
    def _validator(self) -> Any:
        from jsonschema.validators import Draft202012Validator, extend, validator_for
        from referencing import Registry

        kind = validator_for(self.parameters, default=Draft202012Validator)
        strict = kind.TYPE_CHECKER.redefine("integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool))
        return extend(kind, type_checker=strict)(self.parameters, registry=Registry())

    @cached_property
    def _defaults(self) -> dict[str, bytes]:
        required = self.parameters.get("required", ())
        named = {name: one for name, one in self.parameters["properties"].items() if isinstance(one, dict) and name not in required}
        return {name: to_json(one["default"]) for name, one in named.items() if "default" in one}

    def problems(self, arguments: dict[str, Any]) -> list[str]:
        """What is wrong with ``arguments``, one clause each, at most eight; none when they fit."""
        from referencing.exceptions import Unresolvable

        given = {name: value for name, value in arguments.items() if name not in self._defaults or to_json(value) != self._defaults[name]}
        try:
            return list(dict.fromkeys(one for error in self._validator.iter_errors(given) for one in _said(error)))[:8]
        except Unresolvable as error:
            return [f"their schema refers to {error.ref[:100]!r}, which it does not define; do without this tool"]


def close(part: Any) -> None:
    """Close every object of a schema to fields that it does not declare, where it does not say itself that it takes others."""
    if not isinstance(part, dict):
        return
    if isinstance(part.get("properties"), dict) and not part.keys() & _OPEN:
        part["additionalProperties"] = False
    for name in ("properties", "$defs", "definitions", "patternProperties"):
        for one in part.get(name, {}).values() if isinstance(part.get(name), dict) else ():
            close(one)
    for name in ("anyOf", "oneOf", "prefixItems"):
        for one in part.get(name, ()):
            close(one)
    for name in ("items", "additionalProperties"):
        close(part.get(name))


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for one in part:
            yield from _references(one)
    elif isinstance(part, dict):
        for name, one in part.items():
            if name in ("$ref", "$dynamicRef") and isinstance(one, str):
                yield one
            elif name not in ("enum", "const", "default", "examples"):
                yield from _references(one)


def _said(error: Any) -> Iterator[str]:
    """One error in words, without the value: it may be long, and it is not ours."""
    where = ".".join(str(part) for part in error.absolute_path)
    at = f"{where}: " if where else ""
    rule, wanted, value = error.validator, error.validator_value, error.instance
    if rule == "required":
        yield from (f"{where}.{name} is missing" if where else f"{name} is missing" for name in wanted if name not in value)
    elif rule == "additionalProperties" and wanted is False:
        known = list(error.schema.get("properties", {}))
        for name in value:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                yield f"{at}there is no argument {name[:80]!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    elif rule == "type":
        kinds = " or ".join(wanted) if isinstance(wanted, list) else wanted
        yield f"{at}it should be {kinds}, not {_KINDS.get(type(value), 'something else')}"
    elif rule in ("enum", "const"):
        yield f"{at}it should be one of {to_json(wanted if rule == 'enum' else [wanted]).decode()[:400]}"
    elif rule in ("anyOf", "oneOf"):
        yield f"{at}it fits {'none' if not any(not one for one in error.context) else 'more than one'} of the kinds that it may be"
    else:
        yield f"{at}it does not keep to {rule} {to_json(wanted, serialize_unknown=True).decode()[:100]}"
