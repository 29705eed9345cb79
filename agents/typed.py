"""Typed values: how a role's input and output become JSON schemas, prompts, labels and values."""

import dataclasses
import json
import types
from collections.abc import Mapping
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_json

from agents.settings import problems_of
from protocols.failures import BadInput, Failed, Failure, Verdict


class Shape:
    """One type, read and written as JSON: strictly, and with one adapter that is made when first needed."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.is_text = kind is str

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """The pydantic adapter; raises ``BadInput`` for a type that has no schema."""
        if isinstance(self.kind, str):  # pydantic would look for a type of this name, some time
            raise BadInput(f"{self.kind!r} can't be an input or output: it is text, and no type; use JSON types or pydantic models")
        try:
            return TypeAdapter(self.kind)
        except PydanticUserError as error:
            raise BadInput(f"{self.kind!r} can't be an input or output: {error.message}; use JSON types or pydantic models") from None
        except (LookupError, TypeError, ValueError) as error:
            raise BadInput(
                f"{self.kind!r} can't be an input or output: it is no type ({error!r}); use JSON types or pydantic models"
            ) from None

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that a value must fit."""
        try:
            return self.adapter.json_schema()
        except PydanticUserError as error:
            raise BadInput(f"{self.kind!r} has no JSON schema: {error.message}; use JSON types or pydantic models") from None

    @cached_property
    def labels(self) -> dict[str, Any] | None:
        """Label → JSON value for a ``Literal`` or ``Enum``; ``None`` for any other type."""
        return _labels(self.kind)

    @cached_property
    def item_labels(self) -> dict[str, Any] | None:
        """The labels of the items of a ``list``; ``None`` for any other type."""
        arguments = get_args(_bare(self.kind))
        return _labels(arguments[0]) if get_origin(_bare(self.kind)) is list and arguments else None

    def read(self, value: Any) -> Any:
        """The typed value of the JSON ``value``; raises ``BadInput`` with place and reason."""
        if self.is_text and type(value) is str:
            return value
        try:
            return self.adapter.validate_json(to_json(value), strict=True)
        except ValidationError as error:
            raise BadInput(problems_of(error)) from None
        except PydanticSerializationError as error:
            raise BadInput(f"it is not JSON: {error}") from None

    def read_text(self, text: str) -> Any:
        """The typed value of JSON text, or of a bare label; raises ``BadInput``."""
        if self.is_text:
            return text
        if self.labels and text.strip() in self.labels:
            return self.read(self.labels[text.strip()])
        try:
            return self.adapter.validate_json(text, strict=True)
        except ValidationError as error:
            raise BadInput(problems_of(error)) from None

    def dump(self, value: Any) -> Any:
        """``value`` as JSON, if it is of the type; raises ``Failed`` (schema)."""
        if self.is_text and type(value) is str:
            return value
        try:
            return self.adapter.dump_python(self.adapter.validate_python(value, strict=True), mode="json", warnings="error")
        except ValidationError as error:
            why = problems_of(error)
        except PydanticSerializationError as error:
            why = str(error)
        message = f"the output is not {name_of(self.kind)}: {why}"
        raise Failed(Failure(verdict=Verdict.SCHEMA, message=message, evidence=(repr(value)[:500],)))

    def fits(self, value: Any) -> bool:
        """Whether the JSON ``value`` is one of the type."""
        try:
            self.read(value)
        except BadInput:
            return False
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "is_text": self.is_text}


def name_of(kind: Any) -> str:
    """A type as a person would write it."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def prompt_of(value: Any) -> str:
    """A typed input as text: a string as it is, one string field alone, fields as ``name: value`` lines, lists as ``- item`` lines."""
    fields = _fields(value)
    if fields is None:
        return "\n".join(f"- {_line(item)}" for item in value) if isinstance(value, (list, tuple, set, frozenset)) else _line(value)
    if len(fields) == 1 and isinstance(value, BaseModel):
        (only,) = fields.values()
        if isinstance(only, str):
            return only
    return "\n".join(f"{name}: {_line(item)}" for name, item in fields.items())


def _fields(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return value if isinstance(value, Mapping) else None


def _line(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Enum):
        return str(value.value)
    return json.dumps(json.loads(to_json(value, serialize_unknown=True)), ensure_ascii=False)


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _labels(kind: Any) -> dict[str, Any] | None:
    kind = _bare(kind)
    if get_origin(kind) is Literal:
        found = {str(value.value if isinstance(value, Enum) else value): value for value in get_args(kind)}
        return {label: value.value if isinstance(value, Enum) else value for label, value in found.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {str(one.value): one.value for one in kind}
    if get_origin(kind) in (Union, types.UnionType):
        parts = [_labels(part) for part in get_args(kind)]
        if all(part is not None for part in parts):
            return {label: value for part in parts if part for label, value in part.items()}
    return None
