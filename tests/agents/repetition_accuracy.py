"""How well repetition is found in recorded runs: what is told, what would be stopped, and loops put into runs that succeeded.

The guards see each run as it was recorded: its calls with their results, turn by turn, on default settings. A recorded model never read
what it would have been told, so a run that is told here might have gone on well, and one that is stopped might not have come to it.
Which tools write was not recorded; all count as reads, which is the stricter reading.
"""

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from agents import repetition
from agents.repetition import Repetition
from protocols.chat import ToolCall
from protocols.failures import Failed
from tests.agents.recorded_runs import DATA, Recorded, Turned, conversations, recorded_runs

KINDS = (
    "the same call",
    "the same call, spelled anew",
    *(f"{period} calls in turn" for period in range(2, 7)),
    "the same words",
    "no news",
)


class Found(NamedTuple):
    """What the guards made of a run: the turn at which the model was first told and the one at which it was stopped, or ``None``."""

    told: int | None
    stopped: int | None
    why: str = ""


def watched(turns: Sequence[Turned], *, words: bool = False) -> Found:
    """What the guards make of these turns; ``words`` counts turns without calls as well."""
    watch, told, why = Repetition(), None, ""
    for number, turn in enumerate(turns):
        if not turn.calls and not words:
            continue  # words to the user
        try:
            watch.begin()
            made = []
            for call, gave in turn.calls:
                objection = watch.check(call)
                if objection is None:
                    made.append((call, gave))
                else:
                    told, why = (number, objection.message) if told is None else (told, why)
            for call, gave in made:
                watch.gave(call, gave or "", fails=(gave or "").startswith("Error"))
            note = watch.end(turn.text)
        except Failed as error:
            return Found(number if told is None else told, number, str(error))
        if note is not None and told is None:
            told, why = number, note
    return Found(told, None, why)


def thrice(run: Recorded) -> bool:
    """Whether three calls in a row are the same to the letter: the plain rule that the guards are held against."""
    return any(len(list(same)) >= 3 for _, same in groupby(run.calls, key=lambda call: (call.name, call.arguments)))


class Counts(NamedTuple):
    """The recorded runs: how many, and how many of them were told of and stopped."""

    runs: int
    told: int
    stopped: int


def counted(runs: Sequence[Recorded]) -> Counts:
    """What the guards make of all these runs."""
    found = [watched(run.turns) for run in runs]
    return Counts(len(runs), sum(one.told is not None for one in found), sum(one.stopped is not None for one in found))


def with_loop(run: Recorded, kind: str, draw: random.Random, rounds: int = 40) -> tuple[list[Turned], int] | None:
    """The run up to some place, and then turns that go round from there on; ``None`` when it has too few calls for that."""
    single = [turn for turn in run.turns if len(turn.calls) == 1]
    period = int(kind[0]) if kind[0].isdigit() else 1
    distinct = list({(one.calls[0][0].name, str(one.calls[0][0].arguments)): one for one in single}.values())
    if len(distinct) < period or not single:
        return None
    start = draw.randrange(period, len(distinct) + 1)
    before, cycle = distinct[:start], distinct[start - period : start]
    (call, gave) = cycle[0].calls[0]
    if kind == "the same call, spelled anew":
        again = [Turned("", ((_spelled(call, draw), gave),)) for _ in range(rounds)]
    elif kind == "the same words":
        again = [Turned("Let me think about what to do next.", ((_other(call, number), "nothing"),)) for number in range(rounds)]
    elif kind == "no news":
        again = [Turned("", ((_other(call, number), "nothing found"),)) for number in range(rounds)]
    else:
        again = [cycle[number % period] for number in range(rounds)]
    return [*before, *again], len(before)


def _spelled(call: ToolCall, draw: random.Random) -> ToolCall:
    """The same call with other spelling: case, white space, quotes, order of keys, and how numbers are written."""
    assert isinstance(call.arguments, dict)
    items = list(call.arguments.items())
    draw.shuffle(items)
    return call.model_copy(update={"arguments": {name: _respelled(value, draw) for name, value in items}})


