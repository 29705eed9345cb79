"""Where content came from. Content keeps its origin wherever it goes."""

from enum import StrEnum


class Origin(StrEnum):
    """The source of a piece of content. Only ``SYSTEM`` and ``USER`` are trusted to instruct."""

    SYSTEM = "system"
    USER = "user"
    MODEL = "model"
    TOOL = "tool"
    AGENT = "agent"


TRUSTED = frozenset({Origin.SYSTEM, Origin.USER})
