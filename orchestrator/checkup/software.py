"""What is installed: Python, Callboard, its dependencies and extras, packages that clash, models and keys."""

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from orchestrator.checkup.check import Check, note, ok, problem

NAME = "callboard"
PACKAGES = ("protocols", "agents", "orchestrator")
ROOT = Path(__file__).parents[2]
"""The folder that holds the packages which are at work now."""

_PYTHON = (3, 11)
_DEVELOPERS = {"dev"}


def python() -> Check:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    what = f"{version} in {sys.prefix}"
    if sys.version_info < _PYTHON:
        return problem("python", what, "use Python 3.11 or newer")
    if sys.prefix == sys.base_prefix:
        return note("python", f"{what}, which is no virtual environment", "python3 -m venv .venv")
    return ok("python", what)


def callboard() -> Check:
    """Callboard's own version, and where it is."""
    try:
        return ok(NAME, f"{metadata.version(NAME)} in {ROOT}")
    except metadata.PackageNotFoundError:
        return note(NAME, f"used from {ROOT}, not installed", "pip install -e . (in that folder)")


def requirements() -> list[Requirement]:
    """What Callboard asks for, extras included; read from the project's file when it is not installed."""
    try:
        lines = metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {})
        lines = project["dependencies"] + [f'{line}; extra == "{extra}"' for extra, its in extras.items() for line in its]
    return [Requirement(line) for line in lines]


def dependencies() -> Iterator[Check]:
    """Whether everything that is always needed is here in a version that fits; Ray on a line of its own."""
    wrong, right = [], 0
    for wanted in requirements():
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        misfit = _misfit(wanted)
        if wanted.name == "ray":
            asked = f"pip install '{wanted.name}{wanted.specifier}'"
            yield problem("ray", misfit, asked) if misfit else ok("ray", f"{metadata.version('ray')}, the version that is asked for")
        elif misfit:
            wrong.append(problem("dependencies", misfit, f"pip install '{wanted.name}{wanted.specifier}'"))
        else:
            right += 1
    yield from wrong or [ok("dependencies", f"{right} others, all in versions that fit")]


def _misfit(wanted: Requirement) -> str:
    """What is wrong with what is installed for a requirement; empty when it fits."""
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(Version(found), prereleases=True):
        return ""
    return f"{wanted.name} {found} is installed, and {wanted.specifier} is asked for"


def extras() -> Iterator[Check]:
    """What else can be installed with Callboard, and whether it is."""
    wanted = requirements()
    names = sorted({extra for one in wanted for extra in _extras_of(one)} - _DEVELOPERS)
    for extra in names:
        missing = [why for one in wanted if extra in _extras_of(one) for why in _missing(one)]
        name = f"extra {extra}"
        yield note(name, "; ".join(missing), f"pip install '{NAME}[{extra}]'") if missing else ok(name, "installed")


def _extras_of(wanted: Requirement) -> set[str]:
    found: set[str] = set()
    for part in str(wanted.marker or "").split("extra ==")[1:]:
        found.add(part.split('"')[1])
    return found


def _missing(wanted: Requirement) -> list[str]:
    """What of a requirement is not here; with extras of its own, what those ask for."""
    misfit = _misfit(wanted)
    if misfit:
        return [misfit]
    found = []
    for line in metadata.requires(wanted.name) or []:
        inner = Requirement(line)
        if inner.marker is not None and any(inner.marker.evaluate({"extra": extra}) for extra in wanted.extras):
            found += [why] if (why := _misfit(inner)) else []
    return found


def clashes() -> Iterator[Check]:
    """Whether the import names of Callboard are its own here: another distribution's, or a file in this folder, would hide them."""
    providers = metadata.packages_distributions()
    found = []
    for name in PACKAGES:
        others = sorted({one for one in providers.get(name, []) if one.lower() != NAME})
        spec = find_spec(name)
        place = Path(spec.origin).parents[1] if spec and spec.origin else None
        if others:
            said = f"{', '.join(others)} is also imported as `{name}`: the two can't share an environment"
            found.append(problem("imports", said, f"pip uninstall {others[0]}, then install {NAME} again, or keep them apart"))
        elif place != ROOT:
            said = f"`{name}` is imported from {place or 'nowhere'}, not from {ROOT}"
            found.append(problem("imports", said, "take that folder off PYTHONPATH, or rename what is there"))
        found += _hidden_by(Path.cwd(), name)
    yield from found or [ok("imports", f"{', '.join(PACKAGES)} are Callboard's")]


def _hidden_by(folder: Path, name: str) -> Iterator[Check]:
    for path in (folder / f"{name}.py", folder / name / "__init__.py"):
        if folder != ROOT and path.is_file():
            yield note("imports", f"{path} hides Callboard's `{name}` when Python starts in its folder", "rename it")


def models() -> Iterator[Check]:
    """The files of the embedded models."""
    from agents.models.catalogue import CATALOGUE, DEFAULT, PROVIDER
    from agents.models.weights import cache_directory

    for entry in CATALOGUE.values():
        path = cache_directory() / entry.file
        size = path.stat().st_size if path.is_file() else 0
        name, fetch = f"{PROVIDER}:{entry.id}", f"callboard model pull {entry.id}"
        if size == entry.size:
            yield ok(name, f"{size / 1e6:,.0f} MB in {path.parent}")
        elif size:
            yield note(name, f"{path} has {size:,} bytes, not {entry.size:,}", fetch)
        else:
            when = "fetched when it is first used" if entry.id == DEFAULT else "not here, and fetched when it is first used"
            yield note(name, f"{entry.size / 1e6:,.0f} MB, {when}", f"{fetch} (to have it ahead)")


def keys(environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Which providers' keys and other addresses are set. None is needed, none is shown."""
    from agents.models.provider import PROVIDERS

    of_each = [next((key for key in where.keys if environment.get(key)), where.keys[0]) for where in PROVIDERS.values()]
    there = [name for name in of_each if environment.get(name)]
    absent = [name for name in of_each if name not in there]
    parts = [f"{', '.join(there)} set"] * bool(there) + [f"{', '.join(absent)} not set"] * bool(absent)
    parts += [f"{where.address} set" for where in PROVIDERS.values() if environment.get(where.address)]
    yield ok("keys", "; ".join(parts))
    for name in there:
        if environment[name] != environment[name].strip():
            yield problem("keys", f"{name} has white space around it, and providers will refuse it", f"set {name} again, without it")


CHECKS = (python, callboard, dependencies, clashes, extras, models, keys)
