"""Scored choice: which option fits a text, read from exact log-probabilities instead of generated.

Two ways. *Channel*: log P(text | description) a token, for models too small to reason about a label. *Label*:
log P(label | text), for models that can. With several texts, every option's scores are centred over the batch, which
takes away how likely an option makes any text at all (a prior that a tiny model has and the task does not).

llama.cpp's server gives no log-probabilities of a prompt, so the scored tokens are generated under a grammar that allows
just them; the log-probabilities it then reports are the model's own, from before any grammar, bias or penalty.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from agents.models.catalogue import Scoring
from protocols.chat import Choice, Option
from protocols.failures import ModelError

TEXT_TOKENS = 12
"""Only the first tokens of a text are scored by the channel. Measured: 12 did as well as 16 and 24, and cost is linear."""

LABEL_TEXT_BYTES = 2000
"""Only this much of a text is read before its labels are scored."""

_CACHED_PAIRS = 20_000

Post = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Posts a JSON body to a path of the model server and gives its JSON answer."""


class Score(NamedTuple):
    """The log-probability (nats) of ``scored`` tokens that followed ``given`` tokens."""

    nats: float
    given: int
    scored: int


class Verdicts(NamedTuple):
    """One label and margin a text, and the tokens that were computed for them (cached pairs cost none)."""

    labels: tuple[str, ...]
    margins: tuple[float, ...]
    given: int
    scored: int


