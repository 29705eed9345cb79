"""Pure functions: those whose results depend on their arguments alone, and how an equal call is known again."""

import hashlib
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from pydantic_core import to_json

from protocols.failures import BadInput


def check(function: Callable[..., Any], name: str, context: str | None) -> None:
    """Raises ``BadInput`` for a function whose result may depend on more than its arguments."""
    plain = isinstance(function, FunctionType) and function.__closure__ is None
    if not plain or context is not None:
        raise BadInput(
            f"tool {name!r} can't be pure: its result may depend on more than its arguments; "
            "make it a plain function without self, Context or variables of a function around it"
        )


def named(function: Callable[..., Any], *arguments: Any) -> str:
    """The same (hexadecimal) for the same code with equal arguments, in any process; what the code calls is not looked into."""
    assert isinstance(function, FunctionType)
    code = hashlib.sha256()
    for part in _parts(function.__code__):
        code.update(part)
    given = to_json([function.__module__, function.__qualname__, code.hexdigest(), _sorted(list(arguments))])
    return hashlib.sha256(given).hexdigest()


def _parts(code: CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _parts(one)
        else:
            yield repr(sorted(map(repr, one)) if isinstance(one, frozenset) else one).encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value
