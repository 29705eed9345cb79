"""What stays on a cluster between drivers: found again, carrying runs on without them, and gone when nobody uses it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from orchestrator import Board, Team, actors, deployment, open_journal
from orchestrator.deployment import DeploymentRuntime
from orchestrator.replay import replay
from protocols import codec, ids
from protocols.failures import BadInput
from protocols.messages import AttemptsLost, Status
from protocols.plan import Plan, Task
from protocols.team import Resources
from tests.cluster.cast import doubler, marks, worker

ROOT = Path(__file__).parents[2]
MARKING = """
import asyncio, os
from agents import role
from orchestrator import Team
from protocols.plan import Plan, Task

@role
async def mark(name: str) -> str:
    with open({path!r}, "a") as file:
        file.write(f"{{name}} {{os.getpid()}}\\n")
    await asyncio.sleep(0.5)
    return name

team = Team("marks", [mark], planner=Plan(tasks=tuple(
    Task(id=f"m{{n}}", role="mark", input=f"m{{n}}", after=(f"m{{n - 1}}",) if n else ()) for n in range(8))))
"""


@pytest.fixture
def address(cluster: None, store: str) -> Iterator[str]:
    """The session's cluster, with no deployment before and none after."""
    found: str = ray.get_runtime_context().gcs_address
    yield found
    asyncio.run(ended(found))


async def ended(address: str) -> bool:
    runtime = DeploymentRuntime(address, None, 1)
    there = await runtime.end()
    until = time.monotonic() + 20
    while ours():
        assert time.monotonic() < until, ours()
        await asyncio.sleep(0.1)
    return there


def with_its_driver_killed(address: str, store: str, path: Path) -> tuple[str, ...]:
    """Start the run ``mine``, kill who asked for it when two marks are made, and return the command line that asked."""
    file = path.with_name("marking.py")
    file.write_text(MARKING.format(path=str(path)))
    arguments = ("run", str(file), "--address", address, "--store", store, "--hosts", "1", "--run-id", "mine", "--json", "--quiet")
    driver = command(*arguments)
    wait_for(lambda: len(marks(path)) >= 2)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    return arguments


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def ours() -> list[str]:
    """The names of the actors of a deployment."""
    return [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["name"].endswith("-deployment")]


