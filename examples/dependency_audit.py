"""Audits the packages installed in this very environment, and writes a Markdown report worth keeping.

    callboard run examples/dependency_audit.py:team > audit.md
    callboard run examples/dependency_audit.py:team --goal "google-* requests"     # only these packages, by name pattern

Everything is read from disk: metadata, licence files, descriptions, dependency edges, native libraries. Rules answer first. The
model sorts into purposes, by a scored choice, the packages whose classifiers declare none, and is asked for a licence only where no
rule can tell; what neither can tell goes on a list for a person. Every answer in the report says who gave it. The parts, in
``audit/``, are plain functions.
"""

import sys
from datetime import date
from fnmatch import fnmatch

from audit.answers import Audit, Batch, Described, Everything, Found, Licence, Sheet
from audit.inventory import installed, look_into
from audit.licences import KINDS, LICENCE_MARGIN, LICENCE_WORDS, TYPICAL_LICENCES, read_licence
from audit.purposes import PURPOSE_MARGIN, PURPOSES, WRITE, believable, declared, gist
from audit.report import report
from audit.risks import weigh
from audit.words import clip

from agents import Context, role
from orchestrator import Team, only
from protocols.budget import Limits
from protocols.failures import Failed
from protocols.plan import Plan, Task, ref

BATCH = 20


@role(name="inventory")
def inventory(found: Found) -> Sheet:
    """The fact sheet of one package."""
    return look_into(found)


@role(name="licence-reader", model="embedded", limits=Limits(model_calls=2))
async def licence_reader(sheet: Sheet, context: Context) -> Licence:
    """The licence of one package: by rules, else by the model, else for a person."""
    if (placed := read_licence(sheet)) is not None:
        return placed
    unread = next((file for file in sheet.licence_files if file.own), None)
    text = sheet.field or (unread.words if unread else "") or " ".join(sheet.classifiers) or sheet.expression
    if len(text.split()) < LICENCE_WORDS:
        return Licence(name=sheet.name, why=f"all it says of its licence is {text!r}" if text else "it says nothing about a licence")
    label, margin = await context.choose(" ".join(text.split()[:30]), KINDS, baseline=TYPICAL_LICENCES)
    said = f"{clip(text, 60)!r}, read with a margin of {margin:.2f}"
    if 0 < margin < LICENCE_MARGIN:
        return Licence(name=sheet.name, kind=label, why=f"the model is not sure of {said}; its guess is {label}")
    return Licence(name=sheet.name, licence=clip(text, 30), kind=label, by="model", why=said)


@role(name="describer", model="embedded", concurrency=1, limits=Limits(model_calls=4 * BATCH))
async def describer(batch: Batch, context: Context) -> list[Described]:
    """What each package of a batch is for, by what it declares or else by the model, and one line about it."""
    placed = {sheet.name: (purpose, 0.0, "rules") for sheet in batch.sheets if (purpose := declared(sheet))}
    asked = [sheet for sheet in batch.sheets if sheet.name not in placed and gist(sheet)]
    chosen = await context.choose([gist(sheet) for sheet in asked], PURPOSES)
    placed |= {sheet.name: (label, round(margin, 3), "model") for sheet, (label, margin) in zip(asked, chosen, strict=True)}
    writes = bool(chosen) and not any(margin for _, margin in chosen)  # no scores: a model that wrote its labels, so a bigger one
    answers = []
    for sheet in batch.sheets:
        if sheet.name in placed:
            purpose, margin, by = placed[sheet.name]
            line, line_by = await sentence(sheet, context) if writes else (sheet.summary, "summary" if sheet.summary else "fallback")
            sure = not 0 < margin < PURPOSE_MARGIN  # models that give no scores have a margin of zero
            answers.append(Described(name=sheet.name, purpose=purpose, margin=margin, sure=sure, by=by, line=line, line_by=line_by))
    return answers


async def sentence(sheet: Sheet, context: Context) -> tuple[str, str]:
    """One sentence by the model if it holds to its source, else the package's own summary; and which of them it is."""
    source = f"{sheet.name}: {sheet.summary}\n{sheet.words}"
    try:
        said = str(await context.ask(source, instructions=WRITE)).strip()
    except Failed:
        return sheet.summary, "summary"
    return (said, "model") if believable(said, source) else (sheet.summary, "fallback")


@role(name="risk")
def risk(answers: Everything) -> Audit:
    """One row for every package of the plan, and its risks by rules."""
    return weigh(answers)


@role(name="editor")
def editor(audit: Audit) -> str:
    """The report, in Markdown."""
    return report(audit)


def plan(goal: str | None = None) -> Plan:
    """Two tasks a package, a few batches for the model, and two that bring everything together."""
    today = date.today().isoformat()
    found = installed(today)
    wanted = [name for name in found if not goal or any(fnmatch(name, pattern) for pattern in goal.split())]
    batches = [wanted[at :: -(-len(wanted) // BATCH)] for at in range(-(-len(wanted) // BATCH))]  # kin have neighbouring names
    tasks = [Task(id=f"inventory/{name}", role="inventory", input=found[name].model_dump()) for name in wanted]
    tasks += [
        Task(id=f"describe/{at}", role="describer", input={"sheets": [ref(f"inventory/{name}") for name in batch]}, tolerant=True)
        for at, batch in enumerate(batches)
    ]
    tasks += [Task(id=f"licence/{name}", role="licence-reader", input=ref(f"inventory/{name}")) for name in wanted]
    everything = {
        "day": today,
        "place": f"{sys.prefix}, Python {sys.version.split()[0]}",
        "names": wanted,
        "installed": {name: one.version for name, one in found.items()},
        "sheets": [ref(f"inventory/{name}") for name in wanted],
        "licences": [ref(f"licence/{name}") for name in wanted],
        "described": [ref(f"describe/{at}") for at in range(len(batches))],
    }
    tasks.append(Task(id="risk", role="risk", input=everything, tolerant=True))
    tasks.append(Task(id="editor", role="editor", input=ref("risk")))
    return Plan(tasks=tuple(tasks))


team = Team(
    "dependency-audit",
    roles=[inventory, licence_reader, describer, risk, editor],
    planner=plan,
    merge=only(),
    budget=Limits(model_calls=2000, micros=2_000_000),
)
