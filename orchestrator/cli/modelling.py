"""``callboard model``: the embedded models there are, and fetching them; also for a run whose model is not here yet."""

import sys
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from orchestrator.cli import candidates, options, streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Heard = Callable[[int, int], None]

MEGABYTE = 1_000_000


@click.group(epilog=options.examples("callboard model list", "callboard model pull"))
@options.debug
def model() -> None:
    """The embedded models: which there are, and fetching them ahead."""


@model.command("list", epilog=options.examples("callboard model list", "callboard model list --json"))
@options.as_json
@options.debug
def list_models(as_json: bool) -> int:
    """List the catalogue, and what of it is on this machine."""
    from agents.models.catalogue import CATALOGUE, DEFAULT, PROVIDER
    from agents.models.weights import locate

    found = [(entry, locate(entry)) for entry in CATALOGUE.values()]
    if as_json:
        fields = {"id", "title", "sha256", "size", "licence", "description"}
        listed = [entry.model_dump(mode="json", include=fields) | {"path": path and str(path)} for entry, path in found]
        streams.write_json({"models": listed, "default": DEFAULT}, sys.stdout)
        return 0
    for entry, path in found:
        default = ", the default" if entry.id == DEFAULT else ""
        click.echo(f"{PROVIDER}:{entry.id}  ({entry.title}{default})")
        click.echo(f"    {entry.size / MEGABYTE:,.0f} MB, {entry.licence}, {f'here: {path}' if path else 'not fetched yet'}")
        click.echo(f"    {entry.description}")
    return 0


@model.command(
    "pull",
    short_help="Fetch a model's file and check it.",
    epilog=options.examples("callboard model pull", "callboard model pull qwen2.5-coder-0.5b"),
)
@click.argument("name", metavar="[ID]", default="default", shell_complete=candidates.embedded)
@options.as_json
@options.debug
def pull_model(name: str, as_json: bool) -> int:
    """Fetch a model's file (the default's without ID) and check it against its SHA-256."""
    with streams.kept() as out:
        path = _pull(name)
        if as_json:
            streams.write_json({"model": name, "path": str(path)}, out)
        else:
            out.write(f"{path}\n")
    return 0


def have(models: Iterable[str]) -> None:
    """Fetch those of ``models`` (ids as roles give them) that are embedded and not on this machine yet, with a progress bar."""
    from agents.models.catalogue import PROVIDER
    from agents.models.weights import locate

    for provider, _, name in sorted({model.partition(":") for model in models}):
        if provider == PROVIDER and locate(name) is None:
            _pull(name)


def _pull(name: str) -> "Path":
    from agents.models.weights import pull

    with _bar(f"fetching model {name or 'default'}") as heard:
        return pull(name, heard)


@contextmanager
def _bar(title: str) -> "Iterator[Heard]":
    console = streams.errors()
    if not console.is_terminal:
        told = -1

        def line(done: int, total: int) -> None:
            nonlocal told
            quarter = done * 4 // max(total, 1)
            if quarter > told:
                told = quarter
                streams.note(f"{title}: {done / MEGABYTE:,.0f} of {total / MEGABYTE:,.0f} MB")

        yield line
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
