"""What the tests of agents share: one role's work to its end, and what it told on the way."""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from agents import LocalDesk, Role
from agents.loop import work
from agents.models.port import Model
from protocols.budget import Limits
from protocols.failures import Failed, Failure, Verdict
from protocols.messages import Message, ModelCalled, ToolCalled, ToolIntended


class Worked(NamedTuple):
    output: Any
    failure: Failure | None
    desk: LocalDesk

    @property
    def verdict(self) -> Verdict | None:
        return self.failure.verdict if self.failure else None

    @property
    def messages(self) -> list[Message]:
        return self.desk.messages

    @property
    def model_calls(self) -> list[ModelCalled]:
        return [one for one in self.messages if isinstance(one, ModelCalled)]

    @property
    def tool_calls(self) -> list[ToolCalled]:
        return [one for one in self.messages if isinstance(one, ToolCalled)]

    @property
    def intents(self) -> list[ToolIntended]:
        return [one for one in self.messages if isinstance(one, ToolIntended)]


async def working(
    role: Role, value: Any, model: Model | None = None, *, history: Iterable[Message] = (), limits: Limits | None = None, **settings: Any
) -> Worked:
    desk = LocalDesk(run="run", task="t", history=history, limits=limits or Limits(), **settings)
    try:
        return Worked(await work(role, value, desk, model), None, desk)
    except Failed as error:
        return Worked(None, error.failure, desk)


def worked(role: Role, value: Any, model: Model | None = None, **settings: Any) -> Worked:
    return asyncio.run(working(role, value, model, **settings))


class LocalTeam(LocalDesk):
    """A desk at which subclasses answer delegation."""

    @classmethod
    def worked(cls, role: Role, model: Model) -> Worked:
        desk = cls(run="run", task="t")
        return Worked(asyncio.run(work(role, "go", desk, model)), None, desk)
