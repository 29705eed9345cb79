"""Scored choice without a model: the arithmetic, the requests, the cache and the bound."""

import asyncio
from typing import Any

import pytest

from agents.models.scoring import TEXT_TOKENS, Scorer, best, bound, centred, decide, forced, log_probability, pairs, segments
from protocols.chat import Choice, Option
from protocols.failures import ModelError

OPTIONS = (Option(label="a", description="apples"), Option(label="b", description="bread"))


class Server:
    """Answers as a model server would: every character is a token, and each scores by the function it was given."""

    def __init__(self, score: Any) -> None:
        self.score = score
        self.completions = 0

    async def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/tokenize":
            return {"tokens": [ord(letter) for letter in body["content"]]}
        self.completions += 1
        given = "".join(map(chr, body["prompt"]))
        scored = [int(token) for token, _ in body["logit_bias"]]
        nats = self.score(given, "".join(map(chr, scored)))
        return {"tokens": scored, "completion_probabilities": [{"logprob": nats} for _ in scored]}


def test_centring_takes_away_what_an_option_scores_on_every_text() -> None:
    assert centred([[-1.0, -5.0], [-3.0, -5.0]]) == [[1.0, 0.0], [-1.0, 0.0]]


def test_single_text_is_not_centred() -> None:
    assert centred([[-1.0, -2.0]]) == [[-1.0, -2.0]]


def test_tie_goes_to_the_earlier_option_without_a_margin() -> None:
    assert best([-2.0, -1.0, -1.0]) == (1, 0.0)


def test_margin_is_the_lead_over_the_runner_up() -> None:
    assert best([-3.0, -1.0, -1.5]) == (1, 0.5)
    assert best([-3.0]) == (0, 0.0)


def test_baseline_rows_centre_and_get_no_answer() -> None:
    labels, margins = decide(OPTIONS, [[-2.0, -2.5], [-1.0, -3.0]], answered=1)
    assert labels == ("b",)  # alone it would be "a"; against the baseline the text leans to "b"
    assert len(margins) == 1


def test_channel_scores_the_text_and_label_scores_the_label() -> None:
    choice = Choice(texts=("red  fruit",), options=OPTIONS)
    assert pairs(choice, "channel")[0][0] == ("This text is about apples.\n\n", "red fruit")
    context, continuation = pairs(choice, "label")[0][1]
    assert "red fruit" in context
    assert "bread" in context
    assert continuation == " b"


def test_scorer_reads_scores_a_token_and_picks() -> None:
    server = Server(lambda given, scored: -1.0 if ("apples" in given) == ("pie" in scored) else -2.0)
    found = asyncio.run(Scorer("channel", concurrency=2).choose(Choice(texts=("pie", "roll"), options=OPTIONS), server))
    assert found.labels == ("a", "b")
    assert found.margins == (1.0, 1.0)
    assert found.scored == 2 * len("pie") + 2 * len("roll")


def test_pair_that_was_scored_before_costs_nothing() -> None:
    server = Server(lambda given, scored: -1.0)
    scorer = Scorer("channel", concurrency=2)
    choice = Choice(texts=("pie",), options=OPTIONS, baseline=("bun",))
    first = asyncio.run(scorer.choose(choice, server))
    again = asyncio.run(scorer.choose(choice.model_copy(update={"texts": ("cake",)}), server))
    assert (server.completions, first.scored > again.scored) == (6, True)


def test_cache_of_pairs_is_bounded_and_a_small_one_still_answers() -> None:
    server = Server(lambda given, scored: -1.0)
    scorer = Scorer("channel", concurrency=2, cached_pairs=1)
    choice = Choice(texts=("pie", "roll"), options=OPTIONS)
    for _ in range(2):
        assert asyncio.run(scorer.choose(choice, server)).labels == ("a", "a")
    assert server.completions > 4


def test_only_the_first_tokens_of_a_text_are_scored() -> None:
    server = Server(lambda given, scored: -1.0)
    found = asyncio.run(Scorer("channel", concurrency=2).choose(Choice(texts=("x" * 500,), options=OPTIONS), server))
    assert found.scored == 2 * TEXT_TOKENS


def test_empty_text_is_answered_with_the_first_option_and_no_margin() -> None:
    server = Server(lambda given, scored: -1.0)
    found = asyncio.run(Scorer("channel", concurrency=2).choose(Choice(texts=("", "pie"), options=OPTIONS), server))
    assert (found.labels[0], found.margins[0]) == ("a", 0.0)


def test_bound_is_never_below_what_is_computed() -> None:
    choice = Choice(texts=("pie", "ü" * 300, "x" * 9000), options=OPTIONS, baseline=("roll",))
    for scoring in ("channel", "label"):
        server = Server(lambda given, scored: -1.0)
        found = asyncio.run(Scorer(scoring, concurrency=2).choose(choice, server))  # type: ignore[arg-type]
        given, scored = bound(choice, scoring)  # type: ignore[arg-type]
        assert found.given <= given
        assert found.scored <= scored


def test_forced_tokens_come_in_order_whatever_the_context_has() -> None:
    body = forced([9, 1, 9], [7, 9, 8])
    level = dict(body["logit_bias"])
    said = [9, 1, 9]
    for wanted in (7, 9, 8):
        now = {token: bias - said.count(token) * body["frequency_penalty"] for token, bias in level.items()}
        assert max(now, key=lambda token: now[token]) == wanted
        assert now[wanted] > 100  # above what any model's logit makes up for
        said.append(wanted)


def test_continuation_is_cut_where_a_token_returns() -> None:
    assert segments([1, 2, 1, 1, 3]) == [[1, 2], [1], [1, 3]]


def test_answer_with_other_tokens_is_asked_for_token_by_token_and_then_an_error() -> None:
    async def stubborn(path: str, body: dict[str, Any]) -> dict[str, Any]:
        wanted = [token for token, _ in body["logit_bias"]]
        said = wanted if len(wanted) == 1 else wanted[::-1]
        return {"tokens": said, "completion_probabilities": [{"logprob": -1.0} for _ in said]}

    async def useless(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": [0], "completion_probabilities": [{"logprob": -1.0}]}

    assert asyncio.run(log_probability([1], [7, 8], stubborn)) == (-2.0, 2)
    with pytest.raises(ModelError, match="did not score"):
        asyncio.run(log_probability([1], [7, 8], useless))
