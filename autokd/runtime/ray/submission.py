"""Sending a whole search to a cluster as a Ray job (``autokd submit``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autokd.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


def submit_job(
    address: str,
    entrypoint: str,
    *,
    working_dir: str | Path | None = None,
    env_vars: Mapping[str, str] | None = None,
    job_id: str | None = None,
) -> str:
    """Start the shell command ``entrypoint`` on the cluster at ``address`` (http://host:8265); its id.

    ``working_dir`` is packed, sent and made the command's directory. RuntimeUnavailableError if the cluster
    does not answer or refuses.
    """
    client = _client(address)
    runtime_env: dict[str, object] = {}
    if working_dir is not None:
        runtime_env["working_dir"] = str(Path(working_dir).resolve())
    if env_vars:
        runtime_env["env_vars"] = dict(env_vars)
    try:
        submitted: str = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, submission_id=job_id)
    except (RuntimeError, ValueError, OSError) as error:
        raise RuntimeUnavailableError(f"the cluster at {address} did not take the job: {error}") from error
    return submitted


def follow_job(address: str, job_id: str) -> Iterator[str]:
    """Yield the job's log as it grows, until the job ends; ``job_status`` then says how."""
    import asyncio

    client = _client(address)
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
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, with the cluster's message."""
    info = _client(address).get_job_info(job_id)
    return str(info.status.value), str(info.message or "")


def stop_job(address: str, job_id: str) -> None:
    """Ask the cluster to end the job."""
    _client(address).stop_job(job_id)


def _client(address: str) -> JobSubmissionClient:
    try:
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        from autokd.runtime.ray.session import TOKEN_REMEDY, enable_local_token
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
