"""The audit as a team: on both runtimes, with a scripted model that labels by keyword, and a host that is killed in the middle."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest
from audit.answers import Batch, Described, Licence, Sheet
from audit.inventory import installed
from dependency_audit import describer, licence_reader, team

from agents import ScriptedModel, steps
from orchestrator import Board, RunResult
from protocols import messages as m
from protocols.chat import ModelReply, ModelRequest, Need, Profile
from protocols.messages import Status

ODD = "For customers with a signed contract only; redistribution is prohibited."


def by_keyword(request: ModelRequest) -> ModelReply:
    """Every text that says HTTP is networking; margins are wide."""
    assert request.choice is not None
    labels = [option.label for option in request.choice.options]
    found = tuple("networking" if "http" in text.lower() else labels[-1] for text in request.choice.texts)
    return ModelReply(labels=found, margins=(0.3,) * len(found))


def names_in(report: str) -> list[str]:
    rows = report.split("## Every package\n")[1].splitlines()
    return [row.split("|")[1].strip() for row in rows if row.startswith("|")][2:]


def check(result: RunResult) -> None:
    assert result.status is Status.DONE, result.failure
    assert names_in(result.output) == list(installed())
    assert not [task for task in result.tasks if task.failure]


def test_every_package_of_the_environment_is_in_the_report_once(runtime: str, store: str) -> None:
    result = team.run_sync(runtime=runtime, store=store, model=ScriptedModel(by_keyword))
    check(result)
    assert len(names_in(result.output)) >= 20
    assert re.search(r"\| requests \|.*\| networking \(rules\) \|", result.output)
    described = [task for task in result.tasks if task.role == "describer"]
    assert sum(task.usage.model_calls for task in described) == len(described)
    assert re.search(r"\| grpcio \|.*\| networking \(model\) \|", result.output)


def test_a_pattern_as_the_goal_narrows_the_audit(store: str) -> None:
    result = team.run_sync("pyasn1* requests", runtime="inline", store=store, model=ScriptedModel(by_keyword))
    assert names_in(result.output) == ["pyasn1", "pyasn1-modules", "requests"]
    assert "is not installed" not in result.output


def test_a_killed_host_leaves_no_package_out_and_doubles_none(cluster: None, store: str, tmp_path: Path) -> None:
    at_work = tmp_path / "pid"

    async def slow(request: ModelRequest) -> ModelReply:
        at_work.write_text(str(os.getpid()))
        await asyncio.sleep(2.0)
        return by_keyword(request)

    async def killed() -> RunResult:
        async with Board(runtime="ray", store=store) as board:
            handle = await board.start(team, model=ScriptedModel(slow))
            async with asyncio.timeout(30):
                while not at_work.exists() or not at_work.read_text():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            os.kill(int(at_work.read_text()), signal.SIGKILL)
            return await handle.result()

    result = asyncio.run(killed())
    check(result)
    assert {task.attempts for task in result.tasks} == {1, 2}


# --- the two roles that may ask the model


async def outcome(role: object, value: object, model: ScriptedModel) -> object:
    ended = [message async for message in steps(role, value, model)][-1]  # type: ignore[arg-type]
    assert isinstance(ended, m.TaskEnded), ended
    assert ended.failure is None, ended.failure
    assert ended.output is not None
    return ended.output.inline


def licence(sheet: Sheet, label: str = "proprietary", margin: float = 0.3) -> tuple[Licence, int]:
    model = ScriptedModel(lambda request: ModelReply(labels=(label,), margins=(margin,)))
    return Licence.model_validate(asyncio.run(outcome(licence_reader, sheet, model))), model.calls


def test_what_rules_place_costs_no_model_call() -> None:
    found, calls = licence(Sheet(name="x", field="MIT"))
    assert (found.by, found.kind, calls) == ("rules", "permissive", 0)


def test_what_rules_cannot_place_is_the_models() -> None:
    found, calls = licence(Sheet(name="x", field=ODD))
    assert (found.by, found.kind, calls) == ("model", "proprietary", 1)


def test_what_the_model_is_unsure_of_is_a_persons_with_its_guess() -> None:
    found, calls = licence(Sheet(name="x", field=ODD), margin=0.001)
    assert (found.by, found.kind, calls) == ("person", "proprietary", 1)
    assert "its guess is proprietary" in found.why


@pytest.mark.parametrize("field", ["", "Other", "Dual License"])
def test_a_package_that_says_too_little_is_a_persons_at_no_cost(field: str) -> None:
    found, calls = licence(Sheet(name="x", field=field))
    assert (found.by, calls) == ("person", 0)
    assert field in found.why


def test_a_batch_is_one_call_and_the_silent_are_the_fallbacks() -> None:
    batch = Batch(sheets=[Sheet(name="a", summary="HTTP client"), Sheet(name="mute"), Sheet(name="b", summary="things")])
    model = ScriptedModel(by_keyword)
    found = asyncio.run(outcome(describer, batch, model))
    answers = [Described.model_validate(one) for one in found]  # type: ignore[attr-defined]
    assert [(one.name, one.by, one.line_by) for one in answers] == [("a", "model", "summary"), ("b", "model", "summary")]
    assert answers[0].purpose == "networking"
    assert model.calls == 1


def test_a_model_that_writes_its_labels_also_writes_a_sentence_and_is_not_believed_blindly() -> None:
    def script(request: ModelRequest) -> object:
        asked = request.messages[-1].content
        if request.output_schema is not None:
            return {str(number): "networking" for number in range(1, len(re.findall(r"^\[\d+\] ", asked, re.M)) + 1)}
        return "A client for HTTP." if asked.startswith("a:") else "Written by Ada Lovelace in 1843."

    model = ScriptedModel(script, profile=Profile(can=frozenset({Need.TEXT, Need.JSON_SCHEMA})))
    batch = Batch(sheets=[Sheet(name="a", summary="HTTP client"), Sheet(name="b", summary="a client")])
    answers = [Described.model_validate(one) for one in asyncio.run(outcome(describer, batch, model))]  # type: ignore[attr-defined]
    assert [(one.line, one.line_by) for one in answers] == [("A client for HTTP.", "model"), ("a client", "fallback")]
    assert model.calls == 3
