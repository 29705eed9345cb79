"""Who decides, records and shows: teams, boards, and the coordinator that carries their runs."""

from orchestrator.board import Board, RunHandle, RunResult, TaskOutcome
from orchestrator.journal import open_journal
from orchestrator.merge import Merge, best_of, collect, only, reduce, synthesise, vote
from orchestrator.team import Team

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
