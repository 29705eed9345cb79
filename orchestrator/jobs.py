"""Ray's job submission: a run whose driver is a job of the cluster, submitted once under the run's id."""

import asyncio
import logging
import shlex
from collections.abc import Callable
from typing import Any

from pydantic import Field
from ray.job_submission import JobStatus, JobSubmissionClient

from protocols.failures import BadInput
from protocols.record import Record


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
        return shlex.join(["python", "-m", "orchestrator.cli", "run", *self.arguments, "--address", "auto", "--run-id", self.run_id])


class Jobs:
    """The jobs of the cluster whose dashboard is at ``address``. Raises ``BadInput`` when nobody answers there."""

    def __init__(self, address: str) -> None:
        logging.getLogger("ray").setLevel(logging.WARNING)  # it tells of every upload and closed socket
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
            raise BadInput(f"Ray refused the job: {said[-1] if said else type(error).__name__}") from None
        return True

    def follow(self, run_id: str, write: Callable[[str], Any]) -> int:
        """Write the job's log as it comes, and return its exit code when it has ended (1 when Ray knows none)."""
        asyncio.run(self._tail(run_id, write))
        info = self._client.get_job_info(run_id)
        if info.driver_exit_code is not None:
            return int(info.driver_exit_code)
        if info.status is not JobStatus.SUCCEEDED:
            write(f"{info.message}\n")
        return 0 if info.status is JobStatus.SUCCEEDED else 1

    async def _tail(self, run_id: str, write: Callable[[str], Any]) -> None:
        async for text in self._client.tail_job_logs(run_id):
            write(text)
