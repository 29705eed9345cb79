"""The planner as a role: a plan sent back, a plan mended, a delegation, and a rehearsal that is never passed off as a model's work."""

import json
from typing import Any

import pytest
from planner_team import NOTICE, team

from agents import HttpModel, ScriptedModel
from orchestrator import RunResult
from protocols.chat import Need, Profile
from protocols.failures import BadInput
from protocols.messages import Status
from tests.conftest import Endpoint, said

GOAL = "What is in this folder, and is there a guide to it?"


def check(result: RunResult) -> None:
    """The first plan was refused, the second failed in one task and was mended, and the surveyor's readers worked."""
    assert result.status is Status.DONE, result.failure
    roles = {task.task: task.role for task in result.tasks}
    assert {task.task: task.usage.model_calls for task in result.tasks if task.role == "planner"} == {"plan/1": 2, "plan/2": 1}
    assert roles["measure-guides"] == "measurer"
    assert "there is no guide" in str(next(task.failure for task in result.tasks if task.task == "guide"))
    assert sum(role == "reader" for role in roles.values()) == 6
    assert "- dependency_audit.py: Audits the packages" in result.output
    assert "## Size of *.md\n\n- 0 files, 0 lines" in result.output


def test_without_a_model_the_run_is_a_rehearsal_and_says_so(runtime: str, store: str, capfd: pytest.CaptureFixture[str]) -> None:
    result = team.run_sync(GOAL, runtime=runtime, store=store)
    check(result)
    assert result.output.startswith(NOTICE)
    assert result.usage.model_calls == 6
    if runtime == "inline":
        assert capfd.readouterr().err.count(NOTICE) == 1


def test_with_a_model_the_same_work_is_its_own(store: str, endpoint: Endpoint) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        told = "\n".join(str(one.get("content") or "") for one in body["messages"])
        results = [one["content"] for one in body["messages"] if one["role"] == "tool"]
        if body.get("tools"):
            if not results:
                return said("", [("list_files", {"pattern": "*.py"})])
            if len(results) == 1:
                return said("", [("delegate", {"tasks": [{"role": "reader", "input": name} for name in json.loads(results[0])[:6]]})])
            return said(json.dumps({"heading": "Files", "lines": [one["output"] for one in json.loads(results[1])]}))
        tasks = [{"id": "survey", "role": "surveyor", "input": "*.py"}, {"id": "guide", "role": "guide-reader", "input": "GUIDE.md"}]
        if "These tasks failed" in told:
            tasks = [{"id": "measure-guides", "role": "measurer", "input": "*.md"}]
        elif "did you mean" not in told:
            tasks[0]["role"] = "surveyer"
        return said(json.dumps({"tasks": tasks}))

    endpoint.answer = answer
    result = team.run_sync(GOAL, runtime="inline", store=store, model=HttpModel(endpoint.url, "planner"))
    check(result)
    assert "SCRIPTED" not in result.output
    assert result.usage.model_calls == len(endpoint.requests) == 6


def test_a_model_that_can_not_plan_is_refused_before_anything_runs(store: str) -> None:
    small = ScriptedModel([], profile=Profile(can=frozenset({Need.JSON_SCHEMA})))
    with pytest.raises(BadInput, match="can't plan"):
        team.run_sync(GOAL, runtime="inline", store=store, model=small)
