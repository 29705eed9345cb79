"""The desk: all that an agent at work can ask of the framework. Hosts give a real one; ``LocalDesk`` needs nothing."""

from typing import Protocol

from protocols.budget import Usage
from protocols.messages import Message, SubtasksAsked, SubtasksEnded


class Desk(Protocol):
    """Where one attempt at one task reads what was done before, reserves, reports and delegates."""

    run: str
    task: str
    attempt: int

    def now(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def recall(self, step: int) -> tuple[Message, ...]:
        """What an earlier attempt recorded at this step ordinal (usually one message), or nothing."""
        ...

    async def afford(self, need: Usage) -> None:
        """Take ``need``, the worst case of the next call, out of the lease. Waits for room; raises ``Failed`` (budget) when none can come."""
        ...

    def settle(self, need: Usage, used: Usage) -> None:
        """Replace what ``afford`` took by what was really used."""
        ...

    def tell(self, message: Message) -> None:
        """Report a step. It is journalled in the order told; nothing waits for it."""
        ...

    async def commit(self, message: Message) -> None:
        """Report a step and wait until it is durable: for the intent of an effect."""
        ...

    async def delegate(self, asked: SubtasksAsked) -> SubtasksEnded:
        """Have subtasks run; returns when all have ended or they were refused."""
        ...

    def partial(self, text: str) -> None:
        """Pass on a piece of output as it is made. Never stored."""
        ...
