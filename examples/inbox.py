"""Turns a folder of mixed business documents into a checked table, a list of exceptions, and answers with their sources.

    callboard run examples/inbox.py:team --model embedded:qwen2.5-coder-0.5b > inbox.md
    callboard run examples/inbox.py:team --goal '{"folder": "path/to/documents", "questions": ["How many invoices are there?"]}'

A router says what each paper is, by its heading or else by a scored choice. A checker for each paper has a reader copy its values,
proves them with tools (they stand in the source, sums add up, dates exist), and has the paper read once more where something is
wrong. What is wrong then is an exception, for a person. Questions are answered from the table by rules, or else by the model in
words that stand in one paper. Without a goal the papers are those beside this file. The parts, in ``inbox_desk/``, are plain functions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inbox_desk.checking import TOOLS, next_checks
from inbox_desk.kinds import KINDS, TYPICAL, gist, headed
from inbox_desk.ledger import ledger
from inbox_desk.opening import listed, opened
from inbox_desk.papers import Answered, Asked, Bill, Case, Desk, Found, Paper, Query, Reading, Routed, Row, Sheet
from inbox_desk.questions import by_rules, likely
from inbox_desk.reading import BILLS_READ, FIND, FOUND, READ_BILL, READ_SHEET, SHEETS_READ, asked, quoted, shown
from inbox_desk.report import report
from pydantic import BaseModel, ConfigDict, ValidationError

from agents import Context, Role, role
from agents.models.port import Model
from agents.models.registry import resolve
from orchestrator import Team, only
from protocols.budget import Limits
from protocols.chat import Need
from protocols.failures import BadInput
from protocols.plan import Plan, Task, ref

BATCH = 12
MODEL = "embedded"
EXAMPLE = Path(__file__).parent / "inbox_documents"
QUESTIONS = (
    "What is the total of all invoices of Harland & Pym?",
    "Which documents have exceptions?",
    "Which invoice is the largest in GBP?",
    "How much is the annual fee for the goods lift?",
)


class Goal(BaseModel):
    """The folder, and questions about what is in it."""

    model_config = ConfigDict(extra="forbid")
    folder: str
    questions: list[str] = []


class Place(BaseModel):
    """A file and the folder that it is in."""

    folder: str
    file: str


class Batch(BaseModel):
    """Papers that one scored choice routes."""

    papers: list[Paper]


class Rows(BaseModel):
    """What the checkers gave, and every file of the plan."""

    files: list[str]
    papers: list[Paper]
    rows: list[Row]


@role(name="opener")
def opener(place: Place) -> Paper:
    """The text of one file."""
    return opened(place.folder, place.file)


@role(name="router", model=MODEL, concurrency=1, limits=Limits(model_calls=4))
async def router(batch: Batch, context: Context) -> list[Routed]:
    """What each paper is: by its heading, else by a scored choice."""
    papers = [paper for paper in batch.papers if not paper.problem]
    found = {paper.file: Routed(file=paper.file, kind=kind, by="rules") for paper in papers if (kind := headed(paper.text))}
    unsure = [paper for paper in papers if paper.file not in found]
    chosen = await context.choose([gist(paper.text) for paper in unsure], {str(kind): said for kind, said in KINDS.items()}, TYPICAL)
    for paper, (label, margin) in zip(unsure, chosen, strict=True):
        found[paper.file] = Routed.model_validate({"file": paper.file, "kind": label, "by": "model", "margin": round(margin, 3)})
    return [found[paper.file] for paper in papers]


bill_reader = Role(
    name="bill-reader",
    instructions=READ_BILL,
    input=Reading,
    output=Bill,
    prompt=shown,
    examples=BILLS_READ,
    model=MODEL,
    concurrency=4,
    max_output_tokens=200,
)
sheet_reader = replace(bill_reader, name="sheet-reader", instructions=READ_SHEET, output=Sheet, examples=SHEETS_READ)
checker = Role(
    name="checker",
    instructions="Check what was read in a document, and have it read once more where something is wrong.",
    input=Case,
    output=Row,
    strategy="sequential",
    plan=next_checks,
    tools=TOOLS,
    delegates=("bill-reader", "sheet-reader"),
    model=MODEL,  # it is never asked: the plan is a rule
    limits=Limits(tool_calls=20),
)
finder = Role(
    name="finder",
    instructions=FIND,
    input=Query,
    output=Found,
    prompt=asked,
    examples=FOUND,
    check=quoted,
    model=MODEL,
    max_output_tokens=120,
    attempts=1,
)


@role(name="book")
def book(all: Rows) -> list[Row]:
    """The table: one row for every file, duplicates marked."""
    return ledger(all.files, all.papers, all.rows)


@role(name="answerer", delegates=("finder",))
async def answerer(one: Asked, context: Context) -> Answered:
    """The answer of the rules, else what the likeliest papers say."""
    if found := by_rules(one.question, one.rows):
        return found
    for turn, at in enumerate(likely(one.question, one.papers)):
        query = {"question": one.question, "paper": ref(one.places[at])}
        (ended,) = await context.delegate([Task(id=f"{context.task}/{turn}", role="finder", input=query)])
        if ended.failure is None:
            return Answered(question=one.question, answer=ended.output["answer"], by="model", sources=[one.papers[at].file])
    return Answered(question=one.question)


@role(name="editor")
def editor(desk: Desk) -> str:
    """The report, in Markdown."""
    return report(desk)


def goal_of(given: Any) -> Goal:
    """The goal as it may be given: nothing, a folder, or an object; raises ``BadInput``."""
    if given is None:
        return Goal(folder=str(EXAMPLE), questions=list(QUESTIONS))
    try:
        return Goal.model_validate({"folder": given} if isinstance(given, str) else given)
    except ValidationError:
        raise BadInput(
            'the goal is no folder and no object like {"folder": "path", "questions": ["How many invoices are there?"]}'
        ) from None


def planner_of(model: str | Model) -> Callable[[Any], Plan]:
    """The planner of a team whose roles use ``model``, which the report names."""
    known = resolve(model) if isinstance(model, str) else model
    can, good_at = known.profile.can, known.profile.good_at
    fit, name = Need.TEXT in can or "extraction" in good_at, known.id

    def plan(goal: Any = None) -> Plan:
        """Two tasks a paper, one a batch and a question, and two that bring everything together."""
        wanted = goal_of(goal)
        folder = str(Path(wanted.folder).expanduser().resolve())
        files = listed(folder)
        papers = [f"open/{at}" for at in range(len(files))]
        tasks = [Task(id=papers[at], role="opener", input={"folder": folder, "file": file}) for at, file in enumerate(files)]
        for at in range(0, len(files), BATCH):
            tasks.append(Task(id=f"route/{at // BATCH}", role="router", input={"papers": list(map(ref, papers[at : at + BATCH]))}))
        for at, paper in enumerate(papers):
            case = {"place": paper, "paper": ref(paper), "routed": ref(f"route/{at // BATCH}")}
            tasks.append(Task(id=f"check/{at}", role="checker", input=case))
        rows = [ref(f"check/{at}") for at in range(len(files))]
        opened_all = list(map(ref, papers))
        tasks.append(Task(id="book", role="book", input={"files": files, "papers": opened_all, "rows": rows}, tolerant=True))
        for at, question in enumerate(wanted.questions):
            about = {"question": question, "rows": ref("book"), "papers": opened_all, "places": papers}
            tasks.append(Task(id=f"answer/{at}", role="answerer", input=about))
        everything = {
            "folder": folder,
            "model": name,
            "fit": fit,
            "rows": ref("book"),
            "answers": [ref(f"answer/{at}") for at in range(len(wanted.questions))],
        }
        tasks.append(Task(id="editor", role="editor", input=everything, tolerant=True))
        return Plan(tasks=tuple(tasks))

    return plan


@dataclass(frozen=True)
class Inbox(Team):
    """A team whose planner knows the model, so that the report can say who read the papers and whether that is good enough."""

    def with_model(self, model: str | Model) -> Team:
        """The same team with another model."""
        return replace(super().with_model(model), planner=planner_of(model))


team = Inbox(
    "inbox",
    roles=[opener, router, bill_reader, sheet_reader, checker, finder, book, answerer, editor],
    planner=planner_of(MODEL),
    merge=only(),
    budget=Limits(model_calls=2000),
)
