"""List prices: what is reserved by them is never below what is charged, for any model of the data."""

from decimal import Decimal
from math import ceil
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic_ai.usage import RequestUsage

from agents.models.pricing import charge, list_price
from agents.models.provider import PROVIDERS
from tests.agents.models.listed import listed

LISTED = [(provider.id, model.id) for provider in get_snapshot().providers if provider.id in PROVIDERS for model in provider.models]
tokens = st.integers(0, 2_000_000)


@given(st.sampled_from(LISTED), tokens, tokens, st.floats(0, 1), st.floats(0, 1))
def test_no_call_costs_more_than_was_reserved(model: tuple[str, str], given_: int, made: int, cached: float, written: float) -> None:
    price = list_price(*model)
    assume(price is not None)
    read = int(given_ * cached)
    write = int((given_ - read) * written)
    usage = RequestUsage(input_tokens=given_, output_tokens=made, cache_read_tokens=read, cache_write_tokens=write)
    cost = charge(*model, usage)
    assert price is not None
    assert cost is None or 0 <= cost <= price.cost(given_, made)
    assert charge(*model, RequestUsage(input_tokens=given_, output_tokens=made)) is not None


def test_tiers_and_cached_tokens_count_in_the_charge() -> None:
    model = listed("anthropic", lambda model, price: isinstance(price.input_mtok, TieredPrices) and price.cache_read_mtok is not None)
    prices: Any = model.prices
    into, read, out = (getattr(one, "base", one) for one in (prices.input_mtok, prices.cache_read_mtok, prices.output_mtok))
    long = 2 * prices.input_mtok.tiers[0].start
    plain = charge("anthropic", model.id, RequestUsage(input_tokens=1_000, output_tokens=100))
    cached = charge("anthropic", model.id, RequestUsage(input_tokens=1_000, output_tokens=100, cache_read_tokens=900))
    tiered = charge("anthropic", model.id, RequestUsage(input_tokens=long))
    assert plain == ceil(1_000 * into + 100 * out)
    assert cached == ceil(100 * into + 900 * read + 100 * out)
    assert tiered is not None
    assert tiered > ceil(long * into)


@pytest.mark.parametrize("name", ["nonesuch", f"{listed('openai').id}-nonesuch"])
def test_a_model_that_nobody_lists_is_unpriced(name: str) -> None:
    assert list_price("openai", name) is None
    assert charge("openai", name, RequestUsage(input_tokens=1)) is None


def test_fractions_of_a_micro_are_rounded_up() -> None:
    model = listed("openai", lambda model, price: isinstance(price.input_mtok, Decimal) and price.input_mtok < 1)
    assert charge("openai", model.id, RequestUsage(input_tokens=1, output_tokens=0)) == 1
