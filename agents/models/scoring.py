"""Scored choice: which option fits a text, read from exact log-probabilities instead of generated.

Two ways. *Channel*: log P(text | description) a token, for models too small to reason about a label. *Label*:
log P(label | text), for models that can. With several texts, every option's scores are centred over the batch, which
takes away how likely an option makes any text at all (a prior that a tiny model has and the task does not).

llama.cpp's server gives no log-probabilities of a prompt, so the scored tokens are generated, forced by biases; the
log-probabilities that it reports for generated tokens are the model's own, from before any bias.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from agents.models.catalogue import Scoring
from protocols.chat import Choice, Option
from protocols.failures import ModelError

TEXT_TOKENS = 12
"""Only the first tokens of a text are scored by the channel: on 70 hand-made cases 12 did as well as 16 and 24, at half the cost."""

LABEL_TEXT_BYTES = 2000
"""Only this much of a text is read before its labels are scored."""

_CACHED_PAIRS = 20_000
_STEP = 200.0  # far above the span of any model's logits

Post = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Posts a JSON body to a path of the model server and gives its JSON answer."""


class Score(NamedTuple):
    """The mean log-probability (nats a token) of ``scored`` tokens that followed ``given`` tokens."""

    mean: float
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
        return [[(f"This text is about {_plain(o.description)}.\n\n", text[: TEXT_TOKENS * 32]) for o in choice.options] for text in texts]
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


def segments(continuation: Sequence[int]) -> list[list[int]]:
    """``continuation`` cut before every token that its piece already has: ``forced`` wants each token once."""
    cut: list[list[int]] = []
    for token in continuation:
        if not cut or token in cut[-1]:
            cut.append([])
        cut[-1].append(token)
    return cut


def forced(context: Sequence[int], continuation: Sequence[int]) -> dict[str, Any]:
    """A completion request that generates exactly ``continuation`` (no token twice) and reports its log-probabilities.

    Every wanted token gets a bias that is far above any logit and falls with its place; a token that was said falls below
    all that are still wanted, by a penalty a use. Uses in the context are paid back in advance. So the next wanted token
    is always the most likely one, and the reported log-probabilities, taken before biases and penalties, are the model's.

    A grammar of token literals would force the same tokens, but it is checked against the whole vocabulary at every token,
    which costs more than the model, and llama.cpp aborts the process when a literal is a part of a character (any emoji).
    """
    used = Counter(context)
    top = _STEP * (len(continuation) + 1)
    penalty = 2 * top
    return {
        "prompt": list(context),
        "n_predict": len(continuation),
        "n_probs": 1,
        "post_sampling_probs": False,
        "return_tokens": True,
        "logit_bias": [[token, top - _STEP * place + penalty * used[token]] for place, token in enumerate(continuation)],
        "samplers": ["penalties", "top_k"],
        "frequency_penalty": penalty,
        "repeat_last_n": len(context) + len(continuation),
        "top_k": 1,
        "temperature": 0.0,
        "cache_prompt": True,
        "stream": False,
    }


def read(answer: dict[str, Any], continuation: Sequence[int]) -> tuple[float, int] | None:
    """The summed log-probability (nats) in ``answer`` and of how many tokens, or ``None`` if other tokens came than were asked for.

    The server reports none for a token that ends within a character. Such tokens are left out, the same for every option.
    """
    if answer.get("tokens") != list(continuation):
        return None
    reported = [float(entry["logprob"]) for entry in answer.get("completion_probabilities") or ()]
    return sum(reported), len(reported)


async def log_probability(context: Sequence[int], continuation: Sequence[int], post: Post) -> tuple[float, int]:
    """Log P(``continuation`` | ``context``) in nats, and of how many tokens (see ``read``).

    Raises ``ModelError`` when the server cannot be made to tell.
    """
    nats, told = 0.0, 0
    given = list(context)
    waiting = segments(continuation)[::-1]
    while waiting:
        piece = waiting.pop()
        found = read(await post("/completion", forced(given, piece)), piece)
        if found is not None:
            nats, told = nats + found[0], told + found[1]
            given += piece
        elif len(piece) > 1:
            # A piece of one token needs no order, so it cannot be missed; it only costs a request a token.
            waiting += [[token] for token in reversed(piece)]
        else:
            raise ModelError("The model server did not score the tokens it was given. Use the pinned version of xllamacpp.", charged=False)
    return nats, told


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
        fresh: dict[tuple[str, str], Score] = {}

        async def score(slot: int, span: Sequence[tuple[str, str]]) -> None:
            async def pinned(path: str, body: dict[str, Any]) -> dict[str, Any]:
                return await post(path, body | {"id_slot": slot})

            for pair in span:
                context, continuation = tokens[pair[0]], tokens[pair[1]]
                if self._scoring == "channel":
                    continuation = continuation[:TEXT_TOKENS]
                nats, told = await log_probability(context, continuation, pinned) if continuation else (0.0, 0)
                fresh[pair] = Score(nats / told if told else 0.0, len(context) if continuation else 0, len(continuation))

        # Each slot of the server gets a span of neighbours: pairs with the same context follow one another where it is cached.
        new.sort(key=lambda pair: pair[0])
        size = -(-len(new) // self._concurrency)
        async with asyncio.TaskGroup() as group:
            for slot, start in enumerate(range(0, len(new), max(size, 1))):
                group.create_task(score(slot, new[start : start + size]))
        rows = [[self._recall(pair, fresh).mean for pair in row] for row in table]
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
