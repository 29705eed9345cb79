"""A Ray cluster of this machine that ``callboard up`` starts and ``callboard down`` ends, found again through a file in the home folder.

Ray's processes are the children of one that waits for them, and end with it: nobody else's Ray is ever touched.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from orchestrator.home import home_folder
from protocols.failures import BadInput, CallboardError
from protocols.record import Record

START_SECONDS = 90.0
"""How long Ray is given to start."""

STOP_SECONDS = 30.0
"""How long Ray is given to end before it is killed."""

_LOOK_SECONDS = 0.2
_READY = "Ray runtime started"
_TOKEN = "Token authentication is enabled"


class Warm(Record):
    """A cluster that was started: the process to end it by (and when that began), its address, its dashboard and its log.

    ``authentication`` is Ray's mode that it was started in, ``token`` or ``disabled``. ``folder`` is the one that its hosts work in.
    """

    pid: int
    began: str
    address: str
    dashboard: str | None = None
    log: str = ""
    authentication: str | None = None
    folder: str | None = None

    @property
    def asks_for_token(self) -> bool:
        """Whether Ray's own commands and pages want its token."""
        return self.authentication == "token"


def found() -> Warm | None:
    """The cluster that ``start`` started, if it is still there."""
    try:
        warm = Warm.model_validate_json((home_folder() / "cluster.json").read_bytes())
    except (OSError, ValueError):
        return None
    return warm if _began(warm.pid) == warm.began else None


def heed(warm: Warm) -> None:
    """Have this process join the cluster in the mode that it was started in. To be called before Ray is loaded: it reads this once."""
    if warm.authentication is not None:
        os.environ.setdefault("RAY_AUTH_MODE", warm.authentication)


def start(*, cpus: int | None = None, port: int = 0, dashboard_port: int | None = None) -> Warm:
    """Start a cluster on this machine; ``dashboard_port`` ``None`` is without a dashboard, and a port of 0 is any that is free.

    Its hosts work in the current folder. The dashboard is on loopback; Ray's own ports are on every interface, and who joins needs the
    token where there is one.

    This process is ready to join it then. Raises ``BadInput`` when one is there already or a port is taken, ``CallboardError`` when Ray
    does not start.
    """
    there = found()
    if there is not None:
        raise BadInput(f"a cluster is up already at {there.address}; use it, or end it with `callboard down`")
    home_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    log = home_folder() / "cluster.log"
    port = _free(port)
    # -P: Ray starts in the user's folder, whose files must not hide modules
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    # ports that Ray fixes otherwise: where somebody has the agent's, no job is taken. The client server's can't be 0
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-agent-listen-port=0", f"--ray-client-server-port={_free(0)}"]
    dashboard = None
    if dashboard_port is None:
        command.append("--include-dashboard=false")
    else:
        dashboard = f"127.0.0.1:{_free(dashboard_port)}"
        command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard.rpartition(':')[2]}"]
    if cpus is not None:
        command.append(f"--num-cpus={cpus}")
    # task names hold run and task ids: as metric labels they would be without bound. Hosts stay, so to wait for an idle node is in vain
    settings = {"RAY_metric_cardinality_level": "low", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"} | os.environ
    settings["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])  # jobs say `python`
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True, env=settings
        )
    warm = Warm(
        pid=process.pid,
        began=_began(process.pid) or "",
        address=f"127.0.0.1:{port}",
        dashboard=dashboard,
        log=str(log),
        folder=os.getcwd(),
    )
    try:
        _await_ready(process, log)
    except BaseException:
        stop(warm)
        raise
    # with a token at hand Ray asks for it unless it is told otherwise, and who joins does not see that by itself
    mode = os.environ.get("RAY_AUTH_MODE") or ("token" if _TOKEN in log.read_text(errors="replace") else "disabled")
    warm = warm.model_copy(update={"authentication": mode})
    file = home_folder() / "cluster.json"
    file.write_text(warm.model_dump_json())
    heed(warm)
    return warm


def stop(warm: Warm) -> None:
    """End this cluster and wait until it is gone."""
    until = time.monotonic() + STOP_SECONDS
    with suppress(ProcessLookupError):
        os.kill(warm.pid, signal.SIGTERM)
        while _began(warm.pid) == warm.began:
            if time.monotonic() > until:
                os.killpg(warm.pid, signal.SIGKILL)
                break
            with suppress(ChildProcessError):
                os.waitpid(warm.pid, os.WNOHANG)
            time.sleep(_LOOK_SECONDS)
    (home_folder() / "cluster.json").unlink(missing_ok=True)


def _await_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while _READY not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > until:
            said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise CallboardError(f"Ray did not start: {said[-1] if said else 'it said nothing'}; all it said is in {log}")
        time.sleep(_LOOK_SECONDS)


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise BadInput(f"port {port} is in use; name another one, or 0 for any that is free") from None
        free: int = probe.getsockname()[1]
    return free


def _began(pid: int) -> str | None:
    """What tells this process from a later one of the same number; ``None`` when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
