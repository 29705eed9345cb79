"""Logs: structlog through the standard library's loggers under ``callboard``, silent until ``to_json_lines`` or a user sets a handler."""

import json
import logging
import sys
from typing import Any

import structlog

ROOT = "callboard"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

logging.getLogger(ROOT).addHandler(logging.NullHandler())


def get_logger(name: str) -> Any:
    """A structlog logger named ``callboard.<name>``; what contextvars bind (run, task, role) is on every line."""
    return structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{name}"),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class _JsonLines(logging.Formatter):
    def __init__(self, ids: dict[str, str]) -> None:
        super().__init__()
        self._ids = ids

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        # What tells most comes first: the dashboard shows the beginning of long lines.
        return json.dumps(line | extra | {"logger": record.name} | self._ids, default=str)


def to_json_lines(ids: dict[str, str], level: int = logging.INFO) -> None:
    """Write this process's lines to standard error as JSON, with ``ids`` (Ray's job, node, worker and actor) on every line."""
    root = logging.getLogger(ROOT)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(ids))
    root.handlers = [handler]
    root.setLevel(level)
    root.propagate = False
