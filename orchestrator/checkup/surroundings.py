"""The Ray around: a cluster that is named or left behind, ports, authentication, and ``uv run``. Ray itself is not loaded."""

import json
import os
import socket
import stat
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.checkup.check import Check, note, ok, problem

SECONDS = 0.5
"""How long somebody is given to answer."""

PORTS = {6379: "the head of a Ray cluster", 8265: "Ray's dashboard", 52365: "where a node takes jobs"}

_DASHBOARD = 8265
_CLIENT_PORT = 10001


def address(environment: Mapping[str, str] = os.environ, dashboard: int = _DASHBOARD) -> Iterator[Check]:
    """``RAY_ADDRESS``: whether somebody answers there, with the Ray that is installed here."""
    named = environment.get("RAY_ADDRESS")
    if not named:
        yield ok("ray address", "RAY_ADDRESS is not set; a run starts a local Ray of its own")
    elif named in ("auto", "local"):
        yield ok("ray address", f"RAY_ADDRESS is {named}")
    else:
        place = _place(named)
        if place is None:
            yield problem("ray address", f"RAY_ADDRESS is {named!r}, which is no address", "write HOST:6379, or unset RAY_ADDRESS")
        elif not _answers(*place):
            yield problem("ray address", f"RAY_ADDRESS is {named}, and nobody answers there", "start that cluster, or unset RAY_ADDRESS")
        else:
            yield _agreed("ray address", f"RAY_ADDRESS is {named}, and it answers", place[0], dashboard)


def current_cluster(environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """The cluster that Ray remembers on this machine; a stale memory stops whoever looks for a cluster."""
    file = Path(environment.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "ray_current_cluster")
    if not file.is_file():
        return
    place = _place(file.read_text().strip())
    if place is not None and _answers(*place):
        yield _agreed("ray cluster", f"one is at work at {place[0]}:{place[1]}", place[0], _DASHBOARD)
    else:
        yield note("ray cluster", f"{file} names a cluster that is gone, and ray.init() without an address fails on it", f"rm {file}")


def ports(wanted: Mapping[int, str] = PORTS) -> Iterator[Check]:
    """The ports that a cluster on this machine listens on."""
    taken = {port: _holder(port) for port in wanted if _answers("127.0.0.1", port)}
    strangers = {
        port: words
        for port, words in taken.items()
        if not any("/ray/" in word or "gcs_server" in word or word.startswith("ray::") for word in words)
    }
    for port, words in strangers.items():
        who = " ".join(os.path.basename(word) for word in words[:4]) or "another program"
        said = f"{port} ({wanted[port]}) is taken by {who}"
        yield note("ports", said, "end that before you start a cluster here, or give the cluster another port")
    if not strangers:
        used = f"; {', '.join(map(str, taken))} used by Ray" if taken else ""
        yield ok("ports", f"{', '.join(str(port) for port in wanted if port not in taken) or 'none'} free{used}")


def authentication(environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Ray's token: the mode, and where a token comes from. The token is not shown."""
    mode, name = environment.get("RAY_AUTH_MODE", ""), "ray token"
    if mode == "disabled":
        yield note(name, "RAY_AUTH_MODE is disabled: whoever reaches a cluster's ports can run code there", "unset RAY_AUTH_MODE")
        return
    if mode not in ("", "token"):
        yield problem(name, f"RAY_AUTH_MODE is {mode!r}, which Ray does not know", "set it to token, or unset it")
        return
    if environment.get("RAY_AUTH_TOKEN"):
        yield ok(name, "in RAY_AUTH_TOKEN")
        return
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named or "~/.ray/auth_token").expanduser()
    if file.is_file():
        loose = stat.S_IMODE(file.stat().st_mode) & 0o077
        said = f"in {file}, which Ray itself makes readable for every user of this machine"
        yield note(name, said, f"chmod 600 {file}, if others use it") if loose else ok(name, f"in {file}")
    elif named:
        yield problem(name, f"RAY_AUTH_TOKEN_PATH is {named}, and there is no such file", "correct it, or unset it")
    else:
        yield ok(name, "none yet; a local Ray makes one")


def uv_run(environment: Mapping[str, str] = os.environ, process: int | None = None, root: Path = Path("/proc")) -> Iterator[Check]:
    """``uv run`` above this process: Ray's hook then makes every worker build the environment again."""
    if environment.get("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1") in ("0", "false"):
        return
    above = os.getppid() if process is None else process
    while above > 1 and (root / str(above)).is_dir():
        words = (root / str(above) / "cmdline").read_bytes().split(b"\0")
        if os.path.basename(words[0]) == b"uv" and words[1:2] == [b"run"]:
            said = "this was started by `uv run`, and Ray then has every worker pack the folder and build an environment"
            yield note("uv", said, "export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0, or start .venv/bin/callboard itself")
            return
        above = int((root / str(above) / "stat").read_text().rpartition(")")[2].split()[1])


def _place(text: str) -> tuple[str, int] | None:
    """Host and port of an address: ``HOST:PORT``, ``ray://HOST:PORT`` or ``http://HOST:PORT``."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        port = parts.port or {"ray": _CLIENT_PORT, "http": 80, "https": 443}.get(parts.scheme, 6379)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError:
        return False
    return True


def _agreed(name: str, what: str, host: str, dashboard: int) -> Check:
    """Whether the cluster's Ray is the one installed here, as far as its dashboard says."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    host = f"[{host}]" if ":" in host else host
    try:
        with plain.open(f"http://{host}:{dashboard}/api/version", timeout=SECONDS) as reply:
            theirs = str(json.load(reply)["ray_version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ok(name, what)
    ours = metadata.version("ray")
    if theirs != ours:
        return problem(name, f"{what}, with Ray {theirs}; here it is {ours}: they must be the same", f"pip install ray=={ours} there")
    return ok(name, f"{what}, with Ray {theirs} as here")


def _holder(port: int) -> list[str]:
    """The command line of the process that listens on a port; empty when that can't be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    for folder in Path("/proc").glob("[0-9]*/fd") if inodes else ():
        try:
            if any(_points_at(file) in inodes for file in folder.iterdir()):
                return [word for word in (folder.parent / "cmdline").read_text().split("\0") if word]
        except OSError:
            continue
    return []


def _points_at(file: Path) -> str:
    try:
        return os.readlink(file)
    except OSError:  # closed since it was listed
        return ""


CHECKS = (address, current_cluster, ports, authentication, uv_run)
