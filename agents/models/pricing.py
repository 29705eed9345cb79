"""List prices of providers, from the data of ``genai-prices``: the worst case of a call ahead, and its charge afterwards.

The data comes with the extras of the providers and is loaded when a price is first asked for (about 0.2 s). Money is in integer
micro-units throughout: decimals are converted exactly and rounded up.
"""

from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from functools import cache
from typing import TYPE_CHECKING

from protocols.budget import MICROS_PER_UNIT
from protocols.chat import Price

if TYPE_CHECKING:
    from genai_prices.types import AbstractUsage, ModelInfo, ModelPrice, Provider

_INPUT = ("input_mtok", "cache_read_mtok", "cache_write_mtok")  # nobody here asks for caches that last an hour


def list_price(provider: str, name: str) -> Price | None:
    """The most that a token of this model can cost: of its tiers and of plain, cached and cache-writing input the dearest.

    ``None`` (*unpriced*) where the data has no such model, or no price for both directions.
    """
    found = _found(provider, name)
    if found is None:
        return None
    possible = _possible(found[1])
    into = [_dearest(one, key) for one in possible for key in _INPUT]
    out = [_dearest(one, "output_mtok") for one in possible]
    if not all(one.__dict__.get("input_mtok") is not None and one.__dict__.get("output_mtok") is not None for one in possible):
        return None
    return Price(input_micros=max(into), output_micros=max(out))


def context_tokens(provider: str, name: str) -> int | None:
    """The input tokens that this model takes, where the data says so."""
    found = _found(provider, name)
    return found[1].context_window if found else None


def charge(provider: str, name: str, usage: "AbstractUsage") -> int | None:
    """Micro-units that a call costs by the list, at the tier and with the cached tokens that it had; ``None`` where it does not say."""
    found = _found(provider, name)
    if found is None:
        return None
    try:
        priced = found[1].calc_price(usage, found[0], genai_request_timestamp=datetime.now(UTC))
    except ValueError:  # it has no price for a kind of tokens that were used
        return None
    return _micros(priced.total_price)


@cache
def _found(provider: str, name: str) -> "tuple[Provider, ModelInfo] | None":
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    try:
        return get_snapshot().find_provider_model(name, None, provider, None)
    except LookupError:
        return None


def _possible(model: "ModelInfo") -> "list[ModelPrice]":
    """The prices that can apply from now on; a later entry of the data takes precedence over those before it."""
    if not isinstance(model.prices, list):
        return [model.prices]
    from genai_prices.types import StartDateConstraint

    possible = []
    for one in reversed(model.prices):
        possible.append(one.prices)
        lasting = one.constraint is None or isinstance(one.constraint, StartDateConstraint)
        if lasting and (one.constraint is None or one.constraint.active(datetime.now(UTC))):
            break
    return possible


def _dearest(price: "ModelPrice", key: str) -> int:
    """Micro-units for a million tokens, at the dearest tier."""
    listed = price.__dict__.get(key)
    if listed is None:
        return 0
    tiers = [listed] if isinstance(listed, Decimal) else [listed.base, *(tier.price for tier in listed.tiers)]
    return max(map(_micros, tiers))


def _micros(amount: Decimal) -> int:
    return int((amount * MICROS_PER_UNIT).to_integral_value(ROUND_CEILING))
