"""The Grafana board: every query names what there is, every metric is on it, and the command writes it where Ray looks."""

import json
import re
import subprocess
import sys
from pathlib import Path

from orchestrator.observe.grafana import FILE, PANELS, board
from orchestrator.observe.metrics import METRICS

SERIES = {metric.series: metric for metric in METRICS}


def test_every_query_names_metrics_and_labels_that_exist() -> None:
    for panel in PANELS:
        query = panel.query.expression
        for name, matchers in re.findall(r"(ray_\w+)(?:\{(.*?)\})?", query):
            labels = {*SERIES[name].labels, *(("le",) if SERIES[name].buckets else ())}
            grouped = {label for by in re.findall(r"by \((.*?)\)", query) for label in by.split(", ")}
            assert grouped <= labels, f"{panel.title}: {query}"
            assert set(re.findall(r"(\w+)=", matchers)) <= labels, f"{panel.title}: {query}"
        assert set(panel.query.by) <= grouped


def test_every_metric_is_on_the_board() -> None:
    queries = " ".join(panel.query.expression for panel in PANELS)
    assert set(re.findall(r"ray_\w+", queries)) == set(SERIES)


def test_panels_fill_the_board_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def command(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "orchestrator.cli", *arguments], capture_output=True, text=True, env=env)


def test_the_command_writes_the_board_where_ray_is_told_to_look(tmp_path: Path) -> None:
    done = command("grafana", "--json", RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR=str(tmp_path / "boards"))
    path = Path(json.loads(done.stdout)["path"])
    assert path == tmp_path / "boards" / FILE
    assert json.loads(path.read_text()) == board()


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments, said in (((), "callboard grafana DIR"), ((str(tmp_path / "file" / "x"),), "name a folder that can be written")):
        done = command("grafana", *arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
