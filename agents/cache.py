"""The cache of one attempt: replies to requests that were made before word for word, and results of pure tools."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from agents import pure
from agents.desk import Desk
from agents.tool import Tool, ToolResult
from protocols.chat import Finish, ModelReply, ToolCall

if TYPE_CHECKING:
    from agents.role import Role


class Cache:
    """Reads back what equal calls gave, and keeps what may be kept. After a tool has ``written``, no reply is read back or kept: what
    the model says then is about a change that was made."""

    __slots__ = ("_desk", "_rejected", "_role", "written")

    def __init__(self, role: "Role", desk: Desk) -> None:
        self._role, self._desk = role, desk
        self._rejected: dict[str, None] = {}
        self.written = False

    async def reply(self, request: str) -> ModelReply | None:
        """The reply to an equal request, by its digest, also one that is being made; ``None`` is to be followed by ``let_go``."""
        await self.forget()
        said = await self._desk.kept(f"reply {request}", shared=self._shared, claim=True) if self._open else None
        if said is None:
            return None
        try:
            return ModelReply.model_validate_json(said)
        except ValidationError:
            return None  # another version wrote it

    async def keep_reply(self, request: str, reply: ModelReply) -> None:
        """Keep a whole reply. One that was refused or cut off is none."""
        if self._open and reply.finish in (Finish.STOP, Finish.TOOL_CALLS):
            said = _json(lambda: reply.model_dump_json(exclude_defaults=True))
            if said is not None:
                await self._desk.keep(f"reply {request}", said, self._role.cache_seconds, shared=self._shared)

    def reject(self, requests: Iterable[str]) -> None:
        """The replies to these requests were of no use: the next ``forget`` leaves them to be asked for anew."""
        if self._role.cache is not None:
            self._rejected.update(dict.fromkeys(requests))

    async def forget(self) -> None:
        """Forget the replies that were rejected."""
        while self._rejected:
            request, _ = self._rejected.popitem()
            await self._desk.keep(f"reply {request}", "", 0.0, shared=self._shared)

    def let_go(self, request: str) -> None:
        """What there is to keep of this request has been kept: who waits for more asks itself."""
        if self._role.cache is not None:
            self._desk.let_go(f"reply {request}")

    async def result(self, tool: Tool, call: ToolCall) -> ToolResult | None:
        """What an equal call of a pure tool gave; ``None`` when none is kept."""
        said = await self._desk.kept(_named(tool, call), shared=True) if tool.pure else None
        return None if said is None else ToolResult(str(from_json(said)))

    async def keep_result(self, tool: Tool, call: ToolCall, result: ToolResult) -> None:
        """Keep what a pure tool gave, unless it failed."""
        if tool.pure and result.failure is None:
            said = _json(lambda: to_json(result.content).decode())
            if said is not None:
                await self._desk.keep(_named(tool, call), said, tool.cache_seconds, shared=True)

    @property
    def _open(self) -> bool:
        return self._role.cache is not None and not self.written

    @property
    def _shared(self) -> bool:
        return self._role.cache == "shared"


def _named(tool: Tool, call: ToolCall) -> str:
    return f"result {pure.named(tool.function, call.arguments, tool.max_chars)}"


def _json(dump: Callable[[], str]) -> str | None:
    try:
        return dump()
    except (PydanticSerializationError, UnicodeError):
        return None  # half a surrogate pair can't be stored
