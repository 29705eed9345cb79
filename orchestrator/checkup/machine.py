"""The machine: where journals are kept, and room in memory, on disk and in Ray's shared memory."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from orchestrator.checkup.check import Check, note, ok, problem
from orchestrator.home import home_folder
from protocols.failures import CallboardError

GIGABYTE = 1_000_000_000
MEGABYTE = 1_000_000

_SAFE_SQLITE = (3, 51, 3)
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "glusterfs"}
_FULL = 0.95
"""The share of a disk in use at which Ray stops to put objects there."""


def home() -> Check:
    """Whether Callboard's own folder can be written."""
    folder = home_folder()
    there = _nearest(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return problem("home", f"{folder} can't be written", "set CALLBOARD_HOME to a folder that you can write to")
    kind = _file_system(there)
    if kind in _REMOTE:
        said = f"{folder} is on a network file system ({kind}), where SQLite's locks can't be relied on"
        return problem("home", said, "set CALLBOARD_HOME to a folder on a local disk")
    return ok("home", f"{folder}" if folder.is_dir() else f"{folder}, made by the first run")


def journal() -> Check:
    """Whether the journal opens, and what it holds."""
    from orchestrator.journal import open_journal

    path = home_folder() / "journal.db"
    if not path.is_file():
        return ok("journal", "none yet; the first run makes it")
    try:
        with closing(open_journal()) as opened:
            rows = [row for row in opened.runs() if row.seq]
    except CallboardError as error:
        return problem("journal", str(error), "or name another journal with --store")
    size = sum(file.stat().st_size for file in path.parent.glob("journal.db*"))
    unfinished = sum(not row.ended for row in rows)
    what = f"{len(rows):,} run{'' if len(rows) == 1 else 's'}, {size / MEGABYTE:,.1f} MB in {path}"
    if unfinished:
        return note("journal", f"{what}; {unfinished:,} unfinished", "callboard runs")
    return ok("journal", what)


def sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Check:
    """SQLite's version."""
    said = ".".join(map(str, version))
    if version < _SAFE_SQLITE:
        what = f"{said}; before 3.51.3 a very rare fault can damage a file that two connections write and tidy up at one moment"
        return note("sqlite", what, "use a Python with a newer SQLite where many processes share one journal")
    return ok("sqlite", said)


def disks() -> Iterator[Check]:
    """Room for journals and models, and for Ray's session."""
    folder = _nearest(home_folder())
    free = shutil.disk_usage(folder).free
    what = f"{free / GIGABYTE:,.1f} GB free for journals and models"
    if free < 100 * MEGABYTE:
        yield problem("disk", what, f"free some space on the disk of {folder}, or set CALLBOARD_HOME")
    else:
        yield note("disk", what, "free some space before long runs") if free < GIGABYTE else ok("disk", what)
    session = _nearest(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()))
    use = shutil.disk_usage(session)
    if 1 - use.free / use.total > _FULL:
        yield note("disk", f"{session} is over {_FULL:.0%} full, and Ray then stores no more objects there", "free some space there")


def shared_memory(place: str = "/dev/shm") -> Iterator[Check]:
    """Room for Ray's object store. Nothing is said where there is no such place."""
    if os.path.isdir(place):
        use = shutil.disk_usage(place)
        what = f"{use.free / GIGABYTE:,.2f} GB of {use.total / GIGABYTE:,.2f} GB free in {place}"
        if use.free < 256 * MEGABYTE:
            yield note("shared memory", f"{what}: Ray keeps its objects on disk, which is slow", "start the container with --shm-size=1g")
        else:
            yield ok("shared memory", what)


def memory(root: Path = Path("/")) -> Iterator[Check]:
    """Memory that is free, a container's limit considered. Nothing is said where the system does not tell."""
    facts = root / "proc/meminfo"
    if not facts.is_file():
        return
    lines = dict(line.split(":", 1) for line in facts.read_text().splitlines())
    total, free = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit = _number(root / "sys/fs/cgroup/memory.max") or _number(root / "sys/fs/cgroup/memory/memory.limit_in_bytes")
    used = _number(root / "sys/fs/cgroup/memory.current") or _number(root / "sys/fs/cgroup/memory/memory.usage_in_bytes")
    if limit is not None and used is not None and limit < total:
        total, free = limit, min(free, limit - used)
    what = f"{free / GIGABYTE:,.1f} GB of {total / GIGABYTE:,.1f} GB free"
    if free < 0.7 * GIGABYTE:
        yield problem("memory", f"{what}: a local Ray with two hosts takes about 0.7 GB", "end something, or use --runtime inline")
    elif free < 2 * GIGABYTE:
        yield note("memory", f"{what}: Ray and the embedded model together take about 1.7 GB", "with less, use --runtime inline")
    else:
        yield ok("memory", what)


def processors() -> Check:
    """The processors that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(Path("/sys/fs/cgroup/cpu.max"))
    what = f"{usable} to use" + (f", and a container's limit of {quota:g}" if quota else "")
    if (quota or usable) < 2:
        return note("processors", f"{what}: Ray, hosts and an embedded model share it", "use --runtime inline for small teams")
    return ok("processors", what)


def open_files() -> Iterator[Check]:
    """The limit of open files, where the system has one."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 4096:
        more = "ulimit -n 65536" if hard == resource.RLIM_INFINITY or hard >= 65536 else f"ulimit -n {hard}"
        yield note("open files", f"at most {soft:,} at once: many agents with connections may need more", more)
    else:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft:,} at once")


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next((one for one in (path, *path.parents) if one.exists()), path)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _quota(path: Path) -> float | None:
    try:
        most, period = path.read_text().split()
        return int(most) / int(period)
    except (OSError, ValueError):
        return None


def _file_system(folder: Path) -> str:
    """The kind of file system that holds a folder; empty where the system does not tell."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    real = folder.resolve()
    holding = [(place.replace("\\040", " "), kind) for place, kind in mounts]
    found = [(place, kind) for place, kind in holding if real.is_relative_to(place)]
    return max(found, key=lambda one: len(one[0]), default=("", ""))[1]


CHECKS = (home, journal, sqlite, disks, memory, shared_memory, processors, open_files)
