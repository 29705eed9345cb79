"""The models of one host."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from agents.models.port import Model
from agents.role import Role

_sharers: Counter[int] = Counter()  # by the identity of a model object of the user's, how many ``Models`` of this process use it


class Models:
    """Each id is made once, when the first role asks for it; objects that roles carry are used as they are."""

    def __init__(self, connect: Callable[[str], Any] | None = None) -> None:
        """``connect`` says, for the id of an embedded model, how its server is reached; without it one runs in this process."""
        self._connect = connect
        self._made: dict[str, Model] = {}
        self._given: dict[int, Model] = {}

    def get(self, role: Role) -> Model | None:
        """The model of ``role``; raises ``BadInput`` for one that does not exist."""
        return None if role.model is None else self._find(role.model)

    def fallbacks(self, role: Role) -> list[Model]:
        """The models that take over from it; raises ``BadInput`` as ``get`` does."""
        return [self._find(model) for model in role.fallback_models]

    def _find(self, model: str | Model) -> Model:
        if not isinstance(model, str):
            if id(model) not in self._given:
                self._given[id(model)] = model
                _sharers[id(model)] += 1
            return model
        if model not in self._made:
            from agents.models.registry import resolve as find

            self._made[model] = find(model, connect=self._connect(model) if self._connect else None)
        return self._made[model]

    async def aclose(self) -> None:
        """Close them all, but for those that another host of this process still uses."""
        done, self._made = list(self._made.values()), {}
        given, self._given = self._given, {}
        for key, model in given.items():
            _sharers[key] -= 1
            if not _sharers[key]:
                del _sharers[key]
                done.append(model)
        for model in done:
            await model.aclose()
