"""Findings: what the results of an agent's tools are kept for, once they stand in its conversation."""

from collections.abc import Iterator, Sequence
from typing import Any

from agents.attempt import Ran
from agents.role import Role


class Findings:
    """What may still be asked of the results of one task: all their values where the role's ``done`` reads them, else the last that is
    an answer, or one that is none. ``some`` says whether there were results. Where nobody asks, no value is ``kept``.
    """

    __slots__ = ("_kept", "_role", "some", "values")

    def __init__(self, role: Role, *, kept: bool = True) -> None:
        self._role, self._kept = role, kept
        self.some = False
        self.values: list[Any] = []

    def add(self, results: Sequence[Ran]) -> None:
        """Take in the results of a turn."""
        self.some = self.some or bool(results)
        for value in values_of(self._role, results) if self._kept else ():
            if self._role.done is not None:
                self.values.append(value)
            elif not self.values or self._role.output_shape.fits(value):
                self.values = [value]

    def answers(self) -> Iterator[Any]:
        """The values that are answers of the role's output type, last ones first."""
        return filter(self._role.output_shape.fits, reversed(self.values))


def values_of(role: Role, results: Sequence[Ran]) -> list[Any]:
    """The JSON values of the results that did not fail and were not cut."""
    found = []
    for one in results:
        if one.failure is None:
            try:
                found.append(role.toolbox[one.call.name].read_result(one.content))
            except ValueError:
                continue
    return found
