"""Who decides, records and shows: teams, boards, and the coordinator that carries their runs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.board import Board, RunHandle, RunResult
    from orchestrator.journal import open_journal
    from orchestrator.merge import Merge, best_of, collect, only, reduce, synthesise, vote
    from orchestrator.outcomes import TaskOutcome
    from orchestrator.team import Team

_HOME = {
    "Board": "board",
    "Merge": "merge",
    "RunHandle": "board",
    "RunResult": "board",
    "TaskOutcome": "outcomes",
    "Team": "team",
    "best_of": "merge",
    "collect": "merge",
    "only": "merge",
    "open_journal": "journal",
    "reduce": "merge",
    "synthesise": "merge",
    "vote": "merge",
}

__all__ = [
    "Board",
    "Merge",
    "RunHandle",
    "RunResult",
    "TaskOutcome",
    "Team",
    "best_of",
    "collect",
    "only",
    "open_journal",
    "reduce",
    "synthesise",
    "vote",
]


def __getattr__(name: str) -> Any:
    """Each name is loaded when it is first used, so that a command that only reads a journal starts at once."""
    if name in _HOME:
        return getattr(import_module(f"orchestrator.{_HOME[name]}"), name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
