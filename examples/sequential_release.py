"""Is this project ready for a release? The *sequential* strategy: plan, carry out a step, observe, update the plan, repeat.

    callboard run examples/sequential_release.py:team --goal path/to/project

The default model is a script, a rehearsal that plans the same checks every time; --model openai:NAME plans by itself.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

from agents import Role, ScriptedModel, call, tool
from orchestrator import Team
from protocols.chat import ModelRequest


@tool
def declared_version(folder: str) -> str:
    """The version that the project's pyproject.toml declares, or `none`."""
    path = Path(folder, "pyproject.toml")
    found = re.search(r'^version\s*=\s*"([^"]+)"', path.read_text(), re.M) if path.is_file() else None
    return found[1] if found else "none"


@tool
def changelog_mentions(folder: str, version: str) -> bool:
    """Whether a changelog of the project mentions the version."""
    return any(version in path.read_text(errors="replace") for path in Path(folder).glob("[Cc][Hh][Aa][Nn][Gg][Ee]*"))


@tool
def uncommitted_files(folder: str) -> list[str]:
    """The files with changes that are not committed; fails where there is no git repository."""
    done = subprocess.run(["git", "-C", folder, "status", "--porcelain"], capture_output=True, text=True, check=True)
    return [line[3:] for line in done.stdout.splitlines()]


@tool
def open_notes(folder: str) -> int:
    """How many TODO and FIXME notes stand in the project's Python files."""
    files = [path for path in Path(folder).rglob("*.py") if "site-packages" not in path.parts]
    return sum(len(re.findall(r"\b(?:TODO|FIXME)\b", path.read_text(errors="replace"))) for path in files)


STEPS = {
    "Read the declared version": "declared_version",
    "Look for it in the changelog": "changelog_mentions",
    "List uncommitted files": "uncommitted_files",
    "Count open notes": "open_notes",
}


def rehearsal(request: ModelRequest) -> Any:
    """What a planning model would say: the steps that remain, a step's tool call, and at last the answer."""
    folder = next(message.content for message in request.messages if message.role == "user")
    seen = [message.content for message in request.messages if message.role == "tool"]
    if request.output_schema is not None:
        steps = list(STEPS)[len(seen) :]
        return {"steps": steps}
    wanted = next((tool for step, tool in STEPS.items() if request.messages[-1].content.endswith(step)), None)
    if wanted is not None:
        version = {"version": seen[0]} if wanted == "changelog_mentions" else {}
        return call(wanted, folder=folder, **version)
    return "\n".join(f"{step}: {result}" for step, result in zip(STEPS, seen, strict=False))


inspector = Role(
    name="inspector",
    instructions="Find out whether the project in the folder is ready for a release. Plan the checks, make them, and report.",
    tools=[declared_version, changelog_mentions, uncommitted_files, open_notes],
    model=ScriptedModel(rehearsal, name="release-rehearsal"),
    strategy="sequential",
)
team = Team("release", roles=[inspector])
