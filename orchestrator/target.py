"""Targets: where a team is defined, as ``file.py:name`` or ``package.module:name``, and how it is loaded from there."""

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from pydantic import ValidationError

from agents.settings import problems_of
from orchestrator.team import Team
from protocols.failures import BadInput, CallboardError
from protocols.record import Record

DEFAULT_NAME = "team"

_OTHERS = (str(Path(__file__).parent.parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
"""Where code is that is nobody's target."""


class Target(NamedTuple):
    """A team and the place that it came from, written so that it means the same from every folder."""

    team: Team
    place: str


def load(text: str) -> Target:
    """The team at ``text``; the name after the colon is ``team`` when it is left out.

    The folder of a file, or the working directory for a module, goes first on the import path, as ``python`` does it.
    Raises ``BadInput`` that says what is wrong and what to write instead; what the code itself prints goes where it always goes.
    """
    where, name = split(text)
    if is_file(where):
        module, place = _from_file(where)
    else:
        module, place = _from_module(where)
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise BadInput(f"{where} has no {name!r}; {_offer(where, module)}")
        found = getattr(found, part)
    if not isinstance(found, Team):
        raise BadInput(f"{name!r} in {where} is a {type(found).__name__}, not a Team; {_offer(where, module)}")
    return Target(found, f"{place}:{name}")


def split(text: str) -> tuple[str, str]:
    """The file or module of a target, and the name in it. Raises ``BadInput`` when there is neither."""
    where, colon, name = text.rpartition(":")
    if not colon or name.endswith(".py") or "/" in name:
        where, name = text, DEFAULT_NAME
    if not where:
        raise BadInput(f"{text!r} names no file or module; write file.py:team or package.module:team")
    return where, name or DEFAULT_NAME


def is_file(where: str) -> bool:
    """Whether ``where`` is written as a file, not as a module."""
    return where.endswith(".py") or "/" in where


def _from_file(where: str) -> tuple[ModuleType, str]:
    path = Path(where).expanduser().resolve()
    if path.suffix != ".py":
        raise BadInput(f"{where} is no Python file; write file.py:team or package.module:team")
    if not path.is_file():
        raise BadInput(f"there is no file {where}" + ("" if not path.exists() else " (it is a folder)") + "; check the path")
    _put_first(str(path.parent))
    # the plain name, so that classes of the file are found again under it; another module of this name keeps its place
    other = f"callboard_target_{path.stem}"
    for known in (path.stem, other):
        loaded = sys.modules.get(known)
        if loaded is not None and getattr(loaded, "__file__", None) == str(path):
            return loaded, str(path)
    name = path.stem if path.stem not in sys.modules and path.stem.isidentifier() else other
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _refused(where, error) from error
    return module, str(path)


def _from_module(where: str) -> tuple[ModuleType, str]:
    if not all(part.isidentifier() for part in where.split(".")):
        raise BadInput(f"{where!r} is no module name; write file.py:team or package.module:team")
    _put_first(str(Path.cwd()))
    try:
        return importlib.import_module(where), where
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            hint = f"; for a file write {where}.py:team" if Path(f"{where}.py").is_file() else "; check its name and the folder you are in"
            raise BadInput(f"there is no module {where!r}{hint}") from None
        raise _refused(where, error) from error
    except BaseException as error:
        raise _refused(where, error) from error


def _put_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _refused(where: str, error: BaseException) -> BaseException:
    """What to raise when the code of a target raised ``error``."""
    if isinstance(error, KeyboardInterrupt):
        return error
    if isinstance(error, SyntaxError):
        line = f" (line {error.lineno} of {error.filename})" if error.lineno else ""
        return BadInput(f"{where} is not valid Python: {error.msg}{line}; correct it and try again")
    if isinstance(error, SystemExit):
        return BadInput(f"{where} ended the program while it was imported; keep that under `if __name__ == '__main__':`")
    if isinstance(error, ModuleNotFoundError):
        return BadInput(f"{where} imports {error.name!r}, which is not installed here; install it in this environment")
    return BadInput(f"{where} could not be loaded{_line(error)}: {_said(error)}")


def _said(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        ours = next((kind for kind in Record.__subclasses__() if kind.__name__ == error.title), None)
        return f"{error.title}: {problems_of(error, list(ours.model_fields) if ours else ())}"
    return str(error) if isinstance(error, CallboardError) else f"{type(error).__name__}: {error}"


def _line(error: BaseException) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename and frame.filename[:1] != "<"
    ]
    mine = [frame for frame in frames if not frame.filename.startswith(_OTHERS)] or frames[1:]
    return f" (line {mine[-1].lineno} of {Path(mine[-1].filename).name})" if mine else ""


def _offer(where: str, module: ModuleType) -> str:
    teams = [name for name, value in vars(module).items() if isinstance(value, Team)]
    if not teams:
        return "it defines no Team; assign one: team = Team(...)"
    return "write " + " or ".join(f"{where}:{name}" for name in teams[:5])
