"""``callboard doctor``: what is installed, what is missing, what clashes, and what to do about it."""

import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options, streams

if TYPE_CHECKING:
    from orchestrator.checkup.check import Check


@click.command(epilog=options.examples("callboard doctor", "callboard doctor --json"))
@options.as_json
@options.debug
def doctor(as_json: bool) -> int:
    """Say what is missing here, what clashes, and what to do next.

    Nothing is changed, fetched or started, and no key is shown. The exit code is 1 when there is a problem, 0 otherwise.
    """
    from orchestrator.checkup import machine, software, surroundings
    from orchestrator.checkup.check import Standing, carried_out

    places = {"Software": software.CHECKS, "This machine": machine.CHECKS, "Ray": surroundings.CHECKS}
    found = {title: list(carried_out(checks)) for title, checks in places.items()}
    every = [check for its in found.values() for check in its]
    problems = sum(check.status is Standing.PROBLEM for check in every)
    if as_json:
        streams.write_json({"ok": not problems, "checks": [check.model_dump(mode="json") for check in every]}, sys.stdout)
    else:
        _draw(found)
        notes = sum(check.status is Standing.NOTE for check in every)
        click.echo(f"\n{_count(problems, 'problem')}, {_count(notes, 'note')}" + ("" if problems else ": Callboard can run here"))
    return 1 if problems else 0


def _draw(found: "dict[str, list[Check]]") -> None:
    from rich.console import Console
    from rich.text import Text

    from orchestrator.observe.figures import clean

    styles = {"ok": "green", "note": "yellow", "problem": "bold red"}
    console = Console(highlight=False, markup=False)
    width = max(len(check.name) for its in found.values() for check in its)
    for title, its in found.items():
        console.print(Text(title, "bold"))
        for check in its:
            line = Text.assemble((f"  {check.status:<8}", styles[check.status]), f"{clean(check.name):<{width}}  {clean(check.what)}")
            console.print(line, soft_wrap=True)
            if check.next:
                console.print(Text.assemble(" " * (width + 12), ("next: ", "dim"), clean(check.next)), soft_wrap=True)


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
