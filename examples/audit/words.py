"""Words and numbers for people."""

import re


def plain(text: str) -> str:
    """Prose without the markup, badges, links and headings of Markdown, HTML and reStructuredText."""
    text = re.sub(r"```.*?```|<!--.*?-->|<[^>]*>|!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])?|\|[^|\n]*\|", " ", text, flags=re.S)
    text = re.sub(r"\[([^\]\n]*)\](\([^)\s]*\)|\[[^\]\n]*\])?", r"\1", text)
    text = re.sub(r"`([^`<]*)(<[^>]*>)?`__?|`+([^`]*)`+", r"\1\3", text).replace("**", "")
    kept = []
    for line in text.splitlines():
        line = re.sub(r"https?://\S+", "", line).strip()
        if len(line.split()) < 4 or line.startswith(("..", ":", "#", ">", "$", "=", "- ", "* ", "|", "[")):
            continue
        kept.append(line)
    return " ".join(kept)


def clip(text: str, most: int) -> str:
    """The text on one line, cut to ``most`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def size(count: float) -> str:
    """A number of bytes as people read it."""
    units = iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while count >= 1000 and unit != "GB":
        count, unit = count / 1000, next(units)
    return f"{count:.1f} {unit}" if count < 10 and unit != "B" else f"{count:.0f} {unit}"


def listed(names: list[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
