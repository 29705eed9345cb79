"""What a word of the command line may become: runs, targets and models, for completion in a shell.

Nothing is created, fetched or imported by asking, and whatever goes wrong means no candidates: a shell has no place for errors.
"""

import ast
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from click import Context, Parameter
from click.shell_completion import CompletionItem

Items = list["CompletionItem[str]"]
Candidates = Callable[[Context, Parameter, str], Items]

MOST_RUNS = 40
"""The newest runs are offered."""


def _quietly(find: Candidates) -> Candidates:
    @wraps(find)
    def found(ctx: Context, param: Parameter, incomplete: str) -> Items:
        try:
            return find(ctx, param, incomplete)
        except Exception:
            return []

    return found


@_quietly
def runs(ctx: Context, param: Parameter, incomplete: str) -> Items:
    """``last`` and the ids of the newest runs of the journal, each with its team, standing and goal."""
    from orchestrator.journal import address_of, open_journal
    from orchestrator.observe.history import glance

    store = ctx.params.get("store")
    path = address_of(store)
    if path is None or not os.path.isfile(path):  # opening would make it
        return []
    journal = open_journal(store)
    try:
        rows = [row for row in journal.runs() if row.seq and row.run.startswith(incomplete)][:MOST_RUNS]
        found = [("last", "the newest run")] if "last".startswith(incomplete) else []
        for seen in (glance(journal, row) for row in rows):
            standing = "unfinished" if seen.ended is None else seen.status.value
            found.append((seen.run, f"{seen.team}, {standing}: {seen.goal[:50]}"))
    finally:
        journal.close()
    return [CompletionItem(value, help=about) for value, about in found]


@_quietly
def targets(ctx: Context, param: Parameter, incomplete: str) -> Items:
    """Python files that define a team; after a file's colon, the names of its teams; else whatever files the shell offers."""
    where, colon, name = incomplete.rpartition(":")
    if colon:
        return [CompletionItem(f"{where}:{team}") for team in _teams(Path(where).expanduser()) if team.startswith(name)]
    folder, start = os.path.split(incomplete)
    files = sorted(Path(folder or ".").expanduser().glob("*.py"))
    found = [CompletionItem(os.path.join(folder, path.name)) for path in files if path.name.startswith(start) and _teams(path)]
    return found or [CompletionItem(incomplete, type="file")]


@_quietly
def models(ctx: Context, param: Parameter, incomplete: str) -> Items:
    """The embedded models by their ids, and the beginnings of providers' ids."""
    from agents.models.catalogue import CATALOGUE, PROVIDER
    from agents.models.provider import PROVIDERS

    known = [(f"{PROVIDER}:{entry.id}", entry.title) for entry in CATALOGUE.values()]
    known = [(PROVIDER, "the default embedded model"), *known, *((f"{one}:", "a provider's model, by its name") for one in PROVIDERS)]
    return [CompletionItem(value, help=about) for value, about in known if value.startswith(incomplete)]


@_quietly
def embedded(ctx: Context, param: Parameter, incomplete: str) -> Items:
    """The ids of the catalogue."""
    from agents.models.catalogue import CATALOGUE

    return [CompletionItem(entry.id, help=entry.title) for entry in CATALOGUE.values() if entry.id.startswith(incomplete)]


def _teams(path: Path) -> list[str]:
    """The names at the top of a file to which a call of ``Team`` is assigned. The file is read, not run."""
    text = path.read_text("utf-8", errors="replace")
    if "Team(" not in text:
        return []
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    return [
        name.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func).rpartition(".")[2] == "Team"
        for name in node.targets
        if isinstance(name, ast.Name)
    ]
