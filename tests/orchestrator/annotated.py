"""Failures that people annotated, as trajectories: Who&When and AgentRx, from the folder that holds them."""

import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.attribution.trajectory import Actor, Cause, Step, Trajectory
from protocols.chat import ToolCall

WHERE = Path(os.environ.get("CALLBOARD_ANNOTATED") or Path(__file__).parents[3] / "shared" / "data")
"""The folder of ``who_and_when.jsonl.gz`` and ``agentrx.jsonl.gz``: beside the checkout, unless ``CALLBOARD_ANNOTATED`` names it."""

_ERROR = re.compile(r"exitcode: [1-9]|execution failed|^error|traceback \(most recent", re.IGNORECASE | re.MULTILINE)
_CAUSES = {
    "instruction adherence failure": Cause.ADHERENCE,
    "instruction/plan adherence failure": Cause.ADHERENCE,
    "invention of new information": Cause.INVENTION,
    "invalid invocation": Cause.INVOCATION,
    "misinterpretation of tool output": Cause.MISREADING,
    "intent plan misalignment": Cause.MISALIGNMENT,
    "intent-plan misalignment": Cause.MISALIGNMENT,
    "underspecified user intent": Cause.UNDERSPECIFIED,
    "intent not supported": Cause.UNSUPPORTED,
    "guardrails triggered": Cause.GUARDRAIL,
    "system failure": Cause.SYSTEM,
    "inconclusive": Cause.INCONCLUSIVE,
}


class Annotated(NamedTuple):
    """A failure with what people found: the responsible agent, the decisive step, and the cause where they named one.

    The same ``key`` in two sources is the same task.
    """

    source: str
    key: str
    trajectory: Trajectory
    who: str
    step: int
    cause: Cause | None = None


def annotated(folder: Path = WHERE) -> list[Annotated]:
    """Every annotated failure in ``folder``; none where the files are absent."""
    return [*_who_and_when(folder / "who_and_when.jsonl.gz"), *_agentrx(folder / "agentrx.jsonl.gz")]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _who_and_when(path: Path) -> Iterator[Annotated]:
    for row in _rows(path):
        written = any(said["role"].startswith("Orchestrator") for said in row["history"])
        steps = tuple(_spoken(said.get("name") or said["role"], said["content"]) for said in row["history"])
        source = "Who&When, hand-crafted" if written else "Who&When, generated"
        yield Annotated(
            source, row["question_ID"], Trajectory(steps=steps, goal=row["question"]), row["mistake_agent"], int(row["mistake_step"])
        )


def _agentrx(path: Path) -> Iterator[Annotated]:
    for row in _rows(path):
        if row["annotation"] is None:
            continue
        root = row["annotation"]["root_cause"]["failure_id"]
        (found,) = [one for one in row["annotation"]["failures"] if one["failure_id"] == root]
        key = str(row["trajectory_id"])
        cause = _CAUSES[found["failure_category"].strip().lower()]
        if row["domain"] == "magentic_one":
            steps = tuple(_spoken(said["role"], said["content"]) for said in row["trajectory"])
            yield Annotated("AgentRx, Magentic-One", key, Trajectory(steps=steps), found["failed_agent"], found["step_number"] - 1, cause)
        else:
            steps = tuple(_chatted(said) for said in row["messages"])
            yield Annotated("AgentRx, tau retail", key, Trajectory(steps=steps), found["failed_agent"], found["step_number"] - 2, cause)


def _spoken(speaker: str, content: str) -> Step:
    who = speaker.split(" (")[0]
    if who.lower().replace("_", "") == "computerterminal":
        return Step(who=who, actor=Actor.TOOL, text=content, failed=bool(_ERROR.search(content)))
    given = re.search(r"\(-> (\w+)\)", speaker)  # the orchestrator gives work to another
    calls = (ToolCall(id="", name=given[1], arguments=content),) if given else ()
    return Step(who=who, actor=Actor.PERSON if who == "human" else Actor.AGENT, text=content, calls=calls)


def _chatted(said: dict[str, Any]) -> Step:
    content = said.get("content") or ""
    if said["role"] == "tool":
        return Step(who=said.get("name") or "tool", actor=Actor.TOOL, text=content, failed=bool(_ERROR.search(content)))
    calls = tuple(
        ToolCall(id=one.get("id") or "", name=one["function"]["name"], arguments=one["function"]["arguments"])
        for one in said.get("tool_calls") or ()
    )
    if said["role"] == "user":
        return Step(who="User", actor=Actor.PERSON, text=content)
    return Step(who="Assistant", actor=Actor.AGENT, text=content, calls=calls)
