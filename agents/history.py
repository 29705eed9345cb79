"""The history of a task: what earlier attempts recorded, by step; read once, and then let go."""

from collections.abc import Iterable

from protocols.messages import Message, ModelCalled, ReviewAsked, ReviewDecided, ToolCalled, ToolIntended


class History:
    """Steps that were recorded, with the messages of each in their order."""

    __slots__ = ("_steps",)

    def __init__(self, told: Iterable[Message] = ()) -> None:
        self._steps: dict[int, tuple[Message, ...]] = {}
        for one in told:
            if isinstance(one, (ModelCalled, ToolIntended, ToolCalled, ReviewAsked, ReviewDecided)):
                self._steps[one.step] = (*self._steps.get(one.step, ()), one)

    def recall(self, step: int) -> tuple[Message, ...]:
        """What was recorded at this step, or nothing. A second time, only what tells of a write is there."""
        there = self._steps.pop(step, ())
        if _write(there):
            self._steps[step] = there
        return there

    def writes(self, step: int = 0) -> list[tuple[int, tuple[Message, ...]]]:
        """What was recorded at each step from ``step`` on at which a write was begun."""
        return [(one, there) for one, there in sorted(self._steps.items()) if one >= step and _write(there)]


def _write(there: Iterable[Message]) -> bool:
    return any(isinstance(one, ToolIntended) for one in there)
