"""What a shell offers while a command line is typed: asked of click as the shells ask it, and once of bash itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from orchestrator.cli import completing, main
from orchestrator.cli.command import commands

ROOT = Path(__file__).parents[2]


def offered(*words: str) -> list[str]:
    """The candidates for the last of ``words``."""
    *before, incomplete = words
    found = ShellComplete(commands, {}, "callboard", completing.VARIABLE).get_completions(before, incomplete)
    return [item.value for item in found if item.type == "plain"]


def test_commands_and_options_are_completed() -> None:
    assert offered("tra") == ["trace"]
    assert {"run", "runs"} <= set(offered("ru"))
    assert "--budget-calls" in offered("run", "x.py", "--budget")
    assert offered("run", "x.py", "--runtime", "") == ["ray", "inline"]
    assert offered("model", "pu") == ["pull"]


def test_runs_are_completed_newest_first_from_the_journal_that_is_named(store: str) -> None:
    for command in ("show", "trace", "journal", "resume", "cancel"):
        assert offered(command, "--store", store, "") == ["last", "run-1abcdeg-bbbbb", "run-1abcdef-aaaaa"]
    assert offered("show", "--store", f"sqlite:///{store}", "run-1abcdef") == ["run-1abcdef-aaaaa"]
    assert offered("show", "--store", store, "x") == []


def test_completing_makes_no_journal_and_says_nothing_of_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path / "nowhere"))
    assert offered("show", "") == []
    assert offered("show", "--store", str(tmp_path / "none.db"), "") == []
    (tmp_path / "broken.db").write_text("this is no database, " * 1000)
    assert offered("show", "--store", str(tmp_path / "broken.db"), "") == []
    assert [path.name for path in tmp_path.iterdir()] == ["broken.db"]


def test_targets_are_files_that_define_teams_and_then_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "both.py").write_text("first = Team('a', [])\nsecond = orchestrator.Team('b', [])\nthird = 3\nraise SystemExit\n")
    (tmp_path / "jobs" / "other.py").write_text("x = 1\n")
    (tmp_path / "jobs" / "broken.py").write_text("team = Team(\n")
    monkeypatch.chdir(tmp_path)
    assert offered("run", "jobs/") == ["jobs/both.py"]
    assert offered("run", "jobs/both.py:") == ["jobs/both.py:first", "jobs/both.py:second"]
    assert offered("run", "jobs/both.py:s") == ["jobs/both.py:second"]
    assert offered("run", "nowhere.py:") == []
    found = ShellComplete(commands, {}, "callboard", completing.VARIABLE).get_completions(["run"], "jo")
    assert [(item.value, item.type) for item in found] == [("jo", "file")]  # the shell completes folders itself


def test_models_are_completed_by_id() -> None:
    assert offered("run", "x.py", "--model", "embedded:s") == ["embedded:smollm2-135m"]
    assert "openai:" in offered("run", "x.py", "--model", "")
    assert offered("model", "pull", "qwen") == ["qwen2.5-coder-0.5b"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_this_command(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["completion", shell])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert f"{completing.VARIABLE}={shell}_complete" in said
    assert "callboard" in said


@pytest.mark.parametrize(
    ("typed", "words", "at"),
    [
        (["smollm2-135m"], "callboard run x.py --model embedded : sm", 6),
        (["smollm2-135m", "qwen2.5-coder-0.5b"], "callboard run x.py --model embedded :", 5),
        (["smollm2-135m"], "callboard run x.py --model = embedded : sm", 7),
        (["ray"], "callboard run x.py --runtime = r", 5),
        (["list"], "callboard model l", 2),
    ],
)
def test_bash_breaks_words_at_colons_and_gets_the_rest_of_the_word(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], words: str, at: int
) -> None:
    found = get_completion_class("bash")
    assert found is not None
    monkeypatch.setenv("COMP_WORDS", words.replace(" ", "\n"))
    monkeypatch.setenv("COMP_CWORD", str(at))
    said = found(commands, {}, "callboard", completing.VARIABLE).complete()
    assert said.splitlines() == [f"plain,{value}" for value in typed]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_itself_completes_with_the_script(tmp_path: Path, store: str) -> None:
    command = tmp_path / "callboard"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m orchestrator.cli "$@"\n')
    command.chmod(0o755)
    script = f"""
    PATH={tmp_path}:$PATH
    eval "$(callboard completion bash)"
    COMP_WORDS=(callboard show --store {store} run-1abcdef); COMP_CWORD=4
    _callboard_completion callboard
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["run-1abcdef-aaaaa"]
