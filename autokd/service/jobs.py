"""The contract of a job backend: what runs the searches. Ray jobs, processes of this machine, or a fake in tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

JobState = Literal["pending", "running", "succeeded", "failed", "stopped"]
LIVE_JOB_STATES: tuple[JobState, ...] = ("pending", "running")


@dataclass(frozen=True)
class JobStatus:
    """A job as its backend knows it.

    Args:
        state: its state.
        message: the backend's words on it.
    """

    state: JobState
    message: str = ""


@dataclass(frozen=True)
class JobRequest:
    """A job to be run.

    Args:
        job_id: its id, under which a backend runs at most one job.
        arguments: arguments of ``autokd``.
        working_dir: folder with the config file, which the job's working directory is a copy of, or is.
        environment: environment variables.
    """

    job_id: str
    arguments: tuple[str, ...]
    working_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class JobBackend(Protocol):
    """Runs ``autokd`` commands. Methods raise ``RuntimeUnavailableError`` while the backend does not answer.

    A backend outlives the service: a service that starts again finds the jobs of the one before.
    """

    name: str
    """Word for the pages: where searches run."""

    def submit(self, request: JobRequest) -> None:
        """Start a job; do nothing if there is a job of its id.

        Args:
            request: the job.
        """

    def statuses(self) -> Mapping[str, JobStatus]:
        """Return the status of every job that the backend knows, by id."""

    def stop(self, job_id: str) -> None:
        """Ask a job to end. It counts as stopped once ``statuses`` says so; one that is not known is left out.

        Args:
            job_id: the job.
        """

    def log(self, job_id: str) -> str:
        """Return what a job has written so far; empty if the backend does not know it.

        Args:
            job_id: the job.
        """

    def forget(self, job_id: str) -> None:
        """Remove what the backend keeps of an ended job.

        Args:
            job_id: the job.
        """
