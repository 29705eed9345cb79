"""Messages of earlier schemas, read as today's: what was written once is never written again."""

from collections.abc import Callable, Mapping
from typing import Any

from protocols.messages import SCHEMA

Upcast = Callable[[str, dict[str, Any]], dict[str, Any]]
"""The fields of a message, by its tag, one schema later. Pure; the fields that it gets are its own to change."""


def _same(tag: str, fields: dict[str, Any]) -> dict[str, Any]:
    """For a schema that only added messages, and fields that have defaults."""
    return fields


def _counted(tag: str, fields: dict[str, Any]) -> dict[str, Any]:
    """What was decided of a task after a review holds: its attempt counted as a try."""
    return fields | {"counted": True} if tag == "ReviewAsked" else fields


UPCASTS: Mapping[int, Upcast] = {1: _same, 2: _counted}
"""How each schema before today's becomes the next. Tags stay: stores list entries by them."""


def upcast(schema: int, tag: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``tag``, written in ``schema`` (one of ``UPCASTS``), as those of today's schema."""
    for version in range(schema, SCHEMA):
        fields = UPCASTS[version](tag, fields)
    return fields
