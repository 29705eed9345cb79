"""``python -m tests.orchestrator.attribution_accuracy [FOLDER]``: how often the heuristic judge names what people named, beside baselines.

Two figures a question: with the weights as they are in the code, which were fitted to these very failures, and with weights fitted
anew without those that are asked about (five folds, in which the same task never stands on both sides).
"""

import asyncio
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.attribution.heuristic import WEIGHTS, Heuristic
from orchestrator.attribution.signals import SIGNALS, Told
from orchestrator.attribution.trajectory import Attribution
from tests.orchestrator.annotated import WHERE, Annotated, annotated

FOLDS = 5
ROUNDS = 120
RATE = 0.5
PENALTY = 0.5


class Case(NamedTuple):
    """The signals of each candidate, which of them the annotated step is (if any), and which are the annotated agent's."""

    rows: list[tuple[float, ...]]
    step: int | None
    own: list[bool]

    @classmethod
    def of(cls, one: Annotated) -> "Case":
        """What the fit needs of an annotated failure."""
        told = Told(one.trajectory)
        rows = [tuple(told.signals(at).values()) for at in told.places]
        own = [same(told.steps[at].who, one.who) for at in told.places]
        return cls(rows, told.places.index(one.step) if one.step in told.places else None, own)


def same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def fitted(cases: Sequence[Case]) -> Mapping[str, float]:
    """Weights that make the annotated steps and agents likely: a conditional logit, with a penalty on large weights, by ascent."""
    weights = [0.0] * len(SIGNALS)
    for _ in range(ROUNDS):
        slope = [-PENALTY * weight for weight in weights]
        for case in cases:
            chance = softmax([sum(a * b for a, b in zip(row, weights, strict=True)) for row in case.rows])
            own = sum(one for one, mine in zip(chance, case.own, strict=True) if mine)
            # half for the step, half for the agent: by how much each candidate should be likelier than it is
            for at, (row, one) in enumerate(zip(case.rows, chance, strict=True)):
                pull = -one * ((case.step is not None) + (own > 0)) / 2
                pull += (at == case.step) / 2 + (one / own / 2 if own > 0 and case.own[at] else 0.0)
                if abs(pull) > 1e-4:
                    for index, value in enumerate(row):
                        slope[index] += pull * value
        weights = [weight + 2 * RATE * change / len(cases) for weight, change in zip(weights, slope, strict=True)]
    return dict(zip(SIGNALS, weights, strict=True))


def softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / sum(powers) for power in powers]


def judged(data: Iterable[Annotated], weights: Mapping[str, float]) -> list[Attribution]:
    """What the heuristic says of each."""

    async def all_of_them() -> list[Attribution]:
        return [await Heuristic(weights).judge(one.trajectory) for one in data]

    return asyncio.run(all_of_them())


def crosswise(data: Sequence[Annotated]) -> list[Attribution]:
    """What it says of each with weights that were fitted without that task."""
    keys = sorted({one.key for one in data})
    random.Random(0).shuffle(keys)
    fold = {key: number % FOLDS for number, key in enumerate(keys)}
    cases = [Case.of(one) for one in data]
    said: dict[int, Attribution] = {}
    for number in range(FOLDS):
        weights = fitted([case for case, one in zip(cases, data, strict=True) if fold[one.key] != number])
        asked = [index for index, one in enumerate(data) if fold[one.key] == number]
        said.update(zip(asked, judged([data[index] for index in asked], weights), strict=True))
    return [said[index] for index in range(len(data))]


def most_words(one: Annotated) -> str:
    """The agent with most words."""
    return Told(one.trajectory).words.most_common(1)[0][0]


def last_to_speak(one: Annotated) -> str:
    """The agent that speaks last."""
    told = Told(one.trajectory)
    return told.steps[told.places[-1]].who


def commonest(values: Iterable[object]) -> int:
    """How often the commonest of these values occurs: what always answering it would get right."""
    return Counter(values).most_common(1)[0][1]


def table(data: Sequence[Annotated]) -> list[str]:
    """The figures, a line a source."""
    by_source: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(data):
        by_source[one.source].append(index)
    by_source["all"] = [*range(len(data))]
    now, fresh = judged(data, WEIGHTS), crosswise(data)
    heads = ("agent", "held out", "commonest", "most words", "last", "step", "held out", "commonest", "cause", "held out", "commonest")
    lines = [f"{'source':<24}{'runs':>5}" + "".join(f"{head:>11}" for head in heads)]

    def share(places: Sequence[int], right: Callable[[int], bool]) -> str:
        return percent(sum(map(right, places)), len(places))

    for source, places in by_source.items():
        some = [data[at] for at in places]
        caused = [at for at in places if data[at].cause is not None]
        cells = [
            share(places, lambda at: same(now[at].who, data[at].who)),
            share(places, lambda at: same(fresh[at].who, data[at].who)),
            percent(commonest(one.who.casefold() for one in some), len(some)),
            share(places, lambda at: same(most_words(data[at]), data[at].who)),
            share(places, lambda at: same(last_to_speak(data[at]), data[at].who)),
            share(places, lambda at: now[at].step == data[at].step),
            share(places, lambda at: fresh[at].step == data[at].step),
            percent(commonest(one.step for one in some), len(some)),
            share(caused, lambda at: now[at].cause is data[at].cause),
            share(caused, lambda at: fresh[at].cause is data[at].cause),
            percent(commonest(data[at].cause for at in caused), len(caused)) if caused else "–",
        ]
        lines.append(f"{source:<24}{len(places):>5}" + "".join(f"{cell:>11}" for cell in cells))
    sure: dict[int, list[int]] = defaultdict(list)
    for at, said in enumerate(fresh):
        sure[min(int(said.confidence * 4), 3)].append(at)
    lines.append("held out, how often the agent was right by how sure the judge was, and the agent with most words in the same runs:")
    for quarter, places in sorted(sure.items()):
        right = share(places, lambda at: same(fresh[at].who, data[at].who))
        plain = share(places, lambda at: same(most_words(data[at]), data[at].who))
        lines.append(f"  {quarter / 4:.2f} to {(quarter + 1) / 4:.2f}: {right} of {len(places)}, most words {plain}")
    return lines


def percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else WHERE
    data = annotated(folder)
    if not data:
        print(f"skipped: there is no who_and_when.jsonl.gz or agentrx.jsonl.gz in {folder}; name their folder")
        return
    print("\n".join(table(data)))


if __name__ == "__main__":
    main()
