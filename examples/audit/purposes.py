"""Purposes: what a package may be for, what a model is shown of it, and when a sentence about it is not believed."""

import re

from audit.answers import Sheet

PURPOSES = {
    "networking": "HTTP requests, web clients and servers, URLs, sockets and internet protocols",
    "data formats": "parsing and serialization of data formats: JSON, YAML, XML, Markdown and binary encodings",
    "security": "security, cryptography, SSL certificates, passwords, tokens and authentication",
    "monitoring": "logging, metrics, monitoring, tracing, telemetry and profiling",
    "terminal": "terminal output, command line interfaces, colors, tables and progress bars",
    "packaging": "installing, building and distributing packages, dependencies and virtual environments",
    "code quality": "testing, linting, formatting and static analysis of source code",
    "types and validation": "type hints, typing annotations, schemas and data validation",
    "data structures": "data structures: lists, dicts, sets, caches, iterators and decorators",
    "computing": "machine learning, scientific computing, arrays, neural networks and distributed systems",
    "files and storage": "files, directories, paths, file systems, databases and SQL",
}
PURPOSE_MARGIN = 0.1
"""Nats a token; a smaller lead gets a question mark. Of 89 choices 69 % were acceptable above it and 35 % below
(tests/examples/purposes.py). It and the descriptions were chosen on those same packages, and the
embedded model's scores differ by up to 0.2 from one scoring to the next: expect less of others."""
TOPICS = [  # how a classifier of the package index begins, and the purpose that it declares
    (r"Internet :: (WWW/HTTP|Name Service|File Transfer|Proxy)|System :: Networking$", "networking"),
    (r"File Formats|Text Processing :: (Markup|Linguistic)", "data formats"),
    (r"Security", "security"),
    (r"System :: (Monitoring|Logging)", "monitoring"),
    (r"Terminals|Text Processing :: Filters", "terminal"),
    (r"System :: (Archiving :: Packaging|Installation|Software Distribution)|Software Development :: Build Tools", "packaging"),
    (r"Software Development :: (Testing|Quality Assurance|Debuggers)", "code quality"),
    (r"Scientific/Engineering", "computing"),
    (r"Database|System :: (Filesystems|Archiving :: Backup)", "files and storage"),
]
DULL = """\
    a an the of for and or in on to with is are be by from as at it its this that which your you python python's package packages library
    libraries module modules pure-python fast simple easy powerful small modern implementation provides provide support supports using
    use used written more core extremely lightweight beautiful utility utilities tool tools
"""
DULL_WORDS = frozenset(DULL.split())
WORDS = 5
"""Of a package's telling words; with 7 or 14 as many answers were right on 89 packages, give or take five, and the cost is linear."""
WRITE = "Say in one plain sentence of at most 20 words what this Python package is for. Name and count nothing that the text does not."
OPENERS = frozenset({"a", "an", "the", "it", "this", "these", "provides", "offers", "helps", "lets", "adds", "gives", "makes", "python"})
"""Words that may begin a sentence with a capital and name nothing."""


def declared(sheet: Sheet) -> str:
    """The purpose that a package's topics declare; empty when they declare none, or several."""
    found = {purpose for pattern, purpose in TOPICS for topic in sheet.topics if re.match(pattern, topic)}
    return found.pop() if len(found) == 1 else ""


def gist(sheet: Sheet) -> str:
    """What the model is shown of a package: its own telling words, the summary's first, because it scores but a dozen tokens."""
    words = telling(sheet.summary)[:7] + [word for word in sheet.keywords if word.lower() not in DULL_WORDS][:5] + telling(sheet.words)
    return " ".join({word.lower(): word for word in reversed(words)}[key] for key in list(dict.fromkeys(map(str.lower, words)))[:WORDS])


def telling(text: str) -> list[str]:
    """The words of a text without those that any package could say."""
    found = (word.strip(".'") for word in re.findall(r"[\w./+#'-]+", text))
    return [word for word in found if word and word.lower() not in DULL_WORDS]


def believable(sentence: str, source: str) -> bool:
    """Whether a model's sentence may stand in the report: one short line whose names and numbers are its source's."""
    return 0 < len(sentence.split()) <= 30 and "\n" not in sentence and not unsupported(sentence, source)


def unsupported(sentence: str, source: str) -> list[str]:
    """The names and numbers of a sentence that its source does not contain; a sentence with any is not believed."""
    known = set(re.findall(r"[^\W_]+", source.casefold()))
    found = []
    for at, word in enumerate(re.findall(r"[^\s,;:()\"'`]+", sentence)):
        word = word.strip(".!?*")
        name = any(letter.isupper() or letter.isdigit() or letter in "_./@" for letter in word)
        if name and not (at == 0 and word.casefold() in OPENERS) and not set(re.findall(r"[^\W_]+", word.casefold())) <= known:
            found.append(word)
    return found
