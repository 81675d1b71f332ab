"""Submission of a whole search to a cluster as a Ray job (``autokd submit``)."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autokd.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

logger = logging.getLogger(__name__)

AGENT_PATIENCE_S = 120.0
"""Seconds for which a cluster may be without an agent that takes jobs: those of new nodes need a while to start."""
_PAUSE_S = 3.0
_NO_AGENT = "No available agent"
_IS_THERE = "already exists"


def submit_job(
    address: str,
    entrypoint: str,
    *,
    working_dir: str | Path | None = None,
    env_vars: Mapping[str, str] | None = None,
    packages: Sequence[str | Path] = (),
    job_id: str | None = None,
) -> str:
    """Start a shell command on a Ray cluster.

    Waits for at most ``AGENT_PATIENCE_S`` while no node has an agent that takes jobs.

    Args:
        address: of the cluster's dashboard, http://host:8265.
        entrypoint: the command.
        working_dir: folder that is packed, sent and made the command's working directory; None: none.
        env_vars: environment variables of the command.
        packages: folders of Python packages that are sent too, and that every process of the job imports before
            those that its node has.
        job_id: id of the job; None: a random one.

    Returns:
        The job's id.

    Raises:
        RuntimeUnavailableError: if the cluster does not answer or refuses.
    """
    client = _client(address)
    runtime_env: dict[str, object] = {}
    if working_dir is not None:
        runtime_env["working_dir"] = str(Path(working_dir).resolve())
    if env_vars:
        runtime_env["env_vars"] = dict(env_vars)
    if packages:
        runtime_env |= {"py_modules": [str(Path(each).resolve()) for each in packages], "excludes": ["__pycache__"]}
    # The id is fixed before the first attempt: a job that was taken without an answer is not started twice.
    job_id = job_id or f"autokd-{secrets.token_hex(8)}"
    try:
        return _submit(client, entrypoint, runtime_env, job_id)
    except (RuntimeError, ValueError, OSError) as error:
        remedy = f"\n{_agent_remedy()}" if _NO_AGENT in str(error) else ""
        raise RuntimeUnavailableError(f"the cluster at {address} did not take the job: {error}{remedy}") from error


def _submit(client: JobSubmissionClient, entrypoint: str, runtime_env: dict[str, object], job_id: str) -> str:
    until_s = time.monotonic() + AGENT_PATIENCE_S
    is_again = False
    while True:
        try:
            submitted: str = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, submission_id=job_id)
            return submitted
        except RuntimeError as error:
            if is_again and _IS_THERE in str(error):
                return job_id  # an attempt before was taken
            if _NO_AGENT not in str(error) or time.monotonic() > until_s:
                raise
            if not is_again:
                logger.warning("no node of the cluster takes jobs yet; trying for %g s", AGENT_PATIENCE_S)
        is_again = True
        time.sleep(_PAUSE_S)


def _agent_remedy() -> str:
    return (
        f"No node had an agent that takes jobs for {AGENT_PATIENCE_S:g} s. Either the nodes are still starting: try "
        "again. Or another Ray on the head's machine holds the agent's port 52365: stop it, or start the head with "
        "'ray start --head --dashboard-agent-listen-port=PORT' and a free port. The reason is in dashboard_agent.log "
        "(/tmp/ray/session_latest/logs on the head)."
    )


def follow_job(address: str, job_id: str) -> Iterator[str]:
    """Follow a job's log until the job ends; ``job_status`` has the result.

    Args:
        address: of the cluster's dashboard.
        job_id: the job.

    Yields:
        Parts of the log as they are written.

    Raises:
        RuntimeUnavailableError: if the cluster does not answer.
    """
    import asyncio

    client = _client(address)
    # Ray has the log as an asynchronous generator only; a loop of its own drives it one part at a time.
    loop = asyncio.new_event_loop()
    lines = client.tail_job_logs(job_id)
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(lines))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def job_status(address: str, job_id: str) -> tuple[str, str]:
    """Read a job's status.

    Args:
        address: of the cluster's dashboard.
        job_id: the job.

    Returns:
        PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, and the cluster's message.

    Raises:
        RuntimeUnavailableError: if the cluster does not answer.
    """
    info = _client(address).get_job_info(job_id)
    return str(info.status.value), str(info.message or "")


def stop_job(address: str, job_id: str) -> None:
    """Ask the cluster to end a job.

    Args:
        address: of the cluster's dashboard.
        job_id: the job.

    Raises:
        RuntimeUnavailableError: if the cluster does not answer.
    """
    _client(address).stop_job(job_id)


class JobServer:
    """A cluster's job server, with one connection for many requests.

    Args:
        address: of the cluster's dashboard.

    Raises:
        RuntimeUnavailableError: if the cluster does not answer.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = _client(address)

    def submit(
        self,
        job_id: str,
        entrypoint: str,
        *,
        working_dir: Path | None = None,
        env_vars: Mapping[str, str] | None = None,
    ) -> None:
        """Start a shell command; do nothing if there is a job of its id.

        Args:
            job_id: id of the job.
            entrypoint: the command.
            working_dir: folder that is packed, sent and made the command's working directory; None: none.
            env_vars: environment variables of the command.

        Raises:
            RuntimeUnavailableError: if the cluster does not answer or refuses.
        """
        runtime_env: dict[str, object] = {} if working_dir is None else {"working_dir": str(working_dir.resolve())}
        runtime_env |= {"env_vars": dict(env_vars)} if env_vars else {}
        if job_id in self.statuses():
            return
        with self._answering():
            self._client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, submission_id=job_id)

    def statuses(self) -> dict[str, tuple[str, str]]:
        """Return status (PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED) and message of all submitted jobs, by id."""
        with self._answering():
            jobs = self._client.list_jobs()
        return {
            str(job.submission_id): (str(job.status.value), str(job.message or ""))
            for job in jobs
            if job.submission_id is not None
        }

    def stop(self, job_id: str) -> None:
        """Ask a job to end.

        Args:
            job_id: the job.
        """
        with self._answering():
            self._client.stop_job(job_id)

    def log(self, job_id: str) -> str:
        """Return what a job has written so far.

        Args:
            job_id: the job.
        """
        with self._answering():
            text: str = self._client.get_job_logs(job_id)
        return text

    def delete(self, job_id: str) -> None:
        """Remove an ended job from the cluster's list.

        Args:
            job_id: the job.
        """
        with self._answering():
            self._client.delete_job(job_id)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:
            raise RuntimeUnavailableError(f"the cluster at {self._address} does not answer: {error}") from error


def _client(address: str) -> JobSubmissionClient:
    try:
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        from autokd.runtime.ray.session import enable_local_token
        from autokd.runtime.ray.token import TOKEN_REMEDY
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'Ray\'s job client cannot be imported ({error}). Install it: pip install "ray[tune,default]".'
        ) from error
    if not address.startswith(("http://", "https://")):
        address = f"http://{address}"
    enable_local_token(urlsplit(address).hostname or "")
    try:
        return JobSubmissionClient(address)
    except RayError as error:
        raise RuntimeUnavailableError(f"the Ray cluster at {address} refuses: {error}\n{TOKEN_REMEDY}") from error
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise RuntimeUnavailableError(
            f"no Ray cluster answers at {address}: {error}\n"
            "Give the address of its dashboard (http://host:8265; 'ray start --head' prints it)."
        ) from error