def command(*arguments: str, **settings: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


def test_a_deployment_is_made_once_and_stays_for_the_next_driver(address: str, store: str) -> None:
    async def run() -> Any:
        async with Board(address=address, store=store, hosts=1) as board:
            return await (await board.start(Team("one", [doubler]), 4)).result()

    first = asyncio.run(run())
    made = sorted(ours())
    second = asyncio.run(run())
    assert first.output == second.output == 8
    assert made == sorted(ours()) == ["callboard-coordinator-0-deployment", "callboard-host-shared#0-deployment"]
    ray.kill(ray.get_actor(made[1], namespace=actors.NAMESPACE), no_restart=True)  # as one that heard no coordinator ends itself
    assert asyncio.run(run()).output == 8
    assert made == sorted(ours())


def test_a_run_goes_on_without_its_driver_and_the_next_one_follows_it(address: str, store: str, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    arguments = with_its_driver_killed(address, store, path)
    assert len(marks(path)) < 8
    out, said = command(*arguments).communicate(timeout=60)
    assert "mine has begun already" in said
    assert json.loads(out)["status"] == "done"
    assert Counter(marks(path)) == {f"m{n}": 1 for n in range(8)}
    out, _ = command(*arguments).communicate(timeout=60)
    assert json.loads(out)["output"] == [f"m{n}" for n in range(8)]
    assert len(marks(path)) == 8


def test_what_is_at_work_when_a_deployment_is_ended_is_given_back(address: str, store: str, tmp_path: Path) -> None:
    with_its_driver_killed(address, store, tmp_path / "marks")
    asyncio.run(ended(address))
    lost = [codec.unpack(entry.body) for entry in open_journal(store).read("mine") if entry.tag == "AttemptsLost"]
    assert [(len(one.tasks), one.returned) for one in lost if isinstance(one, AttemptsLost)] == [(1, True)]


def test_a_pool_grows_with_what_waits_and_shrinks_when_it_is_quiet(address: str, store: str, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    crew = replace(worker, resources=Resources(num_cpus=0.01, agents_per_host=2, most_hosts=3))
    plan = Plan(tasks=tuple(Task(id=f"t{n}", role="worker", input={"name": f"t{n}", "path": str(path), "seconds": 1.5}) for n in range(18)))

    def pool() -> int:
        return sum("callboard-host-pool-" in name for name in ours())

    async def run() -> Any:
        await DeploymentRuntime(address, store, 1, quiet=1.0).open(dict)
        async with Board(address=address, store=store) as board:
            return await (await board.start(Team("crew", [crew], planner=plan))).result()

    result = asyncio.run(run())
    assert result.status is Status.DONE
    assert Counter(marks(path)) == {f"t{n}": 1 for n in range(18)}
    assert len({line.split()[1] for line in path.read_text().splitlines()}) == 3
    until = time.monotonic() + 20
    while pool():
        assert time.monotonic() < until, ours()
        time.sleep(0.1)
    assert ours()


def test_a_killed_coordinator_carries_its_run_on_with_no_driver_there(address: str, store: str, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    arguments = with_its_driver_killed(address, store, path)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::Coord") or "Coordinator" in " ".join(process.cmdline()[:1]):
            process.kill()
    assert len(marks(path)) < 8
    wait_for(lambda: len(marks(path)) == 8)
    result = json.loads(command(*arguments).communicate(timeout=60)[0])
    assert result["status"] == "done"
    assert Counter(marks(path)) == {f"m{n}": 1 for n in range(8)}
    with closing(open_journal(store)) as journal:
        assert {task.attempt for task in replay(journal, "mine").tasks.values()} == {1}
        assert [entry.tag for entry in journal.read("mine")].count("RunResumed") == 1


def test_runs_are_spread_over_coordinators_which_end_together(address: str, store: str) -> None:
    async def run(names: Sequence[str]) -> list[Any]:
        await DeploymentRuntime(address, store, 1, coordinators=2, idle=2.0).open(dict)
        async with Board(address=address, store=store) as board:
            handles = [await board.start(Team("one", [doubler]), number, run_id=name) for number, name in enumerate(names)]
            return [(await handle.result()).output for handle in handles]

    names = [f"run-{n}" for n in range(6)]
    assert {ids.share(name, 2) for name in names} == {0, 1}
    assert asyncio.run(run(names)) == [0, 2, 4, 6, 8, 10]
    with closing(open_journal(store)) as journal:
        assert {row.owner.partition("/")[0]: ids.share(row.run, 2) for row in journal.runs()} == {
            f"callboard-coordinator-{n}-deployment": n for n in (0, 1)
        }
    hosts = {name for name in ours() if "host" in name}
    assert hosts == {"callboard-host-shared#0-deployment", "callboard-host-shared#1.0-deployment"}
    with pytest.raises(BadInput, match="has 2 coordinators and not 3"):
        asyncio.run(DeploymentRuntime(address, store, 1, coordinators=3).open(dict))
    wait_for(lambda: not ours())


def test_a_deployment_that_nobody_uses_ends_itself(address: str, store: str) -> None:
    async def deploy() -> None:
        runtime = DeploymentRuntime(address, store, 1, idle=1.0)
        await runtime.open(dict)
        assert ours()

    asyncio.run(deploy())
    until = time.monotonic() + 20
    while ours():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_another_schema_or_another_journal_is_refused(address: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def join(store: str) -> None:
        await DeploymentRuntime(address, store, 1).open(dict)

    asyncio.run(join(store))
    with pytest.raises(BadInput, match="keeps its journal in"):
        asyncio.run(join(str(tmp_path / "other.db")))
    monkeypatch.setattr(deployment, "SCHEMA", 99)
    with pytest.raises(BadInput, match="speaks schema 3 and this callboard schema 99"):
        asyncio.run(join(store))
    with pytest.raises(BadInput, match="outlives this process"):
        asyncio.run(join("memory:"))


def test_labelled_roles_run_on_their_node_be_it_there_or_to_come_and_a_missing_address_is_told(tmp_path: Path, store: str) -> None:
    from ray.cluster_utils import Cluster

    file = tmp_path / "placed.py"
    file.write_text(
        "import ray\n"
        "from agents import role\n"
        "from orchestrator import Team\n"
        "from protocols.plan import Plan, Task\n"
        "from protocols.team import Resources\n"
        "def here() -> str:\n"
        "    return ray.get_runtime_context().get_node_id()\n"
        "@role(resources=Resources(labels={'tier': 'gold'}))\n"
        "async def gold(n: int) -> str:\n"
        "    return here()\n"
        "@role(resources=Resources(labels={'tier': 'none'}, fallback_labels=({'tier': 'gold'},)))\n"
        "async def fallen(n: int) -> str:\n"
        "    return here()\n"
        "@role(resources=Resources(labels={'tier': 'late'}, await_nodes=True))\n"
        "async def late(n: int) -> str:\n"
        "    return here()\n"
        "team = Team('placed', [gold, fallen, late], planner=Plan(tasks=tuple(\n"
        "    Task(id=f'{name}{n}', role=name, input=n) for name in ('gold', 'fallen', 'late') for n in range(3))))\n"
    )
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        labelled = nodes.add_node(num_cpus=1, labels={"tier": "gold"})
        arguments = ("run", str(file), "--address", nodes.address, "--store", store, "--hosts", "1", "--json", "--quiet")
        driver = command(*arguments)
        with closing(open_journal(store)) as journal:
            wait_for(lambda: sum(entry.tag == "TaskEnded" for row in journal.runs() for entry in journal.read(row.run)) == 6)
        late = nodes.add_node(num_cpus=1, labels={"tier": "late"})
        out, said = driver.communicate(timeout=120)
        assert json.loads(out)["status"] == Status.DONE, said
        assert json.loads(out)["output"] == [labelled.node_id] * 6 + [late.node_id] * 3
    finally:
        nodes.shutdown()
    out, said = command("run", str(file), "--address", "127.0.0.1:9", "--store", store).communicate(timeout=120)
    assert "no Ray cluster could be joined at 127.0.0.1:9" in said
    assert "Traceback" not in said
