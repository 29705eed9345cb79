"""Code that would end a program, or says that it was cancelled when nobody did that, fails its own task and nothing else."""

import asyncio
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agents import Role, ScriptedModel, call, role, tool
from agents.effects import Reconciled
from orchestrator import Board, Team, open_journal, reduce
from orchestrator.cli import cancelling, main
from orchestrator.testing import rehearse
from protocols import codec
from protocols.budget import Limits
from protocols.chat import ModelRequest
from protocols.failures import Failed, Failure, Verdict
from protocols.messages import Status, ToolCalled
from protocols.plan import Plan, Task
from tests.cluster.cast import mark, stubborn


class Odd(BaseException):
    """Neither an ``Exception`` nor one of Python's own."""


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


def odd(how: str) -> str:
    """Raise what is named."""
    if how == "exit":
        sys.exit(3)
    if how == "other":
        raise Odd("odd")
    if how == "cancelled":
        raise asyncio.CancelledError
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "mute":
        raise Mute
    if how == "unsendable":
        raise Failed(Failure(verdict=Verdict.CODE_ERROR, message="\ud800"))
    return how


@role(attempts=1)
def blocking(how: str) -> str:
    """In a thread."""
    return odd(how)


@role(attempts=1, limits=Limits(seconds=20))
async def flowing(how: str) -> str:
    """In the event loop."""
    await asyncio.sleep(0)
    return odd(how)


@role(attempts=1)
async def spreading(how: str) -> str:
    """In tasks of its own."""

    async def one() -> str:
        return odd(how)

    if how == "itself":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(10)
    return (await asyncio.gather(asyncio.wait_for(one(), 10), one()))[0]


RAISED = {
    "exit": "SystemExit",
    "other": "Odd: odd",
    "cancelled": "CancelledError, and nobody had stopped it",
    "interrupt": "KeyboardInterrupt",
    "mute": "Mute: (its text could not be made)",
    "unsendable": "a value can't be sent",
    "itself": "CancelledError, and nobody had stopped it",
}
"""How a thing is raised, and what of it stands in the failure."""


def everything(way: str) -> Plan:
    """Every odd thing, and one that is well."""
    inline = way == "inline"
    names = {
        "blocking": ["exit", "other", "cancelled", "interrupt", "mute", "unsendable"],
        # inline, an interrupt in the main thread is that of the person at the terminal
        "flowing": ["exit", "other", "cancelled", *([] if inline else ["interrupt"])],
        "spreading": ["exit", "itself"],
    }
    odd_ones = [Task(id=f"{name}-{how}", role=name, input=how) for name, hows in names.items() for how in hows]
    return Plan(tasks=(*odd_ones, Task(id="well", role="flowing", input="well")))


def test_whatever_a_role_raises_fails_its_task_and_its_host_works_on(runtime: str, store: str) -> None:
    async def carried_out() -> Any:
        async with Board(runtime=runtime, store=store, hosts=1) as board:
            for planner in (everything, Plan(tasks=(Task(id="next", role="flowing", input="next"),))):
                handle = await board.start(Team("odd", [blocking, flowing, spreading], planner=planner), runtime)
                yield await handle.result()

    async def both() -> list[Any]:
        return [result async for result in carried_out()]

    first, then = asyncio.run(both())
    failures = {one.task: one.failure for one in first.tasks if one.failure is not None}
    assert failures.keys() == {task.id for task in everything(runtime).tasks} - {"well"}
    assert {one.verdict for one in failures.values()} == {Verdict.CODE_ERROR}
    assert {task: one.message for task, one in failures.items() if RAISED[task.rpartition("-")[2]] not in one.message} == {}
    assert (then.status, then.output) == (Status.DONE, ["next"])


class OddModel:
    """A model of the user's own."""

    def __init__(self) -> None:
        self.inner = ScriptedModel(["never"])
        self.id, self.profile, self.price = "odd", self.inner.profile, None
        self.bound, self.aclose = self.inner.bound, self.inner.aclose

    async def complete(self, request: ModelRequest, on_text: Any = None) -> Any:
        sys.exit(3)


def exits(*given: Any) -> Any:
    """Whatever it is used for."""
    sys.exit(3)


