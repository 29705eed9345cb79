"""The README says what is true: its code defines a team that runs, and its commands are those of the gate."""

import re
from pathlib import Path

import pytest

from agents import ScriptedModel, call
from protocols.messages import Status

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_first_block_defines_a_team_that_works(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0], names)
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for risk, path in enumerate(files):
        path.write_text(f"risk = {risk}")

    def reply(request: object) -> object:
        *_, last = request.messages  # type: ignore[attr-defined]
        if last.role == "tool":
            risk = int(last.content.split()[-1])
            return {"file": str(files[risk]), "risk": risk}
        return call("read_file", path=last.content)

    team = names["team"].with_model(ScriptedModel(reply, name="reviewer"))  # type: ignore[attr-defined]
    result = team.run_sync([str(path) for path in files], runtime="inline", store=store)
    assert result.status is Status.DONE
    assert result.output == {"file": str(files[1]), "risk": 1}
    assert result.usage.tool_calls == 2


def test_the_gate_runs_the_readmes_test_command() -> None:
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_code_of_every_page_works(page: str) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL):
        exec(block, names)
