"""The models of one attempt: the one that is asked, and those that take over from it."""

from collections.abc import Sequence

from agents.models.port import Model
from protocols.chat import Need


class TakenOver(Exception):
    """Another of the role's models has taken over: what was asked is to be put to this one, in its own form."""


class Succession:
    """The model that is asked now, and its heirs in their order."""

    __slots__ = ("heirs", "model")

    def __init__(self, model: Model | None, heirs: Sequence[Model]) -> None:
        self.model, self.heirs = model, tuple(heirs)

    def all_can(self, need: Need) -> bool:
        """Whether whoever may be asked from now on can do this."""
        return all(need in one.profile.can for one in (self.model, *self.heirs) if one is not None)

    def heir(self, model: Model) -> Model | None:
        """Who takes over from ``model``; perhaps somebody has meanwhile."""
        return (self.heirs[0] if self.heirs else None) if self.model is model else self.model

    def cheaper(self, model: Model, tokens_in: int, tokens_out: int) -> Model | None:
        """The first who would take less than ``model`` for so many tokens."""
        if model.price is None or self.model is not model:
            return None if self.model is model else self.model
        most = model.price.cost(tokens_in, tokens_out)
        return next((heir for heir in self.heirs if heir.price is not None and heir.price.cost(tokens_in, tokens_out) < most), None)

    def hand_over(self, model: Model, to: str) -> None:
        """Go on with the heir of this id; raises ``TakenOver``. Where there is none any more, ``model`` goes on."""
        if self.model is not model:
            raise TakenOver
        for place, heir in enumerate(self.heirs):
            if heir.id == to:
                self.model, self.heirs = heir, self.heirs[place + 1 :]
                raise TakenOver
