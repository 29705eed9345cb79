"""Measures how well a model sorts packages into purposes: ``python -m tests.examples.purposes [MODEL]``; minutes on two cores.

118 packages with purposes given by hand (the first is the right one, any other will do): 76 of a real environment, with their
topics, and 42 well-known others, with summaries from memory. The batches are those of the audit.

No case was held out: descriptions, word count and margin were chosen on them, so the table flatters the model.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from audit.answers import Batch, Described, Sheet
from dependency_audit import BATCH, describer

from agents import steps
from protocols.messages import TaskEnded

FIXTURE = Path(__file__).parent / "fixtures" / "purposes.jsonl"


def cases() -> list[dict[str, Any]]:
    """Name, summary, words, topics, keywords, purposes."""
    return [json.loads(line) for line in FIXTURE.read_text().splitlines()]


def sheet(case: dict[str, Any]) -> Sheet:
    """The fact sheet of a case, as far as a describer reads it."""
    return Sheet.model_validate({key: case[key] for key in ("name", "summary", "words", "topics", "keywords")})


async def sorted_by(model: str, batch: list[dict[str, Any]]) -> list[Described]:
    """The describer's answers."""
    ended = [message async for message in steps(describer, Batch(sheets=[sheet(case) for case in batch]), model)][-1]
    assert isinstance(ended, TaskEnded)
    assert ended.output is not None, ended.failure
    return [Described.model_validate(one) for one in ended.output.inline]


async def main(model: str) -> None:
    """Print a table: right, and acceptable, of all; by who answered."""
    found: list[tuple[str, bool, bool]] = []
    for installed in (True, False):
        some = [case for case in cases() if case["installed"] is installed]
        count = -(-len(some) // BATCH)
        for at in range(count):
            batch = some[at::count]
            right = {case["name"]: case["purposes"] for case in batch}
            for one in await sorted_by(model, batch):
                by = one.by if one.by == "rules" else "model, sure" if one.sure else "model, unsure"
                found.append((by, one.purpose == right[one.name][0], one.purpose in right[one.name]))
    for by in ("rules", "model, sure", "model, unsure"):
        mine = [(exact, fair) for who, exact, fair in found if who == by]
        if mine:
            exact, fair = (sum(column) / len(mine) for column in zip(*mine, strict=True))
            print(f"{by:14} {len(mine):4}  right {exact:.0%}  acceptable {fair:.0%}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["embedded"]))
