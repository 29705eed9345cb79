"""Delegation as a tool: how a model gives subtasks to other roles."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agents.at_work import Context
from agents.tool import Tool, tool
from protocols.plan import Task

DELEGATE = "delegate"
MOST_SUBTASKS = 32
"""Subtasks that a model may ask for in one call."""
_WAIT = 7 * 24 * 3600.0
"""Subtasks are bounded by their own limits and the run's; the tool's timeout (seconds) is only a last resort."""


def delegate_tool(roles: Sequence[str]) -> Tool:
    """A tool that runs subtasks of these roles and returns how each ended."""
    literal: Any = Literal  # made at run time, which static types have no words for
    kind: Any = literal[tuple(roles)]

    class Subtask(BaseModel):
        """One task for another agent."""

        model_config = ConfigDict(extra="forbid")
        role: kind
        input: Annotated[JsonValue, Field(description="what it works on, complete: it knows nothing of this conversation")]

    Subtasks: Any = Annotated[list[Subtask], Field(min_length=1, max_length=MOST_SUBTASKS)]

    async def delegate(tasks: Any, context: Context) -> Any:
        asked = [Task(id=f"{context.task}/{context.step}.{place}", role=str(one.role), input=one.input) for place, one in enumerate(tasks)]
        ended = await context.delegate(asked)
        return [{"output": one.output} if one.failure is None else {"failed": one.failure.message} for one in ended]

    delegate.__annotations__["tasks"] = Subtasks
    description = "Give subtasks to other agents and wait for their outcomes, in order. They work in parallel."
    return tool(name=DELEGATE, description=description, timeout=_WAIT)(delegate)