def _respelled(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict):
        return {name: _respelled(one, draw) for name, one in reversed(value.items())}
    if isinstance(value, list):
        return [_respelled(one, draw) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return draw.choice([value, float(value), str(value), f"{value:,}"])
    if isinstance(value, str):
        return draw.choice([value, f" {value}  ", value.upper(), value.lower(), f"'{value}'", value.replace(" ", "  ")])
    return value


def _other(call: ToolCall, number: int) -> ToolCall:
    return call.model_copy(update={"arguments": {"attempt": f"number {number}"}})


def loops(runs: Sequence[Recorded], seed: int = 7) -> Iterator[tuple[str, int, int, int, list[int]]]:
    """For each kind of loop put into runs that succeeded: how many, told, stopped, and the turns that it took from the loop's first."""
    draw = random.Random(seed)
    for kind in KINDS:
        made = [one for run in runs if run.solved and (one := with_loop(run, kind, draw)) is not None]
        found = [(watched(turns), start) for turns, start in made]
        took = sorted(one.stopped - start + 1 for one, start in found if one.stopped is not None)
        yield kind, len(made), sum(one.told is not None for one, _ in found), len(took), took


def by_source(runs: Sequence[Recorded]) -> None:
    """Print how many of the runs that succeeded would be stopped, of each source and of the others, and were the same call not spared."""
    print("\n| runs that succeeded | all | told | stopped | stopped if the same call were not spared a turn |")
    print("| --- | --- | --- | --- | --- |")
    solved = [run for run in runs if run.solved]
    for source in sorted({run.source for run in solved}):
        for name, some in (
            (f"of {source}", [run for run in solved if run.source == source]),
            (f"of all but {source}", [run for run in solved if run.source != source]),
        ):
            total, spared = counted(some), repetition.SPARED
            repetition.SPARED = 0
            hard = counted(some).stopped
            repetition.SPARED = spared
            share = max(total.runs, 1)
            print(f"| {name} | {total.runs} | {total.told} | {total.stopped} ({total.stopped / share:.1%}) | {hard} ({hard / share:.1%}) |")


def main() -> None:
    """Print what was found, and every run that was told or stopped."""
    parser = argparse.ArgumentParser(
        "python -m tests.agents.repetition_accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with the recorded runs")
    parser.add_argument("--runs", action="store_true", help="also list each run that was told or stopped")
    asked = parser.parse_args()
    runs = recorded_runs(asked.data)
    if not runs:
        print(f"skipped: there are no recorded runs in {asked.data}; name their folder with --data")
        return
    print("| recorded runs | all | told | stopped |\n| --- | --- | --- | --- |")
    groups = {
        "with three equal calls in a row": [run for run in runs if thrice(run)],
        "without": [run for run in runs if not thrice(run)],
        "that succeeded": [run for run in runs if run.solved],
        "that failed": [run for run in runs if not run.solved],
    }
    totals = {name: counted(some) for name, some in groups.items()}
    for name, total in totals.items():
        print(f"| {name} | {total.runs} | {total.told} | {total.stopped} ({total.stopped / max(total.runs, 1):.1%}) |")
    plain, without = totals["with three equal calls in a row"], totals["without"]
    failed = totals["that failed"]
    told, stopped = plain.told + without.told, failed.stopped + totals["that succeeded"].stopped
    print(f"\nrecall: {plain.told} of {plain.runs} runs with three equal calls in a row are told ({plain.told / max(plain.runs, 1):.1%})")
    print(f"precision: {plain.told} of {told} runs that are told have three equal calls in a row ({plain.told / max(told, 1):.1%})")
    print(f"precision by outcome: {failed.stopped} of {stopped} that would be stopped had failed ({failed.stopped / max(stopped, 1):.1%})")
    by_source(runs)
    print("\n| loop put into runs that succeeded | all | told | stopped | turns until then, median and most |")
    print("| --- | --- | --- | --- | --- |")
    for kind, count, heard, ended, took in loops(runs):
        print(f"| {kind} | {count} | {heard} | {ended} | {took[len(took) // 2] if took else '-'}, {took[-1] if took else '-'} |")
    speakers = Counter[str]()
    for source, said in conversations(asked.data):
        by_name = defaultdict(list)
        for name, text in said:
            by_name[name].append(Turned(text))
        spun = [name for name, texts in by_name.items() if watched(texts, words=True).told is not None]
        speakers[f"{source}, all"] += 1
        speakers[f"{source}, in which an agent is told of its words"] += bool(spun)
    print("\n" + "\n".join(f"{name}: {count}" for name, count in speakers.items()))
    if asked.runs:
        for run in runs:
            found = watched(run.turns)
            if found.told is not None:
                ended = "stopped" if found.stopped is not None else "told"
                print(f"{run.source} {run.name} {'succeeded' if run.solved else 'failed'}: {ended}: {found.why[:200]}")


if __name__ == "__main__":
    main()
