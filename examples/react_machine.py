"""Answers questions about this machine: the *react* strategy, tools called and observed until the question is answered.

    callboard run examples/react_machine.py:team --goal "Is there still room on the disk?"

The embedded model has no tool calls of its own: it picks a tool by scored choice and the first result is the answer. A bigger
model (--model openai:NAME) calls several and answers in words.
"""

import os
import platform
import shutil
from pathlib import Path

from pydantic import BaseModel

from agents import Role, role, tool
from orchestrator import Team, only
from protocols.plan import Plan, Task, ref

QUESTIONS = ["How much room is left on the disk?", "How much memory is free?", "Is the processor busy?", "Which Python runs here?"]


@tool
def disk_space() -> str:
    """How full the disk is and how much room is left on it to store files"""
    use = shutil.disk_usage("/")
    return f"{use.free / 1e9:.1f} GB of {use.total / 1e9:.1f} GB are free on /"


@tool
def free_memory() -> str:
    """How much memory (RAM) is used and free"""
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(facts[key].split()[0]) / 1e6 for key in ("MemTotal", "MemAvailable"))
    return f"{free:.1f} GB of {total:.1f} GB of memory are available"


@tool
def processor_load() -> str:
    """How busy the processor is: the load of its cores"""
    return f"the load is {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores"


@tool
def software_versions() -> str:
    """The versions of Python and of the operating system"""
    return f"Python {platform.python_version()} on {platform.platform()}"


operator = Role(
    name="operator",
    instructions="Answer the question about this machine from what your tools measure, and from nothing else.",
    tools=[disk_space, free_memory, processor_load, software_versions],
    model="embedded",
    strategy="react",
)


class Asked(BaseModel):
    questions: list[str]
    answers: list[str]


@role
def minutes(asked: Asked) -> str:
    """Questions and answers."""
    return "\n".join(f"{question}\n  {answer}" for question, answer in zip(asked.questions, asked.answers, strict=True))


def plan(goal: str | None = None) -> Plan:
    """One task a question."""
    questions = [goal] if goal else QUESTIONS
    tasks = [Task(id=f"question/{at}", role="operator", input=question) for at, question in enumerate(questions)]
    answers = [ref(task.id) for task in tasks]
    return Plan(tasks=(*tasks, Task(id="minutes", role="minutes", input={"questions": questions, "answers": answers})))


team = Team("machine", roles=[operator, minutes], planner=plan, merge=only())
