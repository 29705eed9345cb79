"""Nothing waits for what it does not need: tasks start with their inputs, and words are heard while they are said."""

import asyncio
from pathlib import Path
from typing import Any

from agents import Context, role
from orchestrator import Board, Team
from protocols.messages import PartialOutput, Status, TaskEnded
from protocols.plan import Plan, Task, ref


async def opened(gate: str) -> None:
    """Return when there is such a file."""
    async with asyncio.timeout(30):
        while not Path(gate).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@role
async def opener(job: dict[str, Any]) -> str:
    Path(job["gate"]).touch()
    return "open"


@role
async def waiter(gate: str) -> str:
    await opened(gate)
    return "seen"


@role(delegates=["middle"])
async def top(gate: str, context: Context) -> Any:
    (told,) = await context.delegate([Task(id=f"{context.task}/middle", role="middle", input=gate)])
    return told.output


@role(delegates=["speaker"])
async def middle(gate: str, context: Context) -> Any:
    (told,) = await context.delegate([Task(id=f"{context.task}/speaker", role="speaker", input=gate)])
    return told.output


@role
async def speaker(gate: str, context: Context) -> str:
    context.partial("listen")
    await opened(gate)
    return "done"


def test_a_task_starts_when_its_own_inputs_are_there_whatever_else_is_at_work(runtime: str, store: str, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    plan = Plan(
        tasks=(
            Task(id="long", role="waiter", input=second),  # it ends only after the others have worked beside it
            Task(id="a", role="opener", input={"gate": first}),
            Task(id="b", role="opener", input={"gate": second, "after": ref("a")}),
        )
    )
    result = Team("prompt", [opener, waiter], planner=plan).run_sync(runtime=runtime, store=store)
    assert (result.status, result.output) == (Status.DONE, ["seen", "open"])


def test_an_agent_deep_in_a_delegation_is_heard_while_it_speaks(runtime: str, store: str, tmp_path: Path) -> None:
    gate = tmp_path / "heard"
    team = Team("deep", [top, middle, speaker], planner=Plan(tasks=(Task(id="top", role="top", input=str(gate)),)))

    async def listen() -> tuple[list[str], Any]:
        heard = []
        async with Board(runtime=runtime, store=store) as board:
            handle = await board.start(team)
            async for envelope in handle.events():
                if isinstance(envelope.body, PartialOutput):
                    heard.append(envelope.body.task)
                    gate.touch()
                elif isinstance(envelope.body, TaskEnded):
                    heard.append(envelope.body.task)
            return heard, await handle.result()

    heard, result = asyncio.run(listen())
    assert result.output == ["done"]
    assert heard == ["top/middle/speaker", "top/middle/speaker", "top/middle", "top"]
