"""The registry: from a model's id, ``provider:name``, to a model."""

import importlib
import os
from collections.abc import Callable
from typing import Any

from agents.models.port import Model
from protocols.failures import BadInput

KNOWN = "embedded, embedded:ID, embedded:PATH.gguf, openai:NAME, or python:MODULE:ATTRIBUTE"


def resolve(model_id: str, *, connect: Any = None) -> Model:
    """The model that ``model_id`` names. Making it is quick: nothing is fetched, loaded or connected before its first call.

    - ``embedded`` or ``embedded:ID`` is a model of the catalogue, ``embedded:PATH`` any GGUF file; ``connect`` reaches its server.
    - ``openai:NAME`` is an OpenAI-compatible endpoint: ``OPENAI_BASE_URL`` (default OpenAI's own) with ``OPENAI_API_KEY``.
    - ``python:MODULE:ATTRIBUTE`` is a ``Model`` of your own, or a function that makes one.

    Raises ``BadInput`` for any other id, or a key that is missing.
    """
    provider, _, name = model_id.partition(":")
    if provider == "embedded":
        return _embedded(name, connect)
    if provider == "openai" and name:
        return _openai(name)
    if provider == "python" and name:
        return _own(model_id, name)
    if provider == "scripted":
        raise BadInput(f"model {model_id!r} has no script; give the role a ScriptedModel object instead of an id")
    raise BadInput(f"there is no model {model_id!r}; there are: {KNOWN}")


def _embedded(name: str, connect: Any) -> Model:
    from agents.models.embedded import EmbeddedModel

    make: Callable[..., Model] = EmbeddedModel
    return make(name, connect=connect) if name else make(connect=connect)


def _openai(name: str) -> Model:
    from agents.models.http import OPENAI_URL, HttpModel

    base_url = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    if base_url.rstrip("/") == OPENAI_URL and not os.environ.get("OPENAI_API_KEY"):
        raise BadInput(f"model openai:{name} needs a key; set OPENAI_API_KEY, or OPENAI_BASE_URL to a server that needs none")
    return HttpModel(base_url, name, provider="openai", api_key_env="OPENAI_API_KEY")


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
