"""The exporter: hands what a coordinator's meter counts to Ray's metrics, which the agent of each node shows to Prometheus."""

import asyncio
import time
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from orchestrator.coordinator import Coordinator
from orchestrator.observe.logs import get_logger
from orchestrator.observe.meter import Labels, Levels, Meter
from orchestrator.observe.metrics import Kind, Metric

EXPORT_SECONDS = 1.0

MOST_OBSERVED = 200
"""Durations of one kind that one export hands over; of more, a sample. Each costs two microseconds here and more in the node's agent,
and quantiles do not need them all."""

log = get_logger("exporter")


def export(coordinator: Coordinator) -> "asyncio.Task[None]":
    """Have the coordinator counted, and the numbers exported for as long as the task that is returned lives."""
    exporter = _Exporter(coordinator)
    return asyncio.create_task(exporter.run(), name="metrics")


class _Exporter:
    def __init__(self, coordinator: Coordinator) -> None:
        self._instruments: dict[Metric, Any] = {}
        self._shown: Levels = {}
        self._coordinator = coordinator
        self._meter = Meter(urgent=self._publish_soon)
        coordinator.count(self._meter)
        self._broken = False

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EXPORT_SECONDS)
            self._publish()

    def _publish_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        try:
            self._publish_levels()
            self._publish_counts()
        except Exception:
            if not self._broken:
                self._broken = True
                log.exception("metrics could not be exported; runs are not affected, and this is not said again")

    def _publish_counts(self) -> None:
        counts = self._meter.take()
        observed: dict[tuple[Metric, Labels], float] = {}
        for (metric, labels, _), value in counts.items():
            if metric.kind is Kind.HISTOGRAM:
                observed[metric, labels] = observed.get((metric, labels), 0) + value
            else:
                self._instrument(metric).inc(value, _tags(metric, labels))
        for (metric, labels, bucket), value in counts.items():
            if metric.kind is Kind.HISTOGRAM:
                share = min(1.0, MOST_OBSERVED / observed[metric, labels])
                middle, tags = _middle(metric, bucket), _tags(metric, labels)
                for _ in range(max(1, round(value * share))):
                    self._instrument(metric).observe(middle, tags)

    def _publish_levels(self) -> None:
        levels = self._meter.levels(self._coordinator.states(), self._coordinator.turnstile.throttles, time.monotonic())
        for (metric, labels), value in (dict.fromkeys(self._shown, 0) | levels).items():
            self._instrument(metric).set(value, _tags(metric, labels))
        self._shown = levels

    def _instrument(self, metric: Metric) -> Any:
        found = self._instruments.get(metric)
        if found is None:
            if metric.kind is Kind.HISTOGRAM:
                found = Histogram(metric.name, metric.about, list(metric.buckets), metric.labels)
            else:
                found = (Counter if metric.kind is Kind.COUNTER else Gauge)(metric.name, metric.about, metric.labels)
            self._instruments[metric] = found
        return found


def _tags(metric: Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))


def _middle(metric: Metric, bucket: int) -> float:
    """Some duration of this bucket: Ray keeps the bucket only."""
    bounds = (0.0, *metric.buckets, metric.buckets[-1] * 2)
    return (bounds[bucket] + bounds[bucket + 1]) / 2
