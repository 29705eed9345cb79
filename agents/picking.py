"""The schema-tool mode's first question: which tool next, for models that have no native tool calls."""

import json
from collections.abc import Iterable
from typing import Any

from agents.tool import Tool
from protocols.chat import Choice, Option

PICK = "pick a tool"
"""The title of the schema of a pick, by which a model that plays a script knows one."""
ANSWER = "answer"
"""The label for going on to the answer."""
_ANSWER_OPTION = Option(label=ANSWER, description="all that is needed is known: give the final answer")


def pick_choice(text: str, tools: Iterable[Tool], *, may_answer: bool) -> Choice:
    """The pick as a scored choice over the tools' descriptions."""
    options = [Option(label=one.name, description=one.description or one.name) for one in tools]
    return Choice(texts=(text,), options=(*options, _ANSWER_OPTION) if may_answer else tuple(options))


def pick_schema(tools: Iterable[Tool], *, may_answer: bool) -> dict[str, Any]:
    """The pick as a JSON schema."""
    names = [one.name for one in tools] + ([ANSWER] if may_answer else [])
    return {
        "title": PICK,
        "type": "object",
        "properties": {"tool": {"type": "string", "enum": names}},
        "required": ["tool"],
        "additionalProperties": False,
    }


def pick_note(tools: Iterable[Tool], *, may_answer: bool) -> str:
    """The question in words."""
    lines = [f"- {one.name}: {one.description}" for one in tools]
    if may_answer:
        lines.append(f"- {ANSWER}: {_ANSWER_OPTION.description}")
    return "Pick what to do next. Reply with JSON like {" + '"tool": "..."' + "}. There are:\n" + "\n".join(lines)


def picked(text: str) -> str | None:
    """The name that was picked in a JSON reply, or ``None`` when it cannot be read."""
    try:
        name = json.loads(text)["tool"]
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
