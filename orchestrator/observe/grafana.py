"""The Grafana board of a cluster that carries callboard's runs, made from the metrics there are."""

from typing import Any, NamedTuple

from orchestrator.observe import metrics
from orchestrator.observe.metrics import Metric

FILE = "callboard_grafana_dashboard.json"
"""The board's name in the folder that Ray gives to Grafana; Ray's own boards end in the same words."""

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 8


class Query(NamedTuple):
    """One PromQL expression, and the labels that its lines are told apart by."""

    expression: str
    by: tuple[str, ...]


class Panel(NamedTuple):
    """One graph. ``unit`` is Grafana's name of it."""

    title: str
    about: str
    unit: str
    query: Query
    stacked: bool = False


def _selected(metric: Metric, more: str = "") -> str:
    """The metric's series of the roles that are chosen on the board."""
    wanted = ", ".join(filter(None, ['role=~"$role"' if "role" in metric.labels else "", more]))
    return f"{metric.series}{{{wanted}}}" if wanted else metric.series


def _sum(inner: str, by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"


def _rate(metric: Metric, by: tuple[str, ...], more: str = "") -> str:
    return _sum(f"rate({_selected(metric, more)}[$__rate_interval])", by)


def now(metric: Metric, *by: str) -> Query:
    """Where a gauge stands, or how far a counter has come, over all coordinators."""
    return Query(_sum(_selected(metric), by), by)


def highest(metric: Metric, *by: str) -> Query:
    """Where a gauge stands at the coordinator where it is highest."""
    return Query(f"max by ({', '.join(by)}) ({_selected(metric)})", by)


def rate(metric: Metric, *by: str) -> Query:
    """How much a counter grows in a second."""
    return Query(_rate(metric, by), by)


def average(seconds: Metric, calls: Metric, *by: str) -> Query:
    """Seconds a call, without those that took none: lost with their host, or refused."""
    ended = 'outcome=~"done|failed"'
    recent = f"{_rate(seconds, by)} / {_rate(calls, by, ended)}"
    return Query(_recently(recent, f"{_sum(_selected(seconds), by)} / {_sum(_selected(calls, ended), by)}"), by)


def most(metric: Metric, *by: str) -> Query:
    """The duration that 95 of 100 stay below."""
    recent, ever = _rate(metric, (*by, "le")), _sum(_selected(metric), (*by, "le"))
    return Query(_recently(f"histogram_quantile(0.95, {recent})", f"histogram_quantile(0.95, {ever})"), by)


def _recently(recent: str, ever: str) -> str:
    """What ``recent`` says, else ``ever``: what a new series begins with is no growth to Prometheus, and a short run is nothing more."""
    return f"({recent} >= 0) or ({ever})"


def money(metric: Metric, *by: str) -> Query:
    """Millionths of a currency unit as whole ones, so far."""
    return Query(f"{now(metric, *by).expression} / 1e6", by)


PANELS = (
    Panel("Agents at work", "By role; those that wait for tasks they delegated are left out.", "short", now(metrics.AGENTS, "role"), True),
    Panel("Tasks ready", "A queue that does not shrink: more hosts, or a higher concurrency.", "short", now(metrics.READY, "role"), True),
    Panel("Runs at work", "Runs that have not ended.", "short", now(metrics.RUNS_AT_WORK)),
    Panel("Attempts, average", "The slow role stands out here.", "s", average(metrics.TASK_SECONDS, metrics.ATTEMPTS, "role")),
    Panel("Attempts, 95 %", "What 95 of 100 attempts stay below.", "s", most(metrics.TASK_DURATION, "role")),
    Panel("Tasks ended", "A second, by role and outcome.", "ops", rate(metrics.TASKS, "role", "outcome"), True),
    Panel("Model calls, average", "By role and model.", "s", average(metrics.MODEL_SECONDS, metrics.MODEL_CALLS, "role", "model")),
    Panel("Model calls, 95 %", "What 95 of 100 model calls stay below.", "s", most(metrics.MODEL_DURATION, "role", "model")),
    Panel("Model calls", "A second, by model and outcome.", "ops", rate(metrics.MODEL_CALLS, "model", "outcome"), True),
    Panel("Calls allowed", "At once, by model: as declared, or as far as it is known.", "short", now(metrics.WINDOW, "model")),
    Panel("Calls under way", "By model, of those that have a turn.", "short", now(metrics.UNDER_WAY, "model"), True),
    Panel("Calls waiting", "For a turn, by model: its provider is what slows the work down.", "short", now(metrics.WAITING, "model"), True),
    Panel("Refusals", "A second, by model: its provider had no room.", "ops", rate(metrics.REFUSALS, "model"), True),
    Panel("Circuits", "By model: 0 asked as usual, 1 by one call that probes, 2 not at all.", "short", highest(metrics.CIRCUIT, "model")),
    Panel("Tools, average", "By tool.", "s", average(metrics.TOOL_SECONDS, metrics.TOOL_CALLS, "tool")),
    Panel("Tools, 95 %", "What 95 of 100 calls of a tool stay below.", "s", most(metrics.TOOL_DURATION, "tool")),
    Panel("Tool calls", "A second, by tool and outcome.", "ops", rate(metrics.TOOL_CALLS, "tool", "outcome"), True),
    Panel("Tokens", "A second, by role and kind.", "short", rate(metrics.TOKENS, "role", "kind"), True),
    Panel("Money spent", "Since the nodes started, by role and model.", "currencyUSD", money(metrics.MICROS, "role", "model"), True),
    Panel("Budget left", "Of the runs at work: neither used nor reserved.", "short", now(metrics.BUDGET_LEFT, "dimension")),
    Panel("Waiting for a person", "`callboard reviews` lists what somebody has to decide.", "short", now(metrics.IN_REVIEW)),
    Panel("Why tasks failed", "Since the nodes started, by role and verdict.", "short", now(metrics.VERDICTS, "role", "verdict"), True),
    Panel("Fallbacks", "Tasks that went to the fallback of a role.", "short", now(metrics.FALLBACKS, "role", "verdict"), True),
    Panel("Attempts ended", "A second, by outcome: failed ones may be tried again.", "ops", rate(metrics.ATTEMPTS, "outcome"), True),
    Panel("Runs ended", "Since the nodes started, by status.", "short", now(metrics.RUNS, "status"), True),
)


def board() -> dict[str, Any]:
    """The board as Grafana reads it."""
    return {
        "uid": "callboard",
        "title": "Callboard",
        "tags": ["callboard"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_DATASOURCE, _ROLE]},
        "panels": [_drawn(number, panel) for number, panel in enumerate(PANELS)],
    }


_DATASOURCE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}
_ROLES = f"label_values({metrics.ATTEMPTS.series}, role)"
_ROLE = {
    "name": "role",
    "label": "Role",
    "type": "query",
    "datasource": _SOURCE,
    "definition": _ROLES,
    "query": {"query": _ROLES, "refId": "roles"},
    "refresh": 2,
    "sort": 1,
    "multi": True,
    "includeAll": True,
    "allValue": ".*",
    "current": {"text": ["All"], "value": ["$__all"]},
}


def _drawn(number: int, panel: Panel) -> dict[str, Any]:
    line, column = divmod(number * _WIDTH, _COLUMNS)
    style = {"fillOpacity": 30 if panel.stacked else 0, "stacking": {"mode": "normal" if panel.stacked else "none"}, "showPoints": "never"}
    legend = " ".join(f"{{{{{name}}}}}" for name in panel.query.by) or panel.title
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": column, "y": line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": style}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [{"refId": "A", "datasource": _SOURCE, "expr": panel.query.expression, "legendFormat": legend}],
    }
