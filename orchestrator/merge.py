"""How results become one: what a team may give as ``merge``. The work is done by tasks of the role ``merge``, in a tree."""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from agents.role import Role
from protocols.failures import BadInput, Failed, Failure, Verdict
from protocols.team import MERGE, MergeSpec

FAN_IN = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Part(Generic[T]):
    """An item of a merge that wants to know what is missing: one whose function or role takes ``list[Part[...]]``.

    A part that ``failed`` has no value, and ``failure`` says why; of one by a ``fallback`` it says why the role before it failed.
    """

    task: str
    role: str
    standing: Literal["done", "fallback", "failed"] = "done"
    value: T | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge: what the coordinator must know, and the role that does the work, if there is work."""

    spec: MergeSpec
    role: Role | None = None


def collect() -> Merge:
    """All results as a list, in plan order. They are read page by page and never meet in one message."""
    return Merge(MergeSpec(kind="collect"))


def only() -> Merge:
    """The last result of the plan as it is: for plans that end in one task."""
    return Merge(MergeSpec(kind="only"))


def reduce(function: Callable[[list[Any]], Any], fan_in: int = FAN_IN) -> Merge:
    """Results folded by ``function(list) -> value``, at most ``fan_in`` at a time, and the values that gives again, until one is left.

    The list has the type that the function's parameter declares; one of ``Part`` holds what failed, too. With more than ``fan_in`` results
    the function sees its own values, so what it returns must be fit to be one of its items.
    """
    _check_fan_in(fan_in)
    if not callable(function):
        raise BadInput("reduce takes a function of one list, such as reduce(sum)")
    read = _list_reader(function)

    def node(ask: dict[str, Any]) -> Any:
        return to_jsonable_python(function(read(_values(ask))))

    return _tree(node, fan_in, labelled=_takes_parts(_annotation(function)))


def vote(quorum: float | int | None = None, weights: Mapping[str, float] | None = None, fan_in: int = 200) -> Merge:
    """The value that most results agree on; equal values are equal JSON.

    Without ``quorum`` the winner must lead alone (ties go to nobody). A quorum of 1 or more is a number of votes, below 1 a share of
    all votes. ``weights`` gives the votes of a role, 1 for those not named. Without a winner the run fails with verdict ``undecided``.
    """
    _check_fan_in(fan_in)
    if quorum is not None and not 0 < quorum < math.inf:
        raise BadInput(f"quorum is {quorum}; it is a share of all votes, like 0.5, or a number of votes, 1 or more")
    by_role = dict(weights or {})

    def node(ask: dict[str, Any]) -> Any:
        tally: dict[str, list[Any]] = {}
        for item in ask["items"]:
            if ask["level"] == 1:
                rows = [[by_role.get(item["role"], 1), item["value"]]]
            else:
                rows = item
            for weight, value in rows:
                key = json.dumps(value, sort_keys=True)
                tally[key] = [tally.get(key, [0])[0] + weight, value]
        rows = list(tally.values())
        return _winner(rows, quorum) if ask["final"] else rows

    return _tree(node, fan_in)


def best_of(scorer: Callable[[Any], float], fan_in: int = FAN_IN) -> Merge:
    """The result with the highest score; the earliest in plan order among equals."""
    _check_fan_in(fan_in)
    read = _reader(scorer)

    def node(ask: dict[str, Any]) -> Any:
        if ask["level"] == 1:
            rows = [[float(scorer(read(item["value"]))), item["value"]] for item in ask["items"]]
        else:
            rows = ask["items"]
        best = max(rows, key=lambda row: row[0])
        return best[1] if ask["final"] else best

    return _tree(node, fan_in)


def synthesise(role: Role, fan_in: int = 8) -> Merge:
    """Results merged by a role of the team, whose input is a list: ``fan_in`` at a time, and its outputs again, until one is left.

    A role whose input is ``list[Part[...]]`` also gets what failed, and is told what a fallback gave.
    """
    _check_fan_in(fan_in)
    return Merge(MergeSpec(kind="tree", role=role.name, fan_in=fan_in, labelled=_takes_parts(role.input)), role)


def _tree(node: Callable[[dict[str, Any]], Any], fan_in: int, *, labelled: bool = False) -> Merge:
    role = Role(name=MERGE, input=dict[str, Any], output=Any, run=node)
    return Merge(MergeSpec(kind="tree", fan_in=fan_in, labelled=labelled), role)


def _takes_parts(kind: Any) -> bool:
    items = get_args(kind)
    return bool(items) and Part in (items[0], get_origin(items[0]))


def _values(ask: dict[str, Any]) -> list[Any]:
    return [item["value"] for item in ask["items"]] if ask["level"] == 1 else list(ask["items"])


def _winner(rows: list[list[Any]], quorum: float | int | None) -> Any:
    ranked = sorted(rows, key=lambda row: -row[0])
    total = sum(row[0] for row in rows)
    wanted = 0 if quorum is None else quorum if quorum >= 1 else quorum * total
    alone = len(ranked) == 1 or ranked[0][0] > ranked[1][0]
    if alone and ranked[0][0] >= wanted:
        return ranked[0][1]
    counts = ", ".join(f"{json.dumps(value)[:60]}: {votes:g}" for votes, value in ranked[:5])
    message = f"the vote is undecided ({counts}); ask an odd number of agents, weigh roles, or lower the quorum"
    raise Failed(Failure(verdict=Verdict.UNDECIDED, message=message))


def _annotation(function: Callable[..., Any]) -> Any:
    try:
        hints = get_type_hints(function)
        first = next(iter(inspect.signature(function).parameters))
    except (TypeError, ValueError, NameError, StopIteration):
        return Any
    return hints.get(first, Any)


def _reader(function: Callable[..., Any]) -> Callable[[Any], Any]:
    kind = _annotation(function)
    return (lambda value: value) if kind is Any else TypeAdapter(kind).validate_python


def _list_reader(function: Callable[..., Any]) -> Callable[[list[Any]], Any]:
    kind = _annotation(function)
    if kind is Any or not str(kind).startswith(("list", "typing.List", "collections.abc.Sequence", "typing.Sequence", "tuple")):
        return lambda values: values
    return TypeAdapter(kind).validate_python


def _check_fan_in(fan_in: int) -> None:
    if fan_in < 2:
        raise BadInput(f"fan_in is {fan_in}; a merge takes at least 2 results at a time")
