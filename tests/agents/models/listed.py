"""Models that a test may name: real ones are the first of the price data that fit, so that no test goes stale with a product."""

from collections.abc import Callable
from functools import cache

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice
from pydantic_ai.profiles.anthropic import anthropic_model_profile

from agents.models.pricing import list_price


def listed(provider: str, fits: Callable[[ModelInfo, ModelPrice], bool] = lambda model, price: True) -> ModelInfo:
    """The first model of ``provider`` that has one price at all times, in and out, and of which ``fits`` holds."""
    models = next(one.models for one in get_snapshot().providers if one.id == provider)
    always = [(model, model.prices) for model in models if isinstance(model.prices, ModelPrice) and list_price(provider, model.id)]
    return next(model for model, price in always if fits(model, price))


@cache
def all_taker(provider: str) -> str:
    """A name for which the provider's library sends all that a request has; Anthropic's leaves out what it knows a model can't have."""
    if provider != "anthropic":
        return "model-x"

    def takes_all(model: ModelInfo, price: ModelPrice) -> bool:
        profile = anthropic_model_profile(model.id) or {}
        return bool(profile.get("supports_json_schema_output")) and not profile.get("anthropic_disallows_sampling_settings")

    return listed(provider, takes_all).id
