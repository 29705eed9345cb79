"""Recordings: the model calls of a run that is over, taken from its journal, to play a team's models again."""

from collections import defaultdict
from typing import TYPE_CHECKING

from agents.models.recorded import PROVIDER, RecordedModel
from protocols import codec
from protocols.failures import BadInput
from protocols.messages import ModelCalled, RunRequested, TasksAdded

if TYPE_CHECKING:
    from agents.models.port import Model
    from agents.role import Role
    from orchestrator.journal.port import Journal
    from orchestrator.team import Team

_TOLD = {kind.__name__ for kind in (RunRequested, TasksAdded, ModelCalled)}


def recorded_run(model: object) -> str | None:
    """The run that the model id ``recorded:RUN`` names; ``None`` for any other model."""
    if not isinstance(model, str) or not model.startswith(f"{PROVIDER}:"):
        return None
    return model.removeprefix(f"{PROVIDER}:")


def replaying(team: "Team", run: str, journal: "Journal") -> "Team":
    """``team`` with every model played by what it answered in ``run``.

    Only models are: tools run. Raises ``BadInput`` when the run is not in the journal, asked no model, or a role's model of then is
    not known here.
    """
    roles: dict[str, str] = {}
    calls: dict[str, list[ModelCalled]] = defaultdict(list)
    found = False
    for entry in journal.read(run):
        found = True
        if entry.tag not in _TOLD:
            continue
        message = codec.unpack(entry.body)
        if isinstance(message, TasksAdded):
            roles |= {task.id: task.role for task in message.tasks}
        elif isinstance(message, ModelCalled):
            calls[roles[message.task]].append(message)
    if not found:
        raise BadInput(f"there is no run {run!r} in this journal; `callboard runs` lists those there are")
    if not calls:
        raise BadInput(f"run {run!r} asked no model, so there is nothing to play again; choose another run")

    def played(name: str, role: "Role") -> "Model":
        made = calls[name]
        return RecordedModel(run, name, _original(role, made[0].model if made else None, run), made)

    return team.with_models(played)


def _original(role: "Role", then: str | None, run: str) -> "Model":
    """The model that ``role`` had ``then``, for its profile, price and worst case; it is not called."""
    from agents.models.registry import resolve

    own = role.model
    assert own is not None
    if then is None:
        return resolve(own) if isinstance(own, str) else own
    if not isinstance(own, str) and own.id == then:
        return own
    try:
        return resolve(then)
    except BadInput:
        raise BadInput(f"role {role.name!r} had the model {then} in run {run!r}; give it that model again to play the run") from None
