"""A check: what was looked at, how it stands, and what to do next."""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

from protocols.record import Record


class Standing(StrEnum):
    """``note`` may matter to some; with a ``problem`` runs fail, or will."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Check(Record):
    """One thing that was looked at. ``next`` is what to do about it, empty when there is nothing to do."""

    name: str
    status: Standing
    what: str
    next: str = ""


def ok(name: str, what: str) -> Check:
    """All is well."""
    return Check(name=name, status=Standing.OK, what=what)


def note(name: str, what: str, next: str = "") -> Check:
    """Good to know."""
    return Check(name=name, status=Standing.NOTE, what=what, next=next)


def problem(name: str, what: str, next: str) -> Check:
    """Must be put right."""
    return Check(name=name, status=Standing.PROBLEM, what=what, next=next)


def carried_out(checks: Iterable[Callable[[], Check | Iterable[Check]]]) -> Iterator[Check]:
    """What the checks find. One that fails itself is a note: a broken environment is what they are for."""
    for check in checks:
        try:
            found = check()
            yield from [found] if isinstance(found, Check) else found
        except Exception as error:
            name = check.__name__.replace("_", " ")
            yield note(name, f"this could not be looked at ({type(error).__name__}: {error})", "callboard doctor --debug")
