"""List prices: what is reserved by them is never below what is charged, for any model of the data."""

from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic_ai.usage import RequestUsage

from agents.models.pricing import charge, list_price
from agents.models.provider import PROVIDERS

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
    price = list_price("anthropic", "claude-sonnet-4-5")
    assert price is not None
    small = charge("anthropic", "claude-sonnet-4-5", RequestUsage(input_tokens=1_000, output_tokens=100))
    cached = charge("anthropic", "claude-sonnet-4-5", RequestUsage(input_tokens=1_000, output_tokens=100, cache_read_tokens=900))
    assert (small, cached) == (3_000 + 1_500, 300 + 270 + 1_500)
    assert price.input_micros > 3_000_000


@pytest.mark.parametrize("name", ["nonesuch", "gpt-5-mini-nonesuch", "gpt-4o-transcribe-nonesuch"])
def test_a_model_that_nobody_lists_is_unpriced(name: str) -> None:
    assert list_price("openai", name) is None
    assert charge("openai", name, RequestUsage(input_tokens=1)) is None


def test_fractions_of_a_micro_are_rounded_up() -> None:
    found = get_snapshot().find_provider_model("gpt-5-mini", None, "openai", None)[1].prices
    assert found.input_mtok == Decimal("0.25")  # type: ignore[union-attr]
    assert charge("openai", "gpt-5-mini", RequestUsage(input_tokens=1, output_tokens=0)) == 1
