"""A model plans: its plan is checked and sent back, mended when a task fails, and one of its agents delegates.

    callboard run examples/planner_team.py:team --goal "What is in this folder, and is there a guide to it?" --model openai:NAME
    callboard run examples/planner_team.py:team                                        # no key: the models' replies are scripted

The planner is a role, so its plan is data that passes typed checks before anything runs: roles that exist, inputs that fit them, no
circles. What is wrong goes back to it in words. When a task fails the planner is asked again, with the failure, and mends the plan.
The surveyor delegates: it lists the files and has a reader look into each. Measuring is plain Python, whoever plans.

Without ``--model`` nothing here is a model's: a script plays the planner and the surveyor, and the output says so. The script makes
the mistakes on purpose, that the checks, the replanning and the delegation can be seen; the files, numbers and failures are real.
"""

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from agents import Role, ScriptedModel, call, role, tool
from agents.models.port import Model
from agents.models.registry import resolve
from orchestrator import Team, reduce
from protocols.budget import Limits
from protocols.chat import ModelRequest, Need
from protocols.failures import BadInput
from protocols.plan import Plan
from protocols.trust import Origin

HERE = Path(__file__).parent
NOTICE = "SCRIPTED: no model was asked. A script played the planner and the surveyor; give --model to have a model plan."
MOST_FILES = 6
MOST_TASKS = 20
"""In one plan or delegation; fewer than a merge takes at a time, so that its parts are always sections."""


class Section(BaseModel):
    """What one task found out."""

    model_config = ConfigDict(extra="forbid")
    heading: str
    lines: list[str]


def inside(name: str) -> Path:
    """A path in the folder of the examples; raises ``BadInput`` for any other."""
    path = (HERE / name).resolve()
    if not path.is_relative_to(HERE):
        raise BadInput(f"{name!r} is outside of the folder; name a file in it")
    return path


@tool
def list_files(pattern: str) -> list[str]:
    """The names of the files that match a pattern such as *.py."""
    if "/" in pattern or ".." in pattern:
        raise BadInput("a pattern matches names only, like *.py")
    return sorted(path.name for path in HERE.glob(pattern) if path.is_file())


@role(name="reader")
def reader(file: str) -> str:
    """The first sentence of one file, and how long it is. Input: the file's name."""
    path = inside(file)
    if not path.is_file():
        raise BadInput(f"there is no file {file!r} in the folder")
    text = path.read_text()
    first = re.sub(r'^["\s#]+', "", text).split("\n", 1)[0]
    return f"{file}: {first.strip()} ({len(text.splitlines())} lines)"


@role(name="measurer")
def measurer(pattern: str) -> Section:
    """Counts the lines of the files of a pattern, and how many are documentation. Input: a pattern such as *.py."""
    texts = [(HERE / name).read_text() for name in list_files(pattern)]
    told = sum(block.count("\n") + 1 for text in texts for block in re.findall(r'"""(.*?)"""', text, re.S))
    total = sum(len(text.splitlines()) for text in texts)
    return Section(heading=f"Size of {pattern}", lines=[f"{len(texts)} files, {total} lines, {told} of them documentation"])


@role(name="guide-reader")
def guide_reader(file: str) -> Section:
    """Reads the headings of a Markdown guide; fails where there is none. Input: the file's name."""
    path = inside(file)
    if not path.is_file():
        raise BadInput(f"there is no guide {file!r} here; plan without it")
    return Section(heading=f"Headings of {file}", lines=re.findall(r"^#+ .*$", path.read_text(), re.M))


def planning(request: ModelRequest) -> dict[str, Any]:
    """The planner's script: a role that does not exist, then the same plan with the right name, and something else for what failed."""
    asked = "\n".join(message.content for message in request.messages if message.role == "user")
    measure = {"id": "measure", "role": "measurer", "input": "*.py"}
    if "These tasks failed" in asked:
        return {"tasks": [{"id": "measure-guides", "role": "measurer", "input": "*.md"}]}
    survey = {"id": "survey", "role": "surveyor", "input": "*.py"}
    guide = {"id": "guide", "role": "guide-reader", "input": "GUIDE.md"}
    if "did you mean" in asked:
        return {"tasks": [survey, measure, guide]}
    print(NOTICE, file=sys.stderr, flush=True)
    return {"tasks": [survey, {**measure, "role": "measurrer"}, guide]}


def surveying(request: ModelRequest) -> Any:
    """The surveyor's script: list, delegate what was listed, and put together what came back."""
    seen = [message.content for message in request.messages if message.role == "tool"]
    if not seen:
        return call("list_files", pattern=next(message.content for message in request.messages if message.origin is Origin.USER))
    if len(seen) == 1:
        return call("delegate", tasks=[{"role": "reader", "input": name} for name in json.loads(seen[0])[:MOST_FILES]])
    return Section(heading="What each file is for", lines=[one.get("output") or one["failed"] for one in json.loads(seen[1])])


chief = Role(
    name="chief",
    instructions="Plan how to reach the goal with the fewest tasks, each for one of the roles, with the input that its line asks for."
    " Where tasks failed, plan only what can stand in for them, under new ids.",
    input=str,
    output=Plan,
    model=ScriptedModel(planning, name="planner"),
    limits=Limits(model_calls=6, turns=6, seconds=300),
)
surveyor = Role(
    name="surveyor",
    instructions="Says what each file of a pattern is for. Input: a pattern such as *.py. List the files, delegate each to a reader, and"
    " report what the readers say, a line a file.",
    output=Section,
    tools=[list_files],
    delegates=["reader"],
    model=ScriptedModel(surveying, name="surveyor"),
    limits=Limits(model_calls=8, turns=8, tool_calls=8, seconds=300),
)


def together(parts: list[Section]) -> str:
    """The sections, in the order of the plan."""
    return "\n\n".join("\n".join([f"## {part.heading}", "", *(f"- {line}" for line in part.lines)]) for part in parts)


def rehearsed(parts: list[Section]) -> str:
    """The sections of a run whose planner was a script."""
    return f"{NOTICE}\n\n{together(parts)}"


@dataclass(frozen=True)
class Planned(Team):
    """A team that is a rehearsal until it is given a model."""

    def with_model(self, model: str | Model) -> Team:
        """The same team with a model that can plan, whose output is no rehearsal any more. Raises ``BadInput`` for another model."""
        known = resolve(model) if isinstance(model, str) else model
        if Need.PLANNING not in known.profile.can:
            raise BadInput(f"model {known.id} can't plan; give --model one that can, or leave it out for a rehearsal")
        return replace(super().with_model(model), merge=reduce(rehearsed if known.id.startswith("scripted:") else together))


team = Planned(
    "planned",
    roles=[surveyor, reader, measurer, guide_reader],
    planner=chief,
    merge=reduce(rehearsed),
    budget=Limits(model_calls=60),
    most_tasks=MOST_TASKS,
)
