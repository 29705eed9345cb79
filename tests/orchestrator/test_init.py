"""``callboard init``: what it makes works as it is made, and it never touches what is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agents import ScriptedModel, call
from orchestrator.cli import main
from orchestrator.target import load
from protocols.chat import ModelRequest
from protocols.messages import Status


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are typed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(name: str, *more: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["init", name, *more])
    return int(left.value.code or 0)


def test_the_scaffold_passes_its_own_test_and_the_linter(folder: Path) -> None:
    assert init("first") == 0
    for tool in (["pytest", "-q", "-p", "no:cacheprovider", "first"], ["ruff", "check", "first"], ["ruff", "format", "--check", "first"]):
        done = subprocess.run([sys.executable, "-m", *tool], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_team_has_the_name_given_and_asks_for_what_the_embedded_model_can(folder: Path, store: str) -> None:
    init("teams/post_office")
    team = load("teams/post_office/team.py").team
    assert team.name == "post_office"
    assert [role.model for role in team.roles] == ["embedded", None]
    assert team.unmet(team.budget) == []

    def script(request: ModelRequest) -> object:
        return request.messages[-1].content if request.messages[-1].role == "tool" else call("opening_hours")

    result = team.run_sync(["Open?"] * 40, runtime="inline", store=store, model=ScriptedModel(script), budget=team.budget)
    assert result.status is Status.DONE
    assert result.output["answered"] == 40  # more than one merge takes at once


def test_what_is_there_is_not_touched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("keep")
    (folder / "file").write_text("keep")
    for name, sentence in (("mine", "mine is not empty"), ("file", "file is a file"), ("file/below", "can't be made")):
        assert init(name) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert sentence in said.err
    assert sorted(path.name for path in folder.rglob("*")) == ["file", "mine", "notes.txt"]


@pytest.mark.parametrize("name", ["", " ", "1st", "two words", "a" * 51, "deep/-x", "naïve", "a;b", ".hidden"])
def test_a_bad_name_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert init("--", name) == 2
    said = capsys.readouterr().err
    assert "name" in said
    assert said.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_json_names_the_files_and_what_comes_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my teams").mkdir()
    assert init("my teams/empty", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["README.md", "pyproject.toml", "team.py", "test_team.py"]
    assert said["next"][0] == "callboard run 'my teams/empty/team.py'"
