"""Searches as Ray jobs, on a cluster or on a Ray that the service starts on this machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

from autokd.errors import RuntimeUnavailableError
from autokd.runtime import JobServer
from autokd.service.jobs import JobRequest, JobState, JobStatus

_STATES: dict[str, JobState] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


class RayBackend:
    """Runs searches as jobs of a Ray cluster: scheduling, logs and stopping are Ray's.

    Args:
        address: returns the address of the job server, such as "http://host:8265"; called again if it does not
            answer, so that a local Ray is started anew.
        command: command on the cluster that gets a job's arguments.
    """

    name = "Ray jobs"

    def __init__(self, address: Callable[[], str], command: Sequence[str] = (sys.executable, "-m", "autokd")) -> None:
        self._address = address
        self._command = tuple(command)
        self._connection: JobServer | None = None

    def submit(self, request: JobRequest) -> None:
        """Submit a job whose workers are those of its cluster."""
        entrypoint = shlex.join((*self._command, *request.arguments, "--ray-address", "auto"))
        self._server().submit(request.job_id, entrypoint, working_dir=request.working_dir, env_vars=request.environment)

    def statuses(self) -> Mapping[str, JobStatus]:
        """Return the status of all jobs of the cluster."""
        try:
            found = self._server().statuses()
        except RuntimeUnavailableError:
            self._connection = None
            raise
        return {job_id: JobStatus(_STATES[state], message) for job_id, (state, message) in found.items()}

    def stop(self, job_id: str) -> None:
        """Have Ray end a job: SIGTERM, then SIGKILL."""
        self._server().stop(job_id)

    def log(self, job_id: str) -> str:
        """Return the job's log; empty if the cluster has lost it."""
        try:
            return self._server().log(job_id)
        except RuntimeUnavailableError:
            return ""

    def forget(self, job_id: str) -> None:
        """Remove a job from Ray's list, if it is there."""
        if job_id in self.statuses():
            self._server().delete(job_id)

    def _server(self) -> JobServer:
        if self._connection is None:
            self._connection = JobServer(self._address())
        return self._connection
