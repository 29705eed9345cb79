"""Metrics: what the meter counts against what really became of runs, and what Prometheus would scrape from Ray."""

import asyncio
import re
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import HttpModel, Role
from orchestrator import Board, Team, reducer
from orchestrator.journal.port import Journal
from orchestrator.observe import metrics
from orchestrator.observe.meter import MOST_VALUES, OTHER, Meter
from orchestrator.observe.metrics import METRICS, Kind, Metric, table
from orchestrator.reducer.state import Phase
from orchestrator.throttle import LONGEST_PAUSE, START, STRAIGHT_FAILURES, Throttle
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.chat import ToolCall
from protocols.envelope import Envelope
from protocols.plan import Plan, Task
from tests.cluster.cast import Job, worker
from tests.conftest import Endpoint, said
from tests.orchestrator.simulation import fan, fetch, random_run, request

DOCS = Path(__file__).parents[3] / "docs"


def totals(meter: Meter) -> dict[Metric, Counter[tuple[str, ...]]]:
    """What was counted, by metric and labels; a histogram's buckets added up."""
    found: dict[Metric, Counter[tuple[str, ...]]] = {metric: Counter() for metric in METRICS}
    for (metric, labels, _), value in meter.take().items():
        assert len(labels) == len(metric.labels)
        found[metric][labels] += value  # type: ignore[assignment]
    return found


def metered(entries: list[Envelope]) -> Meter:
    """A meter that has heard these entries, each before it was folded."""
    meter = Meter()
    first = entries[0].body
    assert isinstance(first, m.RunRequested)
    state = reducer.begin(entries[0].run, entries[0].at, first)
    for entry in entries:
        meter.hear(state, entry.body)
        state, _ = reducer.step(state, entry, fetch)
    meter.commit()
    return meter


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 12), trouble=st.floats(0, 0.8), calls=st.none() | st.integers(0, 30))
def test_what_is_counted_is_what_became_of_the_tasks(seed: int, size: int, trouble: float, calls: int | None) -> None:
    sim = random_run(seed, request(fan(size), budget=Limits(model_calls=calls)), trouble)
    found = totals(metered(sim.entries))
    tasks = sim.state.tasks.values()
    done = sum(task.phase is Phase.DONE for task in tasks)
    failures = [task.failure for task in tasks if task.failure]
    failed = Counter(("worker", one.verdict.value, one.severity.value, str(one.retryable).lower()) for one in failures)
    called = [one for one in sim.said if isinstance(one, m.ModelCalled)]

    assert found[metrics.TASKS]["worker", "done"] == found[metrics.ATTEMPTS]["worker", "done"] == done
    assert found[metrics.TASKS]["worker", "failed"] == failed.total()
    assert found[metrics.VERDICTS] == failed
    assert found[metrics.ATTEMPTS]["worker", "lost"] >= sum(task.losses for task in tasks), "losses are forgotten when work goes on"
    assert found[metrics.ATTEMPTS].total() == sum(isinstance(one, m.Dispatched) and len(one.items) for one in sim.said)
    assert found[metrics.MODEL_CALLS].total() == found[metrics.MODEL_DURATION].total() == len(called)
    assert found[metrics.TOKENS].total() == sum(one.usage.tokens for one in called)
    assert found[metrics.MICROS].total() == sum(one.usage.micros for one in called)
    assert found[metrics.RUNS] == {(sim.state.status.value,): 1}


def test_a_run_in_which_everything_happens_is_counted_to_the_last_call(journal: Journal, everything: object) -> None:
    row = journal.runs()[0]
    found = totals(metered([Envelope(row.run, one.seq, one.at, codec.unpack(one.body)) for one in journal.read(row.run)]))
    assert found[metrics.RUNS] == {("partial",): 1}
    assert found[metrics.TASKS] == {
        ("planner", "done"): 1, ("reader", "done"): 2, ("clerk", "done"): 1, ("clerk", "failed"): 2, ("merge", "done"): 1,
    }  # fmt: skip
    assert found[metrics.ATTEMPTS]["reader", "lost"] == 2
    assert found[metrics.VERDICTS] == {("clerk", "code_error", "error", "false"): 1, ("clerk", "dependency", "notice", "false"): 1}
    assert found[metrics.TOOL_CALLS] == {("reader", "read_file", "done"): 1, ("reader", OTHER, "refused"): 1}
    assert found[metrics.MODEL_SECONDS]["reader", "scripted:careful"] == pytest.approx(4 * 0.25)
    assert found[metrics.TOOL_SECONDS]["reader", "read_file"] == pytest.approx(0.04)


def test_what_providers_allow_is_seen_by_model_and_refusals_count_once() -> None:
    meter, throttle = Meter(), Throttle("m")
    throttle.hear("h", m.CallsReported(link="l", number=1, model="m", waiting=(("r", 20),)), 0.0)
    throttle.decide(0.0)
    throttle.hear("h", m.CallsReported(link="l", number=2, model="m", waiting=(("r", 4),), back=(("r", 6),), refused=(0,) * 6), 0.0)
    stands = {metric: value for (metric, labels), value in meter.levels((), [throttle], 0.0).items() if labels == ("m",)}
    assert stands == {metrics.WINDOW: 10, metrics.UNDER_WAY: 10, metrics.WAITING: 4, metrics.CIRCUIT: 0}
    meter.levels((), [throttle], 0.0)
    assert totals(meter)[metrics.REFUSALS] == {("m",): 6}
    throttle.hear("h", m.CallsReported(link="l", number=3, model="m", failed=STRAIGHT_FAILURES), 0.0)
    assert [meter.levels((), [throttle], now)[metrics.CIRCUIT, ("m",)] for now in (0.5, LONGEST_PAUSE)] == [2, 1]


