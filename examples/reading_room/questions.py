"""Questions: what a goal may be, and how code splits a question where no model can plan."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocols.failures import BadInput
from reading_room.corpus import installed

DEFAULT = "How do I make click ask for a password, and what does merge_contextvars do in structlog?"
MOST_QUESTIONS = 4

_ASKING = r"(?:how|what|which|when|where|why|who|whose|is|are|was|were|does|do|did|can|could|should|must|may|will)\b"
_JOINT = re.compile(rf"\?\s+|;\s+|,?\s+and\s+(?={_ASKING})|,\s+(?={_ASKING})", re.I)


class Goal(BaseModel):
    """A question, the folder to look in, and what the research may use: rounds, and model calls at the most."""

    model_config = ConfigDict(extra="forbid")
    question: Annotated[str, Field(min_length=3, max_length=2000)] = DEFAULT
    folder: str = ""
    rounds: Annotated[int, Field(ge=1, le=10)] = 3
    calls: Annotated[int, Field(ge=1, le=10_000)] = 100


def goal_of(given: Any) -> Goal:
    """The goal as it may be given: nothing, a question, or an object; raises ``BadInput``."""
    try:
        made = Goal.model_validate({} if given is None else {"question": given.strip()} if isinstance(given, str) else given)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else "it is neither a question nor an object"
        raise BadInput(f'the goal does not fit ({why}); it looks like {{"question": "...", "folder": "docs"}}') from None
    return made.model_copy(update={"folder": str(Path(made.folder or installed()).expanduser().resolve())})


def split(question: str) -> list[str]:
    """The questions that are joined in one, by rules."""
    parts = [part.strip(" ?.,;") for part in _JOINT.split(" ".join(question.split()))]
    whole = [part for part in dict.fromkeys(parts) if len(part.split()) >= 2]
    return [f"{part[0].upper()}{part[1:]}?" for part in whole[:MOST_QUESTIONS]] or [question]
