"""The registry: from a model's id, ``provider:name``, to a model."""

import importlib
from collections.abc import Callable
from typing import Any

from agents.models.port import Model
from agents.models.provider import PROVIDERS, ProviderModel
from protocols.failures import BadInput

KNOWN = "embedded, embedded:ID, embedded:PATH.gguf, openai:NAME, anthropic:NAME, google:NAME, or python:MODULE:ATTRIBUTE"


def resolve(model_id: str, *, connect: Any = None) -> Model:
    """The model that ``model_id`` names. Making it is quick: nothing is fetched, loaded or connected before its first call.

    - ``embedded`` or ``embedded:ID`` is a model of the catalogue, ``embedded:PATH`` any GGUF file; ``connect`` reaches its server.
    - ``openai:NAME``, ``anthropic:NAME`` and ``google:NAME`` are models of these providers, or of a server that speaks their wire (see
      ``agents.models.provider``).
    - ``python:MODULE:ATTRIBUTE`` is a ``Model`` of your own, or a function that makes one.

    Raises ``BadInput`` for any other id. What a model lacks to be called (an extra, a key) is said by its ``missing``.
    """
    provider, _, name = model_id.partition(":")
    if provider == "embedded":
        return _embedded(name, connect)
    if provider in PROVIDERS and name:
        return ProviderModel(model_id)
    if provider == "python" and name:
        return _own(model_id, name)
    if provider == "recorded":
        raise BadInput(f"model {model_id!r} is a whole run's; give it to the run (--model, or model= of start) and not to a role")
    if provider == "scripted":
        raise BadInput(f"model {model_id!r} has no script; give the role a ScriptedModel object instead of an id")
    raise BadInput(f"there is no model {model_id!r}; there are: {KNOWN}")


def _embedded(name: str, connect: Any) -> Model:
    from agents.models.embedded import EmbeddedModel

    make: Callable[..., Model] = EmbeddedModel
    return make(name, connect=connect) if name else make(connect=connect)


def _own(model_id: str, name: str) -> Model:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"model {model_id!r} can't be loaded: {error}; it looks like python:package.module:name") from None
    made = found if isinstance(found, Model) and not isinstance(found, type) else found() if callable(found) else found
    if not isinstance(made, Model):
        raise BadInput(f"model {model_id!r} is a {type(made).__name__} and no model; see agents.models.port.Model for what one has")
    return made