well = Role("well", input=str, output=str, run=str.upper)
PARTS: dict[str, tuple[Verdict, Team]] = {
    "planner": (Verdict.CODE_ERROR, Team("t", [well], planner=exits)),
    "merge": (Verdict.CODE_ERROR, Team("t", [well], planner=Plan(tasks=(Task(id="a", role="well", input="a"),)), merge=reduce(exits))),
    "prompt": (Verdict.CODE_ERROR, Team("t", [Role("one", input=str, output=str, prompt=exits, model=ScriptedModel(["x"]))])),
    "check": (Verdict.CODE_ERROR, Team("t", [Role("one", input=str, output=str, check=exits, model=ScriptedModel(["x"]))])),
    "model": (Verdict.PROVIDER, Team("t", [Role("one", input=str, output=str, model=OddModel())])),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_team_that_exits_fails_its_task(part: str) -> None:
    verdict, team = PARTS[part]
    result = rehearse(team, "go").result
    assert result.status is Status.FAILED
    failure = result.failure or next(one.failure for one in result.tasks if one.failure)
    assert failure.verdict is verdict
    assert "SystemExit: 3" in failure.message


@tool
def leaves(how: str) -> str:
    """Raise it in a thread."""
    return odd(how)


@tool
async def asserts(how: str) -> str:
    """Fail a test from within."""
    if how == "well":
        return how
    pytest.fail("not so")


@tool(effect="write", retries=0)
async def writes(how: str) -> str:
    """Change the world."""
    return odd(how)


def asking(*asked: tuple[str, str]) -> Team:
    calls = [call(name, how=how) for name, how in asked]
    return Team("t", [Role("asks", input=str, output=str, tools=[leaves, asserts, writes], model=ScriptedModel([*calls, "done"]))])


def test_a_tool_that_exits_has_failed_and_its_model_reads_how(store: str) -> None:
    team = asking(("leaves", "exit"), ("asserts", "odd"), ("leaves", "other"), ("writes", "exit"), ("asserts", "well"))
    result = team.run_sync("go", runtime="inline", store=store)
    assert (result.status, result.output) == (Status.DONE, "done")
    with closing(open_journal(store)) as journal:
        told = [codec.unpack(entry.body) for entry in journal.read(result.run_id)]
    failures = [one.failure for one in told if isinstance(one, ToolCalled)]
    assert [one and one.verdict for one in failures] == [Verdict.TOOL_ERROR] * 4 + [None]
    assert [one.message.partition(" failed: ")[2] for one in failures if one] == [
        "SystemExit: 3", "Failed: not so", "Odd: odd", "SystemExit: 3",
    ]  # fmt: skip


def test_a_write_that_was_broken_off_by_nobody_is_in_doubt() -> None:
    def nobody_knows(key: str) -> Reconciled:
        sys.exit(3)

    settled = tool(effect="write", name="settled", reconcile=nobody_knows)(writes.function)
    team = Team("t", [Role("asks", input=str, output=str, tools=[settled], model=ScriptedModel([call("settled", how="cancelled")]))])
    done = rehearse(team, "go")
    assert done.result.tasks[0].failure is not None
    assert done.result.tasks[0].failure.verdict is Verdict.EFFECT_IN_DOUBT
    [review] = done.reviews
    assert "CancelledError, and nobody had stopped it" in review.message
    assert "its reconcile function failed: SystemExit: 3" in review.message


def command(*words: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


def test_a_run_whose_coordinator_has_heard_the_cancelling_is_left_to_it(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def cancelled() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(Team("stubborn", [holds]), run_id="run-odd")
            while not Path(f"{path}.begun").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            try:
                code = await asyncio.to_thread(command, "cancel", "run-odd", "--store", store)
                return code, capsys.readouterr().err, await handle.result()
            finally:
                mark(f"{path}.released", "released")

    monkeypatch.setattr(cancelling, "STOP_SECONDS", 0.0)
    path = str(tmp_path / "stubborn")
    holds = Role("holds", input=None, output=str, tools=[stubborn], model=ScriptedModel([call("stubborn", path=path)]))
    code, said, result = asyncio.run(cancelled())
    assert code == 0
    assert "run-odd is stopping" in said
    assert "nothing is working" not in said
    assert result.status is Status.CANCELLED
