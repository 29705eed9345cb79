"""``callboard failures``: how runs failed, by verdict, and where the journal says so; of one run, who may be to blame."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import candidates, options, streams

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from orchestrator.attribution.trajectory import Attribution, Trajectory
    from orchestrator.journal.port import Journal
    from orchestrator.observe.failures import FailedTask, Failures
    from orchestrator.observe.proofs import Proof

_BY = ("mode", "role", "model", "run")
_COLOURS = {"critical": "bold red", "error": "red", "warning": "yellow", "notice": "dim"}
_PLACES = 3
"""Entries that a row shows."""

MOST_JUDGED = 10
"""Failed tasks of one run that are judged."""

JUDGE_CALLS = 5 * MOST_JUDGED
"""Model calls that a judge may make, repairs included."""


@click.command(
    short_help="Show how tasks failed, by verdict; of a RUN, why.",
    epilog=options.examples(
        "callboard failures --since 7d --by role", "callboard failures last", "callboard failures last --judge openai:gpt-5-mini"
    ),
)
@click.argument("run_id", metavar="[RUN]", required=False, shell_complete=candidates.runs)
@click.option("--by", type=click.Choice(_BY), default="mode", show_default=True, help="What a row stands for, besides the verdict.")
@options.since
@click.option("--judge", metavar="ID", shell_complete=candidates.models, help="Of one RUN: ask this model for the causes; it is paid for.")
@options.store
@options.as_json
@options.debug
def failures(run_id: str | None, by: str, since: int, judge: str | None, store: str | None, as_json: bool) -> int:
    """Show every failed task by its verdict: how many, how severe, whether trying again may help, and where.

    A task that was tried again and succeeded has not failed. With RUN each of its failed tasks is shown, and which task and step is
    likely to be the cause: an opinion, with how sure it is.
    """
    from orchestrator.cli.skipping import Skipping
    from orchestrator.observe.costs import runs_since
    from orchestrator.observe.failures import By, failed, grouped
    from protocols.failures import BadInput

    if run_id is None and judge is not None:
        raise BadInput("--judge looks into one run; name it, like: callboard failures last --judge ID")
    hint = f" --store {store}" if store and "://" not in store else ""  # an address may hold a password
    with options.opened(store) as journal:
        if run_id is not None:
            return _one(journal, options.found(journal, run_id).run, since, judge, hint, as_json)
        rows = list(runs_since(journal, journal.runs(), since))
        by_model = by == "model"
        reading = Skipping()
        several = reading.each(rows, lambda row: list(failed(journal, row.run, since, models=by_model)))
        found = grouped((one for some in several for one in some), By(by))
    if as_json:
        listed = [row.model_dump(mode="json") for row in found]
        streams.write_json({"by": by, "since": since or None, "runs": len(rows), "failures": listed}, sys.stdout)
        return reading.exit
    if not found:
        streams.note(f"no task failed in {len(rows):,} runs")
        return reading.exit
    _console().print(_table(by, found))
    first = next(place for row in found for place in row.evidence)
    streams.note(f"one of these: callboard failures {first.run}{hint}; what each verdict asks of you: docs/failures.md")
    return reading.exit


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


def _table(by: str, found: "Sequence[Failures]") -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    from orchestrator.observe.figures import brief, clean

    table = Table("severity", "verdict", *([by] * (by != "mode")), "tasks", "retryable", "entries", "newest message", box=None)
    for row in found:
        places = ", ".join(f"{place.run}#{place.entry}" for place in row.evidence[:_PLACES])
        more = f" and {row.count - _PLACES:,} more" if row.count > _PLACES else ""
        named = [clean(row.key) or "–"] * (by != "mode")
        severity = Text(row.severity.value, _COLOURS[row.severity.value])
        counts = (f"{row.count:,}", f"{row.retryable:,}")
        table.add_row(severity, row.verdict.value, *named, *counts, places + more, brief(row.message, 120))
    return table


def _one(journal: "Journal", run: str, since: int, judge: str | None, hint: str, as_json: bool) -> int:
    """The failures of one run, and what a judge makes of them."""
    from orchestrator.attribution.case import cases
    from orchestrator.observe.failures import failed
    from orchestrator.observe.proofs import proofs

    found = list(failed(journal, run, since))
    shown = proofs(journal, run, {one.task: one.failure for one in found})
    # what only followed from another failure, or was wished for, has no cause of its own
    judged = [one.task for one in found if one.task and _severity(one) != "notice"][:MOST_JUDGED]
    among = cases(journal, run, judged)
    opinions = asyncio.run(_judged(among, judge))
    if as_json:
        listed = [_as_json(one, shown[one.task], opinions.get(one.task), among.get(one.task)) for one in found]
        streams.write_json({"run": run, "judge": judge or "heuristic", "failures": listed}, sys.stdout)
        return 0
    if not found:
        streams.note(f"no task of {run} failed")
        return 0
    console = _console()
    for one in found:
        for line in _lines(one, shown[one.task], opinions.get(one.task), among.get(one.task)):
            console.print(line, soft_wrap=True)
    if len(judged) == MOST_JUDGED:
        streams.note(f"only the first {MOST_JUDGED} are judged")
    task = next((f" --task {one.task}" for one in found if one.task), "")
    streams.note(f"every step of one: callboard trace {run}{task} --full{hint}; what each verdict asks of you: docs/failures.md")
    return 0


def _severity(one: "FailedTask") -> str:
    from protocols.failures import MODES

    return MODES[one.failure.verdict].severity.value


async def _judged(among: "Mapping[str, Trajectory]", judge: str | None) -> "dict[str, Attribution]":
    """What the judge says of each; with a model it says on standard error what that cost."""
    if judge is None:
        from orchestrator.attribution.heuristic import Heuristic

        return {task: await Heuristic().judge(case) for task, case in among.items()}
    from agents.models.registry import resolve
    from orchestrator.attribution.asking import Asking
    from orchestrator.observe.figures import spent
    from protocols.budget import Limits

    model = resolve(judge)
    asking = Asking(model, Limits(model_calls=JUDGE_CALLS))
    try:
        return {task: await asking.judge(case) for task, case in among.items()}
    finally:
        streams.note(f"judged by {model.id}: {spent(asking.usage) or 'no calls'}{'' if model.price else ', unpriced'}")
        await model.aclose()


def _as_json(one: "FailedTask", shown: "Sequence[Proof]", opinion: "Attribution | None", case: "Trajectory | None") -> dict[str, Any]:
    cause: dict[str, Any] | None = None
    if opinion is not None and case is not None:
        step = case.steps[opinion.step]
        cause = {"task": opinion.who, "role": step.role, "step": step.ordinal, "entry": step.entry, "kind": opinion.cause.value}
        cause |= {"confidence": opinion.confidence, "because": opinion.because}
    fields = one.model_dump(mode="json", include={"task", "role", "entry", "at"})
    entries = [proof.model_dump() for proof in shown]
    return {**fields, "severity": _severity(one), **one.failure.model_dump(mode="json"), "entries": entries, "likely_cause": cause}


def _lines(one: "FailedTask", shown: "Sequence[Proof]", opinion: "Attribution | None", case: "Trajectory | None") -> "list[RenderableType]":
    from rich.text import Text

    from orchestrator.observe.figures import brief, clean

    severity = _severity(one)
    again = " · retryable" if one.failure.retryable else ""
    role = f"  {clean(one.role)}" if one.role else ""
    lines: list[RenderableType] = [
        Text.assemble((clean(one.task) or "the run", "bold"), role, f" · {one.failure.verdict.value} · ", (severity, _COLOURS[severity]))
        + Text(f"{again} · entry {one.entry}"),
        Text(f"  {brief(one.failure.message, 300)}"),
    ]
    lines += [Text(f"  entry {proof.entry}: {proof.what}", "dim") for proof in shown]
    lines += [Text(f"  evidence: {brief(said, 200)}", "dim") for said in one.failure.evidence]
    if opinion is not None and case is not None:
        step = case.steps[opinion.step]
        at = f"entry {step.entry}" if step.ordinal is None else f"step {step.ordinal} (entry {step.entry})"
        who = f"task {clean(opinion.who)} (role {clean(step.role)}), {at}, {opinion.cause.value}"
        sure = f"confidence {opinion.confidence:.2f}, because {brief(opinion.because, 200)}"
        lines.append(Text(f"  likely cause: {who}; {sure}", "cyan"))
    return lines
