"""What the roles of the research hand to each other."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=300)]


class Quote(BaseModel):
    """Words of a document as they stand there, the line that they begin on, and the heading above them."""

    text: str
    file: str
    line: int
    about: str = ""


class Evidence(BaseModel):
    """The sentences that are closest to a question by their words, closest first."""

    question: str
    quotes: list[Quote]


class Claim(BaseModel):
    """An answer, the words of a document that say so, and the document's name."""

    model_config = ConfigDict(extra="forbid")
    claim: str
    quote: Annotated[str, Field(description="copied from the document word for word")]
    file: Annotated[str, Field(description="the name of the document")]


class Copied(BaseModel):
    """An answer in words copied from sentences that were shown."""

    model_config = ConfigDict(extra="forbid")
    answer: Text


class Cited(BaseModel):
    """A claim whose quote stands in its document, at this line."""

    claim: str
    quote: Quote


class Objection(BaseModel):
    """A claim that the critic does not let pass, and why."""

    claim: str
    quote: str = ""
    file: str = ""
    why: str


class Review(BaseModel):
    """What the critic says of one set of claims."""

    passed: list[Cited]
    sent_back: list[Objection]


class Errand(BaseModel):
    """A question for a searcher, with what the critic sent back, if this is not the first try."""

    question: str
    review: Review | None = None


class Reading(BaseModel):
    """Sentences for a reader, with what the critic sent back, if this is not the first try."""

    evidence: Evidence
    review: Review | None = None


class Case(BaseModel):
    """Claims for the critic: those of a searcher, or a reader's answer and the sentences that it was shown."""

    index: str
    claims: list[Claim] = []
    copied: Copied | None = None
    evidence: Evidence | None = None
    judged: bool = False


class Scope(BaseModel):
    """What every role must know: the index, whether the model writes and plans, and which round this is (from 1)."""

    index: str
    writes: bool
    round: int = 1


class Inquiry(BaseModel):
    """One sub-question."""

    scope: Scope
    question: str


class Answered(BaseModel):
    """What came of a sub-question in one round; ``tries`` is how often its searcher or reader was asked."""

    question: str
    round: int
    tries: int = 0
    found: list[Cited] = []
    dropped: list[Objection] = []
    closest: list[Quote] = []
    failure: str = ""


class Outline(BaseModel):
    """The question, and which sub-questions have an answer by now and which have none."""

    question: str
    answered: list[str] = []
    open: list[str] = []


class Assignment(BaseModel):
    """The whole research: its question, and what it may use."""

    scope: Scope
    question: str
    rounds: int
    calls: int


class Round(BaseModel):
    """One round: what was asked, by whom it was planned, how many findings were new, and model calls set aside so far."""

    asked: list[str]
    planner: str
    new: int
    calls: int


class Research(BaseModel):
    """All that was found. ``calls`` is the most model calls that it can have used, ``seconds`` wall time."""

    answers: list[Answered]
    rounds: list[Round]
    stop: str
    calls: int
    seconds: float


class Sheet(BaseModel):
    """What the report is made of."""

    question: str
    folder: str
    documents: int
    passages: int
    built: float
    model: str
    writes: bool
    fit: bool
    rounds: int
    calls: int
    research: Research
