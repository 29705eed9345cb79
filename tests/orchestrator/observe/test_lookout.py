"""The lookout: long agents are shown one by one, and slow ones are told of in one line."""

import asyncio
import logging
from pathlib import Path

import pytest

from agents import role
from orchestrator import Team, open_journal
from orchestrator.agent import Agent
from orchestrator.code import pack
from orchestrator.coordinator import Coordinator
from orchestrator.host import Host
from orchestrator.models import Models
from orchestrator.observe import lookout
from orchestrator.scheduler import EVERY
from protocols import codec
from protocols import messages as m
from protocols.plan import Plan, Task


@role
async def quick(number: int) -> int:
    return number


@role
async def sleeper(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


TASKS = (*(Task(id=f"q{n}", role="quick", input=n) for n in range(5)), *(Task(id=f"s{n}", role="sleeper", input=0.6) for n in range(3)))


def test_long_agents_are_shown_until_they_end_and_slow_ones_told_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seconds in (("LOOK", 0.02), ("SHOWN", 0.1), ("SLOW", 0.2)):
        monkeypatch.setattr(lookout, f"{name}_SECONDS", seconds)
    team = Team("mixed", [quick, sleeper], planner=Plan(tasks=TASKS))
    shown: list[str] = []
    left: list[int] = []

    async def follow(host: Host, run: str, task: str) -> None:
        await host.ended(run, task)
        left.append(sum(agent.task == task for agent in host.at_work()))

    async def go() -> None:
        host = Host("host/test", EVERY, Models())
        coordinator = Coordinator(open_journal(str(tmp_path / "journal.db")), [host])
        await coordinator.start()
        following: list[asyncio.Task[None]] = []

        def show(agent: Agent) -> None:
            shown.append(agent.label)
            following.append(asyncio.create_task(follow(host, agent.run, agent.task)))

        looking = asyncio.create_task(lookout.look_out(host.at_work, show))
        code = await coordinator.put_blob(pack(team.cast))
        plan = m.Value(inline=Plan(tasks=TASKS).model_dump())
        await coordinator.submit("run-1", codec.pack(m.RunRequested(team=team.spec(), plan=plan, code=code)))
        assert await coordinator.wait("run-1", 20)
        await asyncio.gather(*following)
        looking.cancel()
        await coordinator.close()
        await host.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(go())
    assert {f"run-1 / sleeper / s{n}" for n in range(3)} <= set(shown)
    assert len(shown) == len(set(shown))
    assert not any(left), "shown for as long as it was at work"
    slow = [vars(record) for record in caplog.records if record.getMessage().startswith("slow")]
    assert sum(record["count"] for record in slow if record["role"] == "sleeper" and record["run"] == "run-1") == 3
