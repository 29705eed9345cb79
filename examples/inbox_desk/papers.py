"""What the roles of the inbox hand to each other. Text is as it stands in the documents until the ledger reads it."""

from typing import Literal

from pydantic import BaseModel

Kind = Literal["invoice", "receipt", "order", "delivery note", "letter", "contract", "memo", "other"]
BILLS = ("invoice", "receipt", "order")
"""The kinds with amounts."""


class Paper(BaseModel):
    """One file: its name in the folder and its text, or why there is none; ``withheld`` is what no model is shown."""

    file: str
    text: str = ""
    problem: str = ""
    withheld: list[str] = []


class Routed(BaseModel):
    """The kind of a paper, who said so, and how far it led (nats a token; 0 without scores)."""

    file: str
    kind: Kind
    by: Literal["rules", "model"]
    margin: float = 0.0


class Bill(BaseModel):
    """What an invoice, receipt or order says, word for word; empty where it says nothing."""

    party: str
    number: str
    date: str
    net: str
    tax: str
    total: str


class Sheet(BaseModel):
    """What any other paper says, word for word; empty where it says nothing."""

    party: str
    number: str
    date: str


class Reading(BaseModel):
    """What a reader is asked: a paper; and when it is asked again what it said, what is wrong with that, and what to strike out."""

    paper: Paper
    said: str = ""
    wrong: list[str] = []
    struck: list[str] = []


class Case(BaseModel):
    """What a checker is given: the place of the paper in the plan, the paper, and the kinds of its batch."""

    place: str
    paper: Paper
    routed: list[Routed]


class Flag(BaseModel):
    """An exception: what sort it is, and one sentence about it."""

    sort: Literal["unreadable", "source", "place", "missing", "sums", "date", "currency", "duplicate", "instruction"]
    why: str


class Row(BaseModel):
    """One line of the table: ``date`` is ISO, amounts are decimals with a point, empty where nothing (right) is known."""

    file: str
    kind: str = "unreadable"
    kind_by: str = "rules"
    party: str = ""
    number: str = ""
    date: str = ""
    net: str = ""
    tax: str = ""
    total: str = ""
    currency: str = ""
    readings: int = 0
    copy_of: str = ""
    flags: list[Flag] = []


class Found(BaseModel):
    """Words of a paper that answer a question."""

    answer: str


class Query(BaseModel):
    """A question and the paper that may answer it."""

    question: str
    paper: Paper


class Asked(BaseModel):
    """What the answerer is given: a question, the table, and every paper with its place in the plan."""

    question: str
    rows: list[Row]
    papers: list[Paper]
    places: list[str]


class Answered(BaseModel):
    """An answer, who gave it, and the files that it rests on."""

    question: str
    answer: str = "no document answers it"
    by: Literal["rules", "model", "person"] = "person"
    sources: list[str] = []


class Desk(BaseModel):
    """Everything that the report is made of. ``fit`` says that the model was measured, or is big enough, to read values."""

    folder: str
    model: str
    fit: bool
    rows: list[Row]
    answers: list[Answered]
