"""Who does the work: roles, tools and models, and the loop in which an agent works. No Ray here."""

from typing import TYPE_CHECKING, Any

from agents.at_work import Context
from agents.desk import LocalDesk
from agents.loop import steps
from agents.models.scripted import ScriptedModel, call, say
from agents.role import Role, role
from agents.tool import Tool, tool

if TYPE_CHECKING:
    from agents.models.http import HttpModel
    from agents.models.provider import ProviderModel

__all__ = ["Context", "HttpModel", "LocalDesk", "ProviderModel", "Role", "ScriptedModel", "Tool", "call", "role", "say", "steps", "tool"]


def __getattr__(name: str) -> Any:
    if name == "HttpModel":  # only who uses it pays for it
        from agents.models.http import HttpModel

        return HttpModel
    if name == "ProviderModel":
        from agents.models.provider import ProviderModel

        return ProviderModel
    raise AttributeError(f"module 'agents' has no attribute {name!r}")
