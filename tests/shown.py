"""What pages and files show to be typed: the lines of their code blocks, and the command lines of Callboard among them."""

import re
import shlex
from collections.abc import Iterator

import click

from orchestrator.cli.command import commands
from tests.orchestrator.test_help import parsed


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def typed(page: str) -> Iterator[str]:
    """The lines of a page that are code: indented by four (behind the ``#`` of a comment, too), or in a fence without a language."""
    yield from re.findall(r"^(?:#)? {4,}(\S.*)$", page, re.MULTILINE)
    for block in blocks(page, ""):
        yield from block.splitlines()


def callboards(lines: Iterator[str] | list[str]) -> Iterator[list[str]]:
    """The words behind each ``callboard`` that these shell lines call. What stands behind two spaces explains, and is no word."""
    for line in lines:
        if "callboard" not in line:
            continue
        shell = shlex.shlex(re.split(r" {2,}", line.removeprefix("$ "))[0], posix=True, punctuation_chars=True)
        shell.whitespace_split = True
        try:
            words = list(shell)
        except ValueError:  # no shell line: an apostrophe in what a command said
            continue
        while words:
            end = next((at for at, word in enumerate(words) if set(word) <= set("();<>|&")), len(words))
            one, words = words[:end], words[end + 1 :]
            while one and re.match(r"\w+=", one[0]):
                one = one[1:]
            if one and one[0].rpartition("/")[2] == "callboard":
                yield one[1:]


def why_not(words: list[str]) -> str | None:
    """Why the command would refuse these words, before it does anything; nothing when it would take them."""
    try:
        parsed(commands, "callboard", words)
    except click.exceptions.Exit:  # --help and --version say their piece
        return None
    except click.UsageError as error:
        return f"callboard {shlex.join(words)}: {error.format_message()}"
    return None
