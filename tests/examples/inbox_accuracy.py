"""Measures the inbox example against an answer key: ``python -m tests.examples.inbox_accuracy [--model ID]``; minutes on two cores.

Two folders: the example's own, on which instructions and rules were settled, and one of documents written afterwards and held out.
Values are right when they are those of the key, or empty where it has none; parties without case and legal forms. An exception is
found when its file and its sort are those of the key; those a reading caused are false ones.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from inbox import team
from inbox_desk.ledger import plain
from inbox_desk.papers import Answered, Row

ROOT = Path(__file__).parents[2]
KEY = Path(__file__).parent / "fixtures" / "inbox-key.json"
FIELDS = ("party", "number", "date", "net", "tax", "total", "currency")


def right(name: str, wanted: str | None, found: str) -> bool:
    """Whether a value is that of the key."""
    return plain(wanted or "") == plain(found) if name in ("party", "number") else (wanted or "") == found


def answers(wanted: dict[str, Any], found: Answered) -> bool:
    """Whether an answer says all that it must, and rests on the right files (on any, where the key names none)."""
    said = found.answer.replace(",", "").casefold()
    return all(one.replace(",", "").casefold() in said for one in wanted["says"]) and (
        not wanted["sources"] or set(found.sources) == set(wanted["sources"])
    )


def measure(folder: str, key: dict[str, Any], model: str, *, misses: bool) -> None:
    """Run the team over a folder and print how much of it is right."""
    goal = {"folder": str(ROOT / folder), "questions": [one["question"] for one in key["questions"]]}
    began = time.monotonic()
    result = team.run_sync(goal, runtime="inline", store="memory:", model=model)
    seconds = time.monotonic() - began
    outputs = {task.task: task.output for task in result.tasks}
    rows = {row["file"]: Row.model_validate(row) for row in outputs["book"]}
    said = [Answered.model_validate(outputs[f"answer/{at}"]) for at in range(len(key["questions"]))]
    papers = {file: one for file, one in key["documents"].items() if one["kind"] != "unreadable"}
    routed = [(file, rows[file].kind, rows[file].kind_by, one["kind"]) for file, one in papers.items()]
    cells = [
        (file, name, one[name], getattr(rows[file], name))
        for file, one in papers.items()
        for name in FIELDS
        if name in one
    ]  # fmt: skip
    flags = {(file, flag.sort) for file, row in rows.items() for flag in row.flags}
    wanted = set(key["exceptions"].items())
    replied = [(one["question"], found, answers(one, found)) for one, found in zip(key["questions"], said, strict=True)]
    print(f"\n{folder}, {model}: {result.status}, {seconds:.0f} s, {result.usage.model_calls} model calls")
    for who in ("rules", "model"):
        mine = [found == label for _, found, by, label in routed if by == who]
        print(f"  kinds by {who:6} {sum(mine)} of {len(mine)}")
    good = [right(name, one, found) for _, name, one, found in cells]
    print(f"  values          {sum(good)} of {len(good)} ({sum(good) / len(good):.0%})")
    stated = [right(name, one, found) for _, name, one, found in cells if one is not None]
    print(f"  of those stated {sum(stated)} of {len(stated)}")
    flagged = {file for file, _ in flags}
    told = [file in flagged for file, name, one, found in cells if not right(name, one, found)]
    print(f"  wrong values    {sum(told)} in papers with an exception, {len(told) - sum(told)} silent")
    print(f"  exceptions      {len(flags & wanted)} of {len(wanted)} found, {len(flags - wanted)} false")
    print(f"  questions       {sum(ok for *_, ok in replied)} of {len(replied)}")
    print(f"  {result.output.split(chr(10))[2]}")
    if misses:
        for file, found, by, label in routed:
            if found != label:
                print(f"    {file}: kind {found} ({by}), not {label}")
        for file, name, one, found in cells:
            if not right(name, one, found):
                print(f"    {file}: {name} {found!r}, not {one!r}")
        for file, sort in sorted(flags ^ wanted):
            print(f"    {file}: {sort} {'not found' if (file, sort) in wanted else 'false'}")
        for question, answer, ok in replied:
            if not ok:
                print(f"    {question} -> {answer.answer!r} ({answer.by}) {answer.sources}")


def main() -> None:
    """Measure each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded:qwen2.5-coder-0.5b")
    parser.add_argument("--only", help="a part of a folder's name")
    parser.add_argument("--misses", action="store_true", help="say what was wrong")
    given = parser.parse_args()
    for folder, key in json.loads(KEY.read_text()).items():
        if not given.only or given.only in folder:
            measure(folder, key, given.model, misses=given.misses)


if __name__ == "__main__":
    main()
