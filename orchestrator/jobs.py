"""Ray's job submission: a run whose driver is a job of the cluster, submitted once under the run's id."""

import asyncio
import json
import logging
import shlex
import time
from collections.abc import Callable
from typing import Any

from pydantic import Field
from ray.job_submission import JobStatus, JobSubmissionClient

from protocols.failures import BadInput
from protocols.record import Record

_LOOK_SECONDS = 1.0
_NO_AGENT = "No available agent"
_TALKATIVE = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Ray's loggers that tell of every upload and closed socket."""


class Job(Record):
    """A run as a job: the arguments of ``callboard run``, and what Ray is asked for the process that drives it.

    ``memory`` is in bytes; ``runtime_env`` and ``metadata`` are Ray's.
    """

    run_id: str
    arguments: tuple[str, ...]
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None

    @property
    def entrypoint(self) -> str:
        """The command line that the cluster carries out."""
        return shlex.join(
            ["python", "-m", "orchestrator.cli", "run", *self.arguments, "--address", "auto", "--run-id", self.run_id, "--json"]
        )


class Jobs:
    """The jobs of the cluster whose dashboard is at ``address``. Raises ``BadInput`` when nobody answers there."""

    def __init__(self, address: str) -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.address = address if "://" in address else f"http://{address}"
        try:
            self._client = JobSubmissionClient(self.address)
        except (ConnectionError, RuntimeError) as error:
            said = str(error).strip().splitlines()[0]
            raise BadInput(f"no Ray dashboard answers at {self.address} ({said}); check --address, it is the dashboard's") from None

    def submit(self, job: Job) -> bool:
        """Submit ``job``; ``False`` when one of this run was submitted before. Raises ``BadInput`` when Ray refuses it."""
        if any(known.submission_id == job.run_id for known in self._client.list_jobs()):
            return False
        try:
            self._client.submit_job(
                entrypoint=job.entrypoint,
                submission_id=job.run_id,
                runtime_env=job.runtime_env,
                metadata={**job.metadata, "run_id": job.run_id},
                entrypoint_num_cpus=job.num_cpus,
                entrypoint_num_gpus=job.num_gpus,
                entrypoint_memory=job.memory,
            )
        except (RuntimeError, ValueError, OSError) as error:
            said = [line for line in str(error).strip().splitlines() if line.strip()]
            if any("already exists" in line for line in said):
                return False
            if any(_NO_AGENT in line for line in said):
                raise BadInput(
                    f"no node of the cluster at {self.address} takes jobs; try again in a moment, and if that does not help start the "
                    f"cluster again, with `callboard up` or `ray start --dashboard-agent-listen-port=0`: that port was taken"
                ) from None
            raise BadInput(f"Ray refused the job: {said[-1] if said else type(error).__name__}") from None
        return True

    def follow(self, run_id: str, write: Callable[[str], Any]) -> dict[str, Any]:
        """Write the job's log line by line as it comes, but for what the run came to: that is returned, as ``--json`` says it.

        Of a job that ended without a word of that there is the exit code alone (1 when Ray knows none), and why.
        """
        try:
            asyncio.run(self._tail(run_id, write))
        except (RuntimeError, OSError):  # the connection was lost, or a report is longer than what it carries at once
            while not self._client.get_job_status(run_id).is_terminal():
                time.sleep(_LOOK_SECONDS)
        for line in reversed(self._client.get_job_logs(run_id).split("\n")):
            found = _report(line)
            if found is not None:
                return found
        info = self._client.get_job_info(run_id)
        code = info.driver_exit_code
        if code is None:
            code = 0 if info.status is JobStatus.SUCCEEDED else 1
        message = (info.message or "the job ended without a report").partition(", last available logs")[0]  # they were written above
        write(message)
        return {"error": {"code": "unexpected", "message": message}, "exit_code": int(code)}

    async def _tail(self, run_id: str, write: Callable[[str], Any]) -> None:
        begun = ""
        async for text in self._client.tail_job_logs(run_id):
            *lines, begun = (begun + text).split("\n")
            for line in lines:
                if _report(line) is None:
                    write(line)
        if begun:
            write(begun)


def _report(line: str) -> dict[str, Any] | None:
    """What ``callboard run --json`` said, if it is in this line of its log."""
    if not line.startswith(('{"run": ', '{"error": ')):
        return None
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found if "exit_code" in found else None
