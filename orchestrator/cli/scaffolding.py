"""``callboard init``: a folder with a small team that runs at once, and its test."""

import os
import re
import shlex
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from orchestrator.cli import options, streams
from protocols.failures import BadInput

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,49}")
_ENDING = ".txt"  # keeps the files from being taken for modules and tests of this package


@click.command(epilog=options.examples("callboard init first", "callboard init teams/triage"))
@click.argument("name")
@options.as_json
@options.debug
def init(name: str, as_json: bool) -> int:
    """Make a folder NAME with a team that runs at once, and its test.

    The team calls tools, has a typed plan, a merge and a budget, and works on the embedded model: no key is needed. NAME may be a
    path; its last part is the team's name.
    """
    if not name.strip():
        raise BadInput("the team needs a name; write callboard init NAME")
    folder = Path(os.path.abspath(Path(name).expanduser()))
    if not _NAME.fullmatch(folder.name):
        raise BadInput(f"{folder.name!r} is no name for a team; use up to 50 letters, digits, _ and -, a letter first")
    files = [str(path.relative_to(folder)) for path in _scaffold(folder)]
    where = Path(name)
    following = [f"callboard run {shlex.quote(str(where / 'team.py'))}", f"pytest {shlex.quote(str(where))}", "callboard trace last"]
    if as_json:
        streams.write_json({"folder": str(folder), "files": files, "next": following}, sys.stdout)
        return 0
    click.echo(f"made {where}: {', '.join(files)}\n")
    for what, command in zip(("run it", "test it", "see every step"), following, strict=True):
        click.echo(f"  {what:<16}{command}")
    for missing in _missing():
        streams.note(missing)
    return 0


def _scaffold(folder: Path) -> list[Path]:
    """Write the files of the scaffold into ``folder``, which must be new or empty."""
    made = []
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            kind = "not empty" if folder.is_dir() else "a file"
            raise BadInput(f"{folder} is {kind}, and nothing of it is touched; choose another name")
        folder.mkdir(parents=True, exist_ok=True)
        for source in sorted(resources.files("orchestrator.cli").joinpath("scaffold").iterdir(), key=lambda file: file.name):
            path = folder / source.name.removesuffix(_ENDING)
            path.write_text(Template(source.read_text("utf-8")).substitute(name=folder.name), "utf-8")
            made.append(path)
    except OSError as error:
        raise BadInput(f"{folder} can't be made ({error.strerror}); choose a folder that you can write to") from None
    return made


def _missing() -> list[str]:
    found = []
    if find_spec("xllamacpp") is None:
        found.append("the embedded model's engine is not installed: pip install 'callboard[local]', or run with --model PROVIDER:NAME")
    if find_spec("pytest") is None:
        found.append("pytest is not installed, and the test needs it: pip install pytest")
    return found
