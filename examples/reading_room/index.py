"""The index: full text search over the passages of a corpus, in one SQLite file that is built once and then only read."""

import os
import re
import sqlite3
import tempfile
import time
from contextlib import closing
from hashlib import sha256
from math import log
from pathlib import Path

from pydantic import BaseModel

from protocols.failures import BadInput
from reading_room.corpus import documents, fingerprint, lines_of, passages

FORMAT = "2"
"""Raised when passages or tables are made another way, so that older files are not read."""
MOST_TERMS = 32
"""Words of a query that are looked for."""
CANDIDATES = 200
"""Passages that are ranked again, by closeness: by BM25 alone a short passage with one rare word wins."""
BOTH = 0.3
STALE = 24 * 3600.0
"""Seconds after which an index of an earlier state of a folder goes; a run may still be reading it."""

_WORD = re.compile(r"[^\W_]+")
_NAME = re.compile(r"[^\W_]+(?:_[^\W_]+)+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ENDING = re.compile(r"(?<=\w{3})(?:ations?|ions?|ings?|ers?|ed|es|ly|e|(?<!s)s)$")
_COMMON = frozenset(
    _WORD.findall(
        "a about all an and any are as at be been being but by can could did do does for from get gets give gives had has have how i "
        "if in into is it its kind kinds like many may me might most much must my no not of off on or other our out over should so "
        "some such take takes than that the their them then there these they this to up us use used uses using want was way we were "
        "what when where whether which while who whom whose why will with would you your"
    )
)


class Hit(BaseModel):
    """A passage that was found: its document, the number of its first line, its heading, and its text."""

    file: str
    line: int
    heading: str
    text: str


class Catalogue(BaseModel):
    """An index: its id, the folder, how many documents and passages it holds, and the seconds it took to build (0.0: it was there)."""

    id: str
    folder: str
    documents: int
    passages: int
    seconds: float


def terms(text: str) -> list[str]:
    """The words of ``text`` that say what it is about, names of code whole as well, in lower case, once; all when none says anything."""
    words = list(dict.fromkeys(word.lower() for word in [*_WORD.findall(text), *_NAME.findall(text)]))
    return [word for word in words if word not in _COMMON] or words


def home() -> Path:
    """Where indexes are kept."""
    return Path(os.environ.get("CALLBOARD_HOME") or "~/.callboard").expanduser() / "research"


def build(folder: str) -> Catalogue:
    """The index of ``folder``: the one that is there when no document has changed, else a new one. Raises ``BadInput``.

    It is made aside and then takes its name, so that processes that build the same one at once do not meet.
    """
    began = time.monotonic()
    found = documents(folder)
    place = sha256(f"{FORMAT} {folder}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
    name = f"{place}-{fingerprint(found)}"
    path = home() / f"{name}.db"
    seconds = 0.0
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_stale(path.parent, place)
            with tempfile.TemporaryDirectory(dir=path.parent) as aside:
                _fill(Path(aside, "new.db"), folder, [one.name for one in found])
                os.replace(Path(aside, "new.db"), path)
        except OSError as error:
            raise BadInput(
                f"the index can't be written under {path.parent} ({error.strerror}); set CALLBOARD_HOME to another folder"
            ) from None
        seconds = time.monotonic() - began
    with closing(_open(name)) as db:
        count, held = db.execute("SELECT count(*), (SELECT count(*) FROM passages) FROM documents").fetchone()
    return Catalogue(id=name, folder=folder, documents=count, passages=held, seconds=round(seconds, 1))


def closeness(query: str, texts: list[tuple[str, str]]) -> list[float]:
    """How close each text, with the name that it stands under, is to ``query``: its words, each the more the fewer texts have it.

    Plurals and other endings count as the same word. A word in the name counts like one in the text, and a little more in both.
    """
    words = {_stem(word) for word in terms(query)[:MOST_TERMS]}
    has = [[(word in said, word in named) for word in words] for named, said in ((_stems(name), _stems(text)) for name, text in texts)]
    weights = [log(1 + len(texts) / (1 + sum(any(row[at]) for row in has))) for at in range(len(words))]
    return [sum(weight * (max(row[at]) + BOTH * all(row[at])) for at, weight in enumerate(weights)) for row in has]


def shared(claim: str, text: str) -> float:
    """The share of the words of ``claim`` that say something which ``text`` has too, in whatever form."""
    words = {_stem(word) for word in terms(claim)}
    return len(words & _stems(text)) / len(words) if words else 0.0


def search(index: str, query: str, most: int = 8) -> list[Hit]:
    """The passages closest to ``query`` of those that BM25 finds, closest first; equal texts once. No text of a query raises."""
    words = terms(_clean(query))[:MOST_TERMS]
    if not words:
        return []
    match = " OR ".join(f'"{word}"' for word in words)  # quoted, a word is never an operator
    with closing(_open(index)) as db:
        rows = db.execute(
            "SELECT file, line, heading, text, name FROM passages WHERE passages MATCH ?"
            " ORDER BY bm25(passages, 0, 0, 4.0, 2.0, 1.0, 0.5), rowid LIMIT ?",
            [match, CANDIDATES],
        ).fetchall()
    scores = closeness(query, [(f"{name} {heading}", text) for _, _, heading, text, name in rows])
    hits: dict[str, Hit] = {}
    for _, (file, line, heading, text, _) in sorted(zip(scores, rows, strict=True), key=lambda one: -one[0]):
        hits.setdefault(text, Hit(file=file, line=line, heading=heading, text=text))
    return list(hits.values())[:most]


def folder_of(index: str, file: str) -> str | None:
    """The folder of the corpus, if ``file`` is one of its documents."""
    with closing(_open(index)) as db:
        row = db.execute("SELECT folder FROM corpus WHERE EXISTS (SELECT 1 FROM documents WHERE name = ?)", [_clean(file)]).fetchone()
    return str(row[0]) if row else None


def _fill(path: Path, folder: str, names: list[str]) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA synchronous = OFF")  # a file that is not whole never gets its name
        db.execute("CREATE TABLE corpus (folder TEXT)")
        db.execute("CREATE TABLE documents (name TEXT PRIMARY KEY) WITHOUT ROWID")
        columns = "file UNINDEXED, line UNINDEXED, name, heading, text, parts"
        db.execute(f"CREATE VIRTUAL TABLE passages USING fts5({columns}, tokenize = 'porter unicode61')")
        db.execute("INSERT INTO corpus VALUES (?)", [_clean(folder)])
        for name in names:
            try:
                lines = lines_of(folder, name)
            except OSError:
                continue  # gone or locked since it was listed
            plain, split = _clean(name), " ".join(_WORD.findall(name))
            made = [(plain, one.line, split, _spaced(one.heading), _clean(one.text), _parts(one.text)) for one in passages(name, lines)]
            if made:
                db.execute("INSERT INTO documents VALUES (?)", [plain])
                db.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)", made)
        db.execute("INSERT INTO passages (passages) VALUES ('optimize')")


def _open(index: str) -> sqlite3.Connection:
    path = home() / f"{index}.db"
    if not re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{16}", index) or not path.is_file():
        raise BadInput(f"there is no index {index!r} on this machine; run the research again, where CALLBOARD_HOME is shared by all hosts")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _drop_stale(folder: Path, place: str) -> None:
    for old in folder.glob(f"{place}-*.db"):
        if time.time() - old.stat().st_mtime > STALE:
            old.unlink(missing_ok=True)


def _stem(word: str) -> str:
    bare = _ENDING.sub("", word.lower())
    return bare[:-1] + "i" if len(bare) > 3 and bare.endswith("y") else bare


def _stems(text: str) -> set[str]:
    return {_stem(word) for form in (text, _CAMEL.sub(" ", text)) for word in [*_WORD.findall(form), *_NAME.findall(form)]}


def _spaced(heading: str) -> str:
    """A heading that is found by the parts of its names as well."""
    parts = _CAMEL.sub(" ", heading)
    return _clean(heading if parts == heading else f"{heading} {parts}")


def _parts(text: str) -> str:
    """The parts of the names like ClientTimeout in a text, which the tokeniser takes for one word."""
    return _clean(" ".join(_CAMEL.sub(" ", word) for word in dict.fromkeys(_WORD.findall(text)) if _CAMEL.search(word)))


def _clean(text: str) -> str:
    """Text that SQLite takes: names of files may hold bytes that are none."""
    return text.encode("utf-8", "replace").decode()
