"""What the roles of the audit hand to each other."""

from pydantic import BaseModel


class Found(BaseModel):
    """An installed package: its canonical name, the folder of its metadata, its version, and the day of the audit."""

    name: str
    folder: str
    version: str
    day: str


class Edge(BaseModel):
    """A requirement that applies on this machine; ``under`` are the extras that ask for it, none when it is always needed."""

    name: str
    spec: str = ""
    extras: list[str] = []
    under: list[str] = []


class LicenceFile(BaseModel):
    """A licence file: the licences that its phrases give away, its first words, and whether it covers the package itself."""

    path: str
    ids: list[str]
    words: str
    own: bool


class Sheet(BaseModel):
    """The facts of one package as they stand on disk; sizes are in bytes, ``year`` is that of the newest sign of life."""

    name: str
    version: str = ""
    summary: str = ""
    words: str = ""
    topics: list[str] = []
    keywords: list[str] = []
    expression: str = ""
    field: str = ""
    classifiers: list[str] = []
    licence_files: list[LicenceFile] = []
    requires: list[Edge] = []
    files: int = 0
    size: int = 0
    native: int = 0
    native_size: int = 0
    commands: list[str] = []
    year: int | None = None
    sign: str = ""
    editable: bool = False
    wrong: list[str] = []


class Licence(BaseModel):
    """A package's licence, its kind, and who said so on what evidence; a person's may carry the model's guess."""

    name: str
    licence: str = "?"
    kind: str = "unknown"
    by: str = "person"
    why: str = "no role answered"
    doubt: str = ""


class Described(BaseModel):
    """What a package is for, how far that answer led (nats a token), whether that is enough, and one line about it."""

    name: str
    purpose: str = "unsorted"
    margin: float = 0.0
    sure: bool = True
    by: str = "fallback"
    line: str = ""
    line_by: str = "fallback"


class Batch(BaseModel):
    """Packages that one scored choice sorts."""

    sheets: list[Sheet]


class Everything(BaseModel):
    """All answers about the packages in ``names``; ``installed`` has the version of every package of the environment."""

    day: str
    place: str
    names: list[str]
    installed: dict[str, str]
    sheets: list[Sheet]
    licences: list[Licence]
    described: list[list[Described]]


class Row(BaseModel):
    """Everything about one package: exactly one row each."""

    sheet: Sheet
    licence: Licence
    described: Described
    needed_by: list[str]
    points: int
    risks: list[str]


class Audit(BaseModel):
    """All rows, by name, and the pairs that may do the same job: both names, the purpose and the words in common."""

    day: str
    place: str
    rows: list[Row]
    twins: list[list[str]]
