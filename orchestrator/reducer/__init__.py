"""The reducer: ``(run state, entry) -> (run state, decisions)``. It reads no clock, no randomness and no environment.

What it decides are messages too: the coordinator journals them after the entry that caused them, folds them in here like
any other, and carries them out once they are durable. So replaying a journal is folding its entries and ignoring what is
decided. The state is consumed: ``step`` changes it in place, and the caller keeps no other reference. ``fetch`` reads
content-addressed blobs, which never change, so it does not make the result depend on anything else.
"""

from collections.abc import Callable

from orchestrator.ledger import Ledger
from orchestrator.reducer import allowances, attempts, delegation, fallback, graph, leases, reviews, stages
from orchestrator.reducer.state import Decisions, Fetch, RunState
from protocols import messages as m
from protocols.envelope import Envelope

__all__ = ["Decisions", "Fetch", "RunState", "begin", "step"]


def begin(run: str, at: int, request: m.RunRequested) -> RunState:
    """The state of a run before its first entry."""
    return RunState(run=run, request=request, began=at, ledger=Ledger(request.budget, request.reserve))


def step(state: RunState, entry: Envelope, fetch: Fetch) -> tuple[RunState, Decisions]:
    """Fold one entry in; what it leads to comes back, to be journalled and folded in its turn."""
    state.seq = entry.seq
    handler = _HANDLERS.get(type(entry.body))
    return state, handler(state, entry, fetch) if handler else []


_HANDLERS: dict[type[m.Message], Callable[[RunState, Envelope, Fetch], Decisions]] = {
    m.RunRequested: stages.requested,
    m.CancelRequested: stages.cancel_requested,
    m.PauseRequested: stages.pause_requested,
    m.ContinueRequested: stages.continue_requested,
    m.BudgetChanged: stages.budget_changed,
    m.DeadlinePassed: stages.deadline_passed,
    m.RunEnded: stages.run_ended,
    m.TasksAdded: graph.tasks_added,
    m.Dispatched: attempts.dispatched,
    m.TaskEnded: attempts.task_ended,
    m.TaskClosed: attempts.task_closed,
    m.FellBack: fallback.fell_back,
    m.AttemptsLost: attempts.lost,
    m.RunResumed: attempts.resumed,
    m.ModelCalled: leases.model_called,
    m.ToolIntended: leases.tool_intended,
    m.ToolCalled: leases.tool_called,
    m.ReviewAsked: reviews.review_asked,
    m.ReviewDecided: reviews.review_decided,
    m.LeaseAsked: leases.lease_asked,
    m.LeaseGranted: leases.lease_answered,
    m.LeaseDenied: leases.lease_answered,
    m.AllowanceAsked: allowances.asked,
    m.AllowanceGranted: allowances.granted,
    m.AllowanceDenied: allowances.denied,
    m.SubtasksAsked: delegation.subtasks_asked,
    m.SubtasksEnded: delegation.subtasks_ended,
}
