"""A coordinator whose journal is a server of its own comes back on another node when its node is lost."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from ray.cluster_utils import Cluster

from orchestrator.journal import open_journal
from tests.cluster.cast import marks
from tests.cluster.test_deployment import MARKING, command, wait_for
from tests.orchestrator.journal.conftest import postgres as postgres
from tests.orchestrator.journal.server import Server

ROOT = Path(__file__).parents[2]
STEPS = 18
"""Half a second each: Ray takes some seconds to notice that a node is gone."""

PLACED = """
import sys
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from orchestrator.actors import Settings, make_coordinator
from orchestrator.deployment import TOKEN

address, node, store = sys.argv[1:]
ray.init(address=address, namespace="callboard", log_to_driver=False)
where = NodeAffinitySchedulingStrategy(node, soft=True)
for _ in range(10):  # Ray may put it elsewhere all the same
    coordinator = make_coordinator(0, Settings(token=TOKEN, store=store, hosts=2), lifetime="detached", scheduling_strategy=where)
    ray.get(coordinator.start.remote())
    if ray.get(coordinator.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())) == node:
        break
    ray.kill(coordinator, no_restart=True)
"""


def test_a_coordinator_whose_node_is_lost_goes_on_with_its_runs_on_another(postgres: Server, tmp_path: Path) -> None:
    path, file, store = tmp_path / "marks", tmp_path / "marking.py", postgres.database()
    file.write_text(MARKING.format(path=str(path)).replace("range(8)", f"range({STEPS})"))
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        worker = nodes.add_node(num_cpus=1)
        subprocess.run([sys.executable, "-c", PLACED, nodes.address, worker.node_id, store], cwd=ROOT, check=True, timeout=120)
        driver = command("run", str(file), "--address", nodes.address, "--store", store, "--run-id", "mine", "--json", "--quiet")
        wait_for(lambda: len(marks(path)) >= 2)
        nodes.remove_node(worker, allow_graceful=False)
        lost = time.monotonic()
        out, said = driver.communicate(timeout=120)
        print(f"{time.monotonic() - lost:.1f} s from the node's end to the run's")
        assert json.loads(out)["status"] == "done", said
    finally:
        nodes.shutdown()
    made = Counter(marks(path))
    assert set(made) == {f"m{n}" for n in range(STEPS)}
    assert sum(made.values()) <= STEPS + 1  # at most the one that the lost node had at work is made again
    journal = open_journal(store)
    assert [entry.tag for entry in journal.read("mine")].count("RunResumed") == 1
    journal.close()
