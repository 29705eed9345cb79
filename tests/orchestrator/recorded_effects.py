"""Whether effects are as recorded with a host killed between any two calls: ``python -m tests.orchestrator.recorded_effects``.

Each recorded run of public benchmarks is an agent whose model says what was said, turn by turn, and whose tools write to a ledger outside
the run where their names say that they write. The run is carried out once in peace, and once for each call and each moment at which the
host that makes it can die: before the tool runs, after it ran and nobody knows, and once its result is in the journal. Of writes, those
of every second run are idempotent (the ledger knows their key), the others can be asked what became of them. Then the ledger's entries
must be the recorded calls, one for one, in their order. Runs that a guard ends are counted: they have a recorded beginning.

``--every N`` takes every Nth call only; all of them take some minutes on two cores. ``--data DIR`` is where the files are.
"""

import argparse
import asyncio
import inspect
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents import Context, Role, ScriptedModel, Tool, tool
from agents.effects import Done, NotDone, Reconciled
from orchestrator import Team
from orchestrator.testing import KillHost, Rehearsal, rehearsed
from protocols.budget import Limits
from protocols.chat import ToolCall
from protocols.messages import Status
from tests.agents.recorded_runs import DATA, Recorded, recorded_runs

WRITES = (
    "book", "cancel", "disconnect", "enable", "exchange", "grant", "make", "modify", "reboot", "refuel", "reseat", "reset", "resume",
    "return", "send", "set", "suspend", "toggle", "transfer", "update",
)  # fmt: skip
"""How the names of tools that change something begin."""

MOMENTS = ("before", "after", "recorded")
AT_ONCE = 40
"""Rehearsals at a time: what each waits for is a host that comes back."""

Effect = tuple[str, str]


