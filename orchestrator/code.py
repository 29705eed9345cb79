"""A team's code on its way to hosts: roles with their functions and types, pickled once a run and kept by digest.

Code is not a message: what agents say to each other is never pickled. Modules of the user's own project travel whole, because the
hosts of a cluster can't be expected to find them; what is installed is named, and must be installed on every node.
"""

import os
import pickle
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import cloudpickle

from agents.role import Role
from protocols.failures import BadInput, Failed, Failure, Verdict

Roles = Mapping[str, Role]

_OURS = ("protocols", "agents", "orchestrator")


def pack(roles: Roles) -> bytes:
    """The roles as bytes. Raises ``BadInput`` when something in them can't be sent."""
    try:
        with _by_value():
            return _dumps(roles)
    except Exception:
        pass  # something that a whole module drags along; without it the hosts must find the module themselves
    try:
        return _dumps(roles)
    except Exception as error:
        raise BadInput(
            f"the team's code can't be sent to hosts: {error}; make locks, sockets and open files inside functions, not in globals"
        ) from None


def unpack(data: bytes) -> Roles:
    """The roles in ``data``. Raises ``Failed`` when they can't be loaded here."""
    try:
        roles: Roles = cloudpickle.loads(data)
    except (pickle.UnpicklingError, ImportError, AttributeError, EOFError, TypeError) as error:
        message = f"the team's code can't be loaded on this host: {error}; install what it imports on every node"
        raise Failed(Failure(verdict=Verdict.CODE_ERROR, message=message)) from error
    return roles


def _dumps(roles: Roles) -> bytes:
    data: bytes = cloudpickle.dumps(dict(roles))
    return data


@contextmanager
def _by_value() -> Iterator[None]:
    mine = [module for name, module in list(sys.modules.items()) if _is_the_users(name, module)]
    for module in mine:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in mine:
            cloudpickle.unregister_pickle_by_value(module)


@cache
def _installed() -> tuple[str, ...]:
    roots = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix}
    return tuple(os.path.join(place, "") for root in roots for place in (root, os.path.realpath(root)))


def _is_the_users(name: str, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not file or name == "__main__" or name.split(".", 1)[0] in _OURS or getattr(module, "__name__", None) != name:
        return False
    return not _is_installed(file)


@cache
def _is_installed(file: str) -> bool:
    return (os.path.abspath(file) if ".." in file or not file.startswith(os.sep) else file).startswith(_installed())
