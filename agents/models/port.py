"""The model port: the one interface that every model, embedded, remote, scripted or recorded, stands behind."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from protocols.chat import ModelReply, ModelRequest, Price, Profile


@runtime_checkable
class Model(Protocol):
    """A language model.

    ``complete`` raises ``ModelError`` (see ``protocols.failures``), with its ``retryable`` fact, for anything the provider did wrong;
    it never retries by itself: retries are reserved, journalled and bounded by the agent loop. One that may lack what it needs to be
    called, such as a key, can say so ahead by an attribute ``missing``: one sentence, or ``None``. One whose provider has limits that all
    who call it share has an attribute ``throttling``, a ``protocols.chat.Throttling``: then the calls of all hosts together are paced.
    """

    @property
    def id(self) -> str:
        """``provider:name``."""
        ...

    @property
    def profile(self) -> Profile:
        """What this model can do."""
        ...

    @property
    def price(self) -> Price | None:
        """The price, or ``None`` when it is not known (*unpriced*)."""
        ...

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        """The most input and output tokens that ``complete(request)`` can be charged for. Pure and quick."""
        ...

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Answer ``request``; ``on_text`` hears pieces of text as they come."""
        ...

    async def aclose(self) -> None:
        """Release connections and processes."""
        ...
