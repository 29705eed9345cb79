"""Programs that tools run: each ends with the call that started it, or with the process that made the call, whichever ends first.

``done = await run("git", "status", "--short", timeout=10)`` gives ``done.exit_code``, ``done.stdout`` and ``done.stderr``.
"""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from agents import reaper
from protocols.failures import BadInput

GATE = 'read -r _ && exec "$@"'
"""What a shell does first: the program begins when its group is known to the reaper, and never when this process has died by then."""

GRACE_SECONDS = 0.5
"""A program that is to end is asked to (SIGTERM); what is left of its group after this long is killed."""


class Finished(NamedTuple):
    """A program that ended by itself: its exit code, below zero for the signal that ended it, and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str


async def run(
    program: str | os.PathLike[str],
    *arguments: str | os.PathLike[str],
    timeout: float | None = None,
    input: str = "",
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    max_bytes: int = 1_000_000,
) -> Finished:
    """Run a program, without a shell, and wait for it. Any exit code is returned, none is raised.

    It leads a process group of its own, and nothing of that group is left when this returns or raises: when the call is cancelled, or has
    taken ``timeout`` seconds (``TimeoutError``), the group is asked to end and killed half a second later; what the program left running
    is killed at once. When this process itself is killed, the group is too. ``max_bytes`` bounds what is kept of each output: the rest is
    read and dropped, and a last line says so. Raises ``OSError`` where there is no such program, ``BadInput`` on systems without
    process groups.
    """
    if os.name != "posix":
        raise BadInput("programs are run in process groups, which this system does not have; use Linux or macOS")
    _find(os.fspath(program), cwd, os.environ if env is None else env)
    loop = asyncio.get_running_loop()
    transport, output = await loop.subprocess_exec(
        lambda: _Output(max_bytes),
        *("/bin/sh", "-c", GATE, "sh", program, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )
    group = transport.get_pid()
    _registry.add(group)
    try:
        async with asyncio.timeout(timeout) as clock:
            stdin = transport.get_pipe_transport(0)
            assert isinstance(stdin, asyncio.WriteTransport)
            stdin.write(b"\n" + input.encode())
            stdin.write_eof()
            await output.exited.wait()
            _signal(group, signal.SIGKILL)  # what it left running may hold its output open
            await output.closed.wait()
        return Finished(transport.get_returncode() or 0, output.text(1), output.text(2))
    except TimeoutError:
        if clock.expired():
            raise TimeoutError(f"{os.fspath(program)} did not end in {timeout or 0:g} s") from None
        raise
    finally:
        try:
            await _end(group, output)
        finally:
            transport.close()


def _find(program: str, cwd: str | os.PathLike[str] | None, env: Mapping[str, str]) -> None:
    """Raise for a program that is not there, in the words of the system: a shell would only say so in its output."""
    if cwd is not None and not os.path.isdir(cwd):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(cwd))
    place = os.path.join(cwd or "", program) if os.path.dirname(program) else program
    if shutil.which(place, path=env.get("PATH", os.defpath)) is None:
        wrong = errno.EACCES if os.path.dirname(program) and os.path.exists(place) else errno.ENOENT
        raise OSError(wrong, os.strerror(wrong), program)


async def _end(group: int, output: "_Output") -> None:
    """Leave nothing of a group, even when this is cancelled, too."""
    try:
        for asked in (signal.SIGTERM, signal.SIGKILL):
            if not output.exited.is_set():
                _signal(group, asked)
                with suppress(TimeoutError):
                    await asyncio.wait_for(output.exited.wait(), GRACE_SECONDS)
    finally:
        _signal(group, signal.SIGKILL)
        _registry.discard(group)


def _signal(group: int, asked: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, asked)


class _Output(asyncio.SubprocessProtocol):
    """What a program writes, the beginning of it kept, and whether it has ended and its pipes are closed."""

    def __init__(self, most: int) -> None:
        self.exited, self.closed = asyncio.Event(), asyncio.Event()
        self._most = most
        self._kept = {1: bytearray(), 2: bytearray()}
        self._total = {1: 0, 2: 0}

    def text(self, fd: int) -> str:
        kept, total = self._kept[fd].decode("utf-8", "replace"), self._total[fd]
        return kept if total <= self._most else f"{kept}\n[cut: {self._most} of {total} bytes shown]"

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._total[fd] += len(data)
        self._kept[fd] += data[: max(self._most - len(self._kept[fd]), 0)]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()


class _Registry:
    """The groups at work of this process, and the reaper that kills them should this process be killed."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._reaper: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def add(self, group: int) -> None:
        with self._lock:
            if self._owner != os.getpid():  # the first call here, or the first after a fork
                self._owner, self._groups, self._reaper = os.getpid(), set(), None
            self._groups.add(group)
            if self._reaper is None or not self._told(f"+{group}\n"):
                self._begin()

    def discard(self, group: int) -> None:
        with self._lock:
            self._groups.discard(group)
            self._told(f"-{group}\n")

    def _begin(self) -> None:
        command = [sys.executable, "-I", "-S", reaper.__file__, str(os.getpid())]
        self._reaper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True
        )
        self._told("".join(f"+{group}\n" for group in self._groups))
        self._reaper.wait()  # some milliseconds, once: then it is no child of this process any more

    def _told(self, lines: str) -> bool:
        """Whether there was somebody to tell."""
        if self._reaper is None or self._reaper.stdin is None:
            return False
        with suppress(BrokenPipeError):
            os.write(self._reaper.stdin.fileno(), lines.encode())
            return True
        return False


_registry = _Registry()
