"""What a host is told of an attempt that starts. Pure."""

from orchestrator.ledger import as_usage
from orchestrator.reducer.state import RunState
from protocols.messages import Assign, Dispatch, Value
from protocols.plan import ref, refs

FAILURE = "$failure"
"""Where a handover's failure stands among the inputs. No task is called so: like every input, it is shown as material."""


def assignment(state: RunState, item: Dispatch, history: tuple[bytes, ...]) -> Assign:
    """The message for one dispatched attempt; ``history`` are the packed steps of those before it."""
    me = state.tasks[item.task]
    names = list(refs(me.task.input)) if isinstance(me.task.input, (dict, list, tuple)) else []
    asked, inputs = me.task.input, {name: state.tasks[name].output for name in names}
    if me.hands and state.request.team.roles[me.task.role].told:
        why = next(one.failure for one in reversed(me.fallen) if one.to.kind == "role")
        asked = {"input": asked, "failure": ref(FAILURE)}
        inputs[FAILURE] = Value(inline=why.model_dump(mode="json"))
    return Assign(
        task=item.task,
        attempt=item.attempt,
        role=me.task.role,
        team=state.request.code.digest if state.request.code else state.run,
        input=asked,
        inputs=inputs,
        lease=item.lease,
        limited=state.limited(me),
        depth=me.depth,
        history=history,
        first=me.first,
        tried=state.tried(me) if state.may_try_again(me) else 0,
        limits=me.task.limits,
        conclude=me.concludes,
        spent=as_usage(me.spent),
        worked=me.worked,
        traceparent=state.request.traceparent,
    )
