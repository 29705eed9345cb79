"""A failed piece of work as a judge sees it: who said and did what, in order; and what a judge answers."""

from enum import StrEnum
from typing import Protocol

from pydantic import Field

from protocols.chat import ToolCall
from protocols.failures import Verdict
from protocols.record import Record


class Actor(StrEnum):
    """What kind of thing takes a step. Tools are never to blame; a person may be, where the wish was unclear."""

    AGENT = "agent"
    PERSON = "person"
    TOOL = "tool"


class Step(Record):
    """One message or result. ``who`` is the agent's name (or the person's, or the tool's); ``failed`` says that it reports an error.

    Of a step from a journal ``role`` is the role of its task, ``ordinal`` its number in its task and ``entry`` the number of its entry;
    ``verdict`` is what a failed one is recorded with.
    """

    who: str
    actor: Actor
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    failed: bool = False
    role: str = ""
    ordinal: int | None = None
    entry: int = 0
    verdict: Verdict | None = None


class Trajectory(Record):
    """Everything that led to a failure, from the goal on; ``failure`` is how it ended, where that is known.

    Of a case from a journal ``task`` is the one that failed, and ``verdict`` what it is recorded with.
    """

    steps: tuple[Step, ...]
    goal: str = ""
    failure: str = ""
    task: str = ""
    verdict: Verdict | None = None


class Cause(StrEnum):
    """What went wrong at the decisive step, by the categories of the AgentRx study."""

    ADHERENCE = "instruction or plan not followed"
    INVENTION = "invention of new information"
    INVOCATION = "invalid invocation"
    MISREADING = "misinterpretation of tool output"
    MISALIGNMENT = "intent and plan do not match"
    UNDERSPECIFIED = "underspecified user intent"
    UNSUPPORTED = "intent not supported"
    GUARDRAIL = "guardrails triggered"
    SYSTEM = "system failure"
    INCONCLUSIVE = "inconclusive"


class Attribution(Record):
    """Who is most likely responsible: the agent, its decisive step (an index into the steps), why, and how sure the judge is (0 to 1)."""

    who: str
    step: int = Field(ge=0)
    cause: Cause
    confidence: float = Field(ge=0, le=1)
    because: str


class Judge(Protocol):
    """Says who and which step made a piece of work fail. It is an opinion, never a fact: see its ``confidence``."""

    async def judge(self, trajectory: Trajectory) -> Attribution:
        """The judgement. Raises ``BadInput`` for a trajectory in which nobody but tools took a step."""
        ...
