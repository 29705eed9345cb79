"""Figures as people read them."""

import pytest

from orchestrator.observe.figures import brief, clean, count, duration, moment, money, spent
from protocols.budget import Usage


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "$0.00"), (1, "$0.000001"), (1_500, "$0.0015"), (250_000, "$0.25"), (1_000_000, "$1.00"), (1_234_567_890, "$1,234.56789")],
)
def test_money_is_exact(micros, text):
    assert money(micros) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(-5, "0 ms"), (340, "340 ms"), (1000, "1.0 s"), (12_345, "12.3 s"), (185_000, "3 min 05 s"), (3_720_000, "1 h 02 min")],
)
def test_durations_choose_their_unit(milliseconds, text):
    assert duration(milliseconds) == text


def test_counts_and_usage_read_as_words():
    assert (count(1, "task"), count(1000, "task")) == ("1 task", "1,000 tasks")
    assert spent(Usage()) == ""
    assert spent(Usage(model_calls=2, input_tokens=5, micros=10)) == "2 model calls · 5 in, 0 out · $0.00001"
    assert spent(Usage(tool_calls=1)) == "1 tool call"


def test_moments_are_utc():
    assert moment(1_760_000_000_123) == "2025-10-09T08:53:20.123Z"


def test_contents_become_one_clean_line():
    assert clean("a\x1b[31mb\x9b\tc\nd\x1b]0;e") == "ab\tc\nd]0;e"
    assert brief("  a\n\n b\x07 ") == "a b"
    assert brief({"k": "ü"}) == '{"k": "ü"}'
    assert brief("x" * 100, 10) == "x" * 9 + "…"