def test_labels_do_not_grow_with_what_models_and_teams_make_up() -> None:
    state = reducer.begin("run-1", 0, request(fan(1)))
    state, _ = reducer.step(state, Envelope("run-1", 1, 0, m.TasksAdded(tasks=fan(1).tasks)), fetch)
    meter = Meter()
    for number in range(3 * MOST_VALUES):
        call = ToolCall(id="c", name=f"tool-{number}", arguments={})
        meter.hear(state, m.ToolCalled(task="t0", attempt=1, step=number, call=call, ran=number % 3 > 0))
    meter.commit()
    calls = totals(meter)[metrics.TOOL_CALLS]
    assert len({tool for _, tool, _ in calls}) == MOST_VALUES
    assert calls["worker", OTHER, "refused"] == MOST_VALUES
    assert calls["worker", OTHER, "done"] == MOST_VALUES + 1


def test_what_was_not_stored_is_not_counted() -> None:
    state = reducer.begin("run-1", 0, request(fan(1)))
    meter = Meter()
    meter.hear(state, m.RunEnded(status=m.Status.DONE))
    meter.discard()
    meter.commit()
    assert meter.take() == {}


def test_a_metric_that_fails_harms_nobody() -> None:
    state = reducer.begin("run-1", 0, request(fan(1)))
    meter = Meter()
    meter.hear(state, m.TaskClosed(task="nobody", failure={"verdict": "cancelled", "message": "no such task"}))  # type: ignore[arg-type]
    meter.hear(state, m.RunEnded(status=m.Status.DONE))
    meter.commit()
    assert totals(meter)[metrics.RUNS] == {("done",): 1}


def test_the_names_are_ones_that_prometheus_and_ray_take() -> None:
    assert len({metric.series for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"callboard_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total"), "Ray puts it there"
        assert not {"run", "task", "user"} & set(metric.labels)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)


def test_the_page_about_watching_lists_every_metric() -> None:
    assert "\n".join(table()) in (DOCS / "watch.md").read_text()


def scraped(url: str, leave_out: frozenset[str] = frozenset()) -> tuple[dict[str, float], frozenset[str]]:
    """Our series at a node's metrics endpoint: by name and labels of ours, summed over all processes but some; and the processes."""
    ours = {name for metric in METRICS for name in metric.labels}
    found: Counter[str] = Counter()
    processes: set[str] = set()
    with urllib.request.urlopen(url, timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if said := re.fullmatch(r"ray_(callboard_\w+)\{(.*)\} ([\d.e+-]+)", line):
                pairs = re.findall(r'(\w+)="([^"]*)"', said[2])
                process = dict(pairs)["WorkerId"]
                processes.add(process)
                if process in leave_out:
                    continue
                labels = [value for name, value in pairs if name in ours]
                found[" ".join([said[1], *labels])] += float(said[3])  # type: ignore[assignment]
    return found, frozenset(processes)


def test_prometheus_finds_the_numbers_of_a_run_at_the_node(cluster: None, store: str, endpoint: Endpoint) -> None:
    import ray

    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    jobs = [Job(name=f"w{number}", seconds=0.01, fail=number == 0) for number in range(7)]
    tasks = tuple(Task(id=f"w{number}", role="worker", input=job.model_dump()) for number, job in enumerate(jobs))
    refused = [web.json_response({}, status=429)]
    endpoint.answer = lambda request: refused.pop() if refused else said("ok")
    asker = Role("asker", model=HttpModel(endpoint.url, "m"), max_output_tokens=16)
    asking = Task(id="asking", role="asker", input="go")
    team = Team("watched", roles=[worker, asker], planner=Plan(tasks=(*tasks, asking)))

    async def go() -> dict[str, float]:
        _, others = scraped(url)
        async with Board(runtime="ray", store=store, hosts=1) as board:
            result = await (await board.start(team)).result()
            assert result.status is m.Status.PARTIAL
        # What a coordinator has counted is on its way when it is ended; the node's agent takes some seconds to show it.
        for _ in range(60):
            found, _ = scraped(url, others)
            if {"callboard_runs_total partial", "callboard_refusals_total http:m"} <= found.keys():
                break
            await asyncio.sleep(0.5)
        return found

    grown = asyncio.run(go())
    assert grown["callboard_tasks_total done worker"] == 6
    assert grown["callboard_tasks_total failed worker"] == 1
    assert grown["callboard_verdicts_total false worker error code_error"] == 1
    assert grown["callboard_task_duration_seconds_count worker"] == 7
    assert grown["callboard_task_seconds_total worker"] >= 0.07
    assert grown["callboard_refusals_total http:m"] == 1
    assert 1 <= grown["callboard_calls_allowed http:m"] < START
    assert grown["callboard_circuit http:m"] == 0