def centred(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """``rows`` (one a text, one score an option) less each option's mean. A single row has nothing to be centred over."""
    if len(rows) < 2:
        return [list(row) for row in rows]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [[score - mean for score, mean in zip(row, means, strict=True)] for row in rows]


def best(row: Sequence[float]) -> tuple[int, float]:
    """The index of the highest score and its lead over the runner-up. A tie goes to the earlier option, with lead 0.

    With one option there is no runner-up, and the lead is 0.
    """
    first = max(range(len(row)), key=lambda index: row[index])
    others = [score for index, score in enumerate(row) if index != first]
    return first, row[first] - max(others) if others else 0.0


def decide(options: Sequence[Option], rows: Sequence[Sequence[float]], answered: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Labels and margins of the first ``answered`` rows, after centring over all of them."""
    picks = [best(row) for row in centred(rows)[:answered]]
    return tuple(options[index].label for index, _ in picks), tuple(margin for _, margin in picks)


def pairs(choice: Choice, scoring: Scoring) -> list[list[tuple[str, str]]]:
    """For every text, then every option: what is given, and what is scored after it."""
    texts = [_plain(text) for text in (*choice.texts, *choice.baseline)]
    if scoring == "channel":
        # A byte is at least a byte of a token, so a generous cut here loses nothing that would be scored.
        return [[(f"A message about {_plain(o.description)}:", f" {text[: TEXT_TOKENS * 32]}") for o in choice.options] for text in texts]
    # The list of options comes first and is the same for every text, so the server computes it once a slot.
    listed = "".join(f"- {_plain(o.label)}: {_plain(o.description)}\n" for o in choice.options)
    return [
        [(f"Labels:\n{listed}\nText: {_cut(text, LABEL_TEXT_BYTES)}\nLabel:", f" {_plain(o.label)}") for o in choice.options]
        for text in texts
    ]


def bound(choice: Choice, scoring: Scoring) -> tuple[int, int]:
    """The most tokens that can be given and scored for ``choice``: no tokeniser makes more tokens than bytes, plus a start."""
    given = scored = 0
    for row in pairs(choice, scoring):
        for context, continuation in row:
            given += len(context.encode("utf-8", "replace")) + 2
            size = len(continuation.encode("utf-8", "replace")) + 2
            scored += min(size, TEXT_TOKENS) if scoring == "channel" else size
    return given, scored


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, size: int) -> str:
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def forced(context: Sequence[int], continuation: Sequence[int]) -> dict[str, Any]:
    """A completion request that generates exactly ``continuation`` after ``context`` and reports its log-probabilities.

    The grammar alone would force it, but checking the whole vocabulary against a grammar at every token costs more than
    the model. A bias that falls with the place in the sequence, and a penalty on what was already said, make the wanted
    token the first that is tried; the grammar then has one token to check, and still decides when bias and penalty miss
    (a repeated token). Neither touches the reported log-probabilities.
    """
    places: dict[int, int] = {}
    for place, token in enumerate(continuation):
        places.setdefault(token, place)
    step, top = 200.0, 200.0 * (len(places) + 1)
    return {
        "prompt": list(context),
        "n_predict": len(continuation),
        "n_probs": 1,
        "post_sampling_probs": False,
        "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in continuation),
        "logit_bias": [[token, top - step * rank] for rank, token in enumerate(places)],
        "samplers": ["penalties", "top_k"],
        "presence_penalty": 2 * top,
        "repeat_last_n": len(continuation),
        "top_k": 1,
        "temperature": 0.0,
        "ignore_eos": False,
        "cache_prompt": True,
        "stream": False,
    }


def read(answer: dict[str, Any], continuation: Sequence[int]) -> float:
    """The summed log-probability in ``answer``. Raises ``ModelError`` if other tokens came than were asked for."""
    entries = answer.get("completion_probabilities") or []
    if [entry.get("id") for entry in entries] != list(continuation):
        raise ModelError("The model server did not score the tokens it was given. Use the pinned version of xllamacpp.", charged=True)
    return sum(float(entry["logprob"]) for entry in entries)


class Scorer:
    """Scores choices on a model server. Pairs that were scored before are remembered, so a baseline costs once."""

    def __init__(self, scoring: Scoring, *, concurrency: int, cached_pairs: int = _CACHED_PAIRS) -> None:
        self._scoring: Scoring = scoring
        self._concurrency = concurrency
        self._size = cached_pairs
        self._scores: OrderedDict[tuple[str, str], Score] = OrderedDict()

    async def choose(self, choice: Choice, post: Post) -> Verdicts:
        """Score every text against every option and decide. Raises what ``post`` raises."""
        table = pairs(choice, self._scoring)
        new = list(dict.fromkeys(pair for row in table for pair in row if pair not in self._scores))
        tokens = await self._tokenise(new, post)
        gate = asyncio.Semaphore(self._concurrency)

        async def score(pair: tuple[str, str]) -> Score:
            context, continuation = tokens[pair[0]], tokens[pair[1]]
            if self._scoring == "channel":
                continuation = continuation[:TEXT_TOKENS]
            if not continuation:
                return Score(0.0, 0, 0)
            async with gate:
                answer = await post("/completion", forced(context, continuation))
            return Score(read(answer, continuation), len(context), len(continuation))

        # Pairs with the same context run one after another, so the server finds it in a slot.
        new.sort(key=lambda pair: pair[0])
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(score(pair)) for pair in new]
        fresh = {pair: task.result() for pair, task in zip(new, tasks, strict=True)}
        rows = [[_nats_a_token(self._recall(pair, fresh)) for pair in row] for row in table]
        self._remember(fresh)
        labels, margins = decide(choice.options, rows, len(choice.texts))
        return Verdicts(labels, margins, sum(s.given for s in fresh.values()), sum(s.scored for s in fresh.values()))

    async def _tokenise(self, new: Sequence[tuple[str, str]], post: Post) -> dict[str, list[int]]:
        strings = list(dict.fromkeys(part for pair in new for part in pair))
        gate = asyncio.Semaphore(self._concurrency)

        async def tokens(text: str) -> list[int]:
            async with gate:
                # parse_special is off: a text that spells a control token is only text.
                answer = await post("/tokenize", {"content": text, "add_special": False, "parse_special": False})
            return [int(token) for token in answer["tokens"]]

        return dict(zip(strings, await asyncio.gather(*map(tokens, strings)), strict=True))

    def _recall(self, pair: tuple[str, str], fresh: dict[tuple[str, str], Score]) -> Score:
        if pair in fresh:
            return fresh[pair]
        self._scores.move_to_end(pair)
        return self._scores[pair]

    def _remember(self, fresh: dict[tuple[str, str], Score]) -> None:
        self._scores.update(fresh)
        while len(self._scores) > self._size:
            self._scores.popitem(last=False)


def _nats_a_token(score: Score) -> float:
    return score.nats / score.scored if score.scored else 0.0