class Ledger:
    """The world outside: what was done in it, in order, and under which keys."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.results: dict[str, str] = {}
        self.requests = 0

    def do(self, key: str, effect: Effect, result: str) -> str:
        """Do something once for each key."""
        self.requests += 1
        if key not in self.results:
            self.effects.append(effect)
            self.results[key] = result
        return self.results[key]


class Outcome(NamedTuple):
    """What the ledger saw: whether it is what was recorded, and how often it was asked for the same once more."""

    right: bool
    ended: bool
    repeated: int
    lost: int
    reviews: int


def writes(name: str) -> bool:
    """Whether a tool of this name changes something."""
    return name.split("_")[0] in WRITES


def effect(call: ToolCall) -> Effect:
    """A call as the ledger has it."""
    return call.name, json.dumps(call.arguments, sort_keys=True)


def recorded_effects(run: Recorded) -> list[Effect]:
    """The changes that a recorded run made."""
    return [effect(call) for call in run.calls if writes(call.name)]


def agent(run: Recorded, ledger: Ledger, *, idempotent: bool) -> Team:
    """A team that says and does what was recorded."""
    turns = [turn for turn in run.turns if turn.calls]
    results: dict[int, tuple[ToolCall, str]] = {}
    step = 0
    for turn in turns:
        for place, (call, gave) in enumerate(turn.calls, 1):
            results[step + place] = call, (gave or "")[:300]
        step += 1 + len(turn.calls)
    parameters: dict[str, set[str]] = {}
    for call in run.calls:
        parameters.setdefault(call.name, set()).update(call.arguments if isinstance(call.arguments, dict) else ())
    tools = [_tool(name, sorted(named), results, ledger, idempotent=idempotent) for name, named in parameters.items()]
    script = [[call for call, _ in turn.calls] for turn in turns]
    role = Role("agent", tools=tools, model=ScriptedModel([*script, "done"]), limits=Limits())
    return Team("recorded", [role])


def _tool(name: str, parameters: Sequence[str], results: dict[int, tuple[ToolCall, str]], ledger: Ledger, *, idempotent: bool) -> Tool:
    async def perform(context: Context, **arguments: Any) -> str:
        call, gave = results[context.step or 0]
        return ledger.do(context.key, effect(call), gave) if writes(name) else gave

    async def became(key: str) -> Reconciled:
        return Done(ledger.results[key]) if key in ledger.results else NotDone()

    one = inspect.Parameter
    named = [one(each, one.KEYWORD_ONLY, default=None, annotation=Any) for each in parameters]
    perform.__signature__ = inspect.Signature([one("context", one.POSITIONAL_OR_KEYWORD, annotation=Context), *named])  # type: ignore[attr-defined]
    perform.__annotations__ = {"context": Context, **dict.fromkeys(parameters, Any), "return": str}
    perform.__name__, perform.__doc__ = name, name
    if not writes(name):
        return tool(repeatable=True)(perform)
    return tool(effect="write", repeatable=True, idempotent=idempotent, reconcile=None if idempotent else became)(perform)


async def performed(run: Recorded, *, idempotent: bool, chaos: Sequence[KillHost] = ()) -> Outcome:
    """Carry one recorded run out, and look at the ledger."""
    ledger, wanted = Ledger(), recorded_effects(run)
    done: Rehearsal = await rehearsed(agent(run, ledger, idempotent=idempotent), "go", chaos=chaos)
    ended = done.result.status is not Status.DONE
    right = ledger.effects == (wanted[: len(ledger.effects)] if ended else wanted)
    return Outcome(right, ended, ledger.requests - len(ledger.effects), done.lost, len(done.reviews))


async def killed(runs: Iterable[tuple[int, Recorded]], every: int) -> tuple[list[Outcome], list[Outcome], list[str]]:
    """Outcomes in peace, outcomes with a host killed at every ``every``th call and each moment, and what went wrong."""
    free, wrong = asyncio.Semaphore(AT_ONCE), list[str]()

    async def one(number: int, run: Recorded, chaos: Sequence[KillHost] = ()) -> Outcome:
        async with free:
            found = await performed(run, idempotent=number % 2 == 0, chaos=chaos)
        if not found.right or found.reviews:
            wrong.append(f"{run.source} {run.name} {chaos}: {found}")
        return found

    listed = list(runs)
    peace = await asyncio.gather(*(one(number, run) for number, run in listed))
    going = [
        one(number, run, [KillHost(at_tool_call=call, when=moment)])  # type: ignore[arg-type]
        for (number, run), quiet in zip(listed, peace, strict=True)
        if not quiet.ended
        for call in range(1, len(run.calls) + 1)
        if (call + number) % every == 0
        for moment in MOMENTS
    ]
    return peace, list(await asyncio.gather(*going)), wrong


def main() -> int:
    """Print a table; 1 when a ledger is not as it was recorded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    runs = [run for run in recorded_runs(given.data) if run.calls]
    if not runs:
        print(f"skipped: no recorded runs in {given.data}; set CALLBOARD_TEST_DATA or --data", file=sys.stderr)
        return 0
    began = time.monotonic()
    peace, trouble, wrong = asyncio.run(killed(list(enumerate(runs)), given.every))
    calls, changes = sum(len(run.calls) for run in runs), sum(len(recorded_effects(run)) for run in runs)
    ended = sum(one.ended for one in peace)
    print(f"{len(runs)} recorded runs, {calls} calls, {changes} of them writes; {ended} runs ended by a guard")
    print(f"in peace: {sum(one.right for one in peace)} of {len(peace)} ledgers as recorded")
    lost, again, asked = (sum(getattr(one, name) for one in trouble) for name in ("lost", "repeated", "reviews"))
    print(f"with a host killed: {sum(one.right for one in trouble)} of {len(trouble)} ledgers as recorded; {lost} attempts lost,")
    print(f"{again} writes asked for again under their key, {asked} questions to a person; {time.monotonic() - began:.0f} s")
    print("\n".join(wrong[:20]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
