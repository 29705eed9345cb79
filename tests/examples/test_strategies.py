"""One example for each strategy, run from the command line as a reader would; and the audit's model on a few packages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dependency_audit import team as audit
from react_machine import team as machine
from single_triage import SAMPLE
from single_triage import team as triage

from agents import ScriptedModel, call
from agents.models.embedded import stop_in_process
from agents.models.weights import locate
from protocols.chat import ModelRequest
from protocols.messages import Status

ROOT = Path(__file__).parents[2]


@pytest.fixture
def embedded() -> Any:
    """The embedded model, where its weights are on this machine."""
    if locate("smollm2-135m") is None:
        pytest.skip("the weights are not here; `callboard model pull` fetches them")
    yield "embedded"
    stop_in_process()


def run(example: str, goal: str | None = None) -> Any:
    command = [sys.executable, "-m", "orchestrator.cli", "run", f"examples/{example}.py:team", "--runtime", "inline", "--store", "memory:"]
    done = subprocess.run(
        [*command, "--json", *(["--goal", goal] if goal else [])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["output"]


def test_function_finds_the_longest_functions(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("def short():\n    return 1\n")
    (tmp_path / "long.py").write_text("def long(x):\n    if x:\n        for y in x:\n            print(y)\n")
    (tmp_path / "broken.py").write_text("def (:\n")
    found = run("function_longest", str(tmp_path))
    assert [line.split()[-1] for line in found] == ["long", "short"]
    assert found[0].split() == ["4", "lines,", "2", "deep", f"{tmp_path}/long.py:1", "long"]


def test_function_says_what_is_wrong_with_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="there is no Python file under"):
        run("function_longest", str(tmp_path))


def test_sequential_checks_a_project_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGES.md").write_text("## 1.2.3\n")
    (tmp_path / "x.py").write_text("# TODO: all of it\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    lines = run("sequential_release", str(tmp_path)).splitlines()
    assert lines[0] == "Read the declared version: 1.2.3"
    assert lines[1] == "Look for it in the changelog: true"
    assert "x.py" in lines[2]
    assert lines[3] == "Count open notes: 1"


def test_single_sorts_messages_in_one_choice_a_batch(store: str) -> None:
    def by_keyword(request: ModelRequest) -> list[str]:
        assert request.choice is not None
        return ["billing" if "invoice" in text or "charged" in text else "idea" for text in request.choice.texts]

    model = ScriptedModel(by_keyword)
    result = triage.run_sync("My invoice is wrong\n\nAdd a dark mode\n", runtime="inline", store=store, model=model)
    assert result.output == "billing   My invoice is wrong\nidea      Add a dark mode"
    assert model.calls == 1


def test_react_calls_tools_until_it_can_answer(store: str) -> None:
    def script(request: ModelRequest) -> Any:
        results = [message.content for message in request.messages if message.role == "tool"]
        return f"There is room: {results[-1]}" if results else call("disk_space")

    result = machine.run_sync("Is there room?", runtime="inline", store=store, model=ScriptedModel(script))
    assert result.status is Status.DONE
    assert result.output.startswith("Is there room?\n  There is room: ")
    assert result.usage.tool_calls == 1


def test_the_embedded_model_picks_the_right_tools(embedded: str, store: str) -> None:
    output = machine.run_sync(runtime="inline", store=store, model=embedded).output
    assert [word in output for word in ("are free on /", "of memory are available", "the load is", "Python 3.")] == [True] * 4


def test_the_embedded_model_sorts_most_messages_of_the_sample(embedded: str, store: str) -> None:
    right = ["billing", "delivery", "account", "bug", "idea", "billing", "delivery", "account", "bug", "idea", "billing", "account"]
    output = triage.run_sync(runtime="inline", store=store, model=embedded).output
    found = {line[10:]: line[:10].strip() for line in output.splitlines()}
    hits = sum(found[message] == tray for message, tray in zip(SAMPLE.splitlines(), right, strict=True))
    assert hits >= 10


def test_the_audit_runs_on_the_embedded_model(embedded: str, store: str) -> None:
    result = audit.run_sync("click certifi attrs", runtime="inline", store=store, model=embedded)
    assert result.status is Status.DONE
    assert result.usage.model_calls == 1
    assert "| purpose | 0 | 3 |" in result.output
