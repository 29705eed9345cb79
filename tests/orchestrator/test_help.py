"""Help teaches by examples that can be typed, and finds what was meant by a word that is nearly right."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from orchestrator.cli import main
from orchestrator.cli.command import commands


def every(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below ``command``, however many there come to be."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield (*path, name), found
            yield from every(found, (*path, name))


COMMANDS = dict(every(commands))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_ends_with_examples_of_the_command_that_can_be_typed(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*path, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "\\b" not in shown
    assert "..." not in shown.partition("Examples:")[0].replace("[ARGS]...", "").replace("]...", ""), "cut off; give it short_help="
    examples = re.findall(r"^ +(callboard .*)$", shown.rpartition("Examples:")[2], re.MULTILINE)
    assert 1 <= len(examples) <= 3
    for example in examples:
        _, *words = shlex.split(example)
        assert tuple(words[: len(path)]) == path
        parsed(commands, "callboard", words)


def parsed(command: click.Command, name: str, words: list[str], above: click.Context | None = None) -> None:
    """Read ``words`` as click does, to the last subcommand, and carry out nothing. Raises ``click.UsageError``."""
    context = command.make_context(name, words, parent=above)
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group):
        found, sub, more = command.resolve_command(context, rest)
        assert found
        assert sub
        parsed(sub, found, more, context)
    else:
        assert rest == []


def test_every_command_stands_under_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for heading in ("Run:", "Read runs:", "Set up:"):
        assert f"\n{heading}\n" in shown
    listed = re.findall(r"^  ([a-z]+) {2,}[A-Z]", shown, re.MULTILINE)
    assert [name for name in listed if (name,) in COMMANDS] == commands.list_commands(click.Context(commands))
    assert not re.search(r"^  [a-z]+ {2,}.*\.\.\.$", shown, re.MULTILINE), "a command's short help is cut off; give it short_help="


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trcae", "last"], "there is no command 'trcae'; did you mean 'trace'?"),
        (["review.py:team"], "to run a team write: callboard run review.py:team"),
        (["run", "review.py", "--budget-cals", "4"], "--budget-calls"),
        (["model", "lst"], "Did you mean 'list'?"),
        (["quxx"], "there are: run, resume"),
    ],
)
def test_a_word_that_is_nearly_right_is_answered_with_the_right_one(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert sentence in capsys.readouterr().err
