"""Fallbacks: who takes a task over that a role failed at, and what that one may know of the failure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_origin

from protocols.failures import BadInput, Failure, Verdict

T = TypeVar("T")

EVERY = "*"
"""Stands for every verdict that has no fallback of its own."""

FINAL = frozenset({Verdict.CANCELLED, Verdict.DEPENDENCY, Verdict.EFFECT_IN_DOUBT})
"""Verdicts without a fallback: somebody wished for it, nothing was begun, or a person has to look first."""


@dataclass(frozen=True)
class Handover(Generic[T]):
    """The input of a fallback that wants to know why it was asked: what the other role's input was, and its failure.

    A model is shown it as material, because a failure may quote what a model or a tool has said.
    """

    input: T
    failure: Failure


@dataclass(frozen=True, slots=True)
class Fixed:
    """A fallback that is an output: a value of the role's output type."""

    value: Any


@dataclass(frozen=True, slots=True)
class Person:
    """A fallback that is a person, who answers ``question`` with an output (``callboard review RUN TASK --done --result JSON``)."""

    question: str = "What is the output?"


@dataclass(frozen=True, slots=True)
class Conclude:
    """A fallback that is the role itself: it reads back what it has done, and is told, once, to answer from that with no more tools."""


CONCLUDED = frozenset({Verdict.BUDGET, Verdict.TURNS})
"""Verdicts that a role can conclude after: it was stopped before its next call, and nothing was wrong with those before."""


def is_handover(kind: Any) -> bool:
    """Whether an input type is a ``Handover``."""
    return kind is Handover or get_origin(kind) is Handover


def by_verdicts(role: str, declared: Any) -> list[tuple[tuple[Verdict, ...], Any]]:
    """Pairs of verdicts (none: all the others) and who takes over, from ``Role(fallback=…)``. Raises ``BadInput``."""
    if not isinstance(declared, Mapping):
        declared = {EVERY: declared}
    found: list[tuple[tuple[Verdict, ...], Any]] = []
    taken: set[str] = set()
    for key, target in declared.items():
        names = tuple(key) if isinstance(key, (tuple, frozenset)) else (key,)
        for name in names:
            if name in taken:
                raise BadInput(f"role {role!r} has two fallbacks for {str(name)!r}; leave one")
            if name != EVERY and name not in _ALLOWED:
                there = ", ".join(sorted(_ALLOWED))
                raise BadInput(f"role {role!r} has a fallback for {str(name)!r}; a fallback is for '{EVERY}' or one of: {there}")
            taken.add(name)
        verdicts = () if EVERY in names else tuple(sorted(Verdict(name) for name in names))
        found.append((verdicts, target))
    return found


_ALLOWED = {verdict.value for verdict in Verdict if verdict not in FINAL}
