"""``autokd submit``: the search as a Ray job."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import typer

import autokd
from autokd.config import RunConfig, config_yaml
from autokd.errors import RuntimeUnavailableError

CONFIG_FILE = "config.yaml"


def submit_search(
    config: RunConfig,
    address: str,
    *,
    trials: int | None,
    storage: str | None,
    run_dir: Path,
    cache_dir: Path,
    follow: bool,
    send_package: bool = False,
) -> str:
    """Submit ``autokd search`` of the resolved configuration as a job of a Ray cluster.

    The cluster must have autokd installed, unless it is sent, and what autokd needs; it sees the data and the run
    directory under the same paths as this machine.

    Args:
        config: configuration of the run.
        address: address of the cluster's job server, e.g. "http://127.0.0.1:8265".
        trials: number of trials; None: that of the configuration.
        storage: URL of a database that the cluster can reach, without a password, or "@FILE" of the cluster; None:
            study.db in the run directory.
        run_dir: folder of the run.
        cache_dir: folder of trained teachers and cached features.
        follow: print the job's log until it ends.
        send_package: send this machine's autokd, which the job's processes on all nodes import before any other.

    Returns:
        Id of the job.

    Raises:
        RuntimeUnavailableError: if the job that is followed does not succeed.
    """
    from autokd.detectors import resolve
    from autokd.runtime import follow_job, job_status, submit_job

    resolved = resolve(config)
    for note in resolved.notes:
        typer.echo(note)
    command = ["python", "-m", "autokd"] if send_package else ["autokd"]
    command += ["search", CONFIG_FILE, "--ray-address", "auto"]
    command += ["--trials", str(trials)] if trials is not None else []
    command += ["--storage", storage] if storage is not None else []
    command += ["--run-dir", str(run_dir.absolute()), "--cache-dir", str(cache_dir.absolute())]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG_FILE).write_text(config_yaml(resolved), encoding="utf-8")
        packages = [Path(autokd.__file__).parent] if send_package else []
        job_id = submit_job(address, shlex.join(command), working_dir=folder, packages=packages)
    if follow:
        for text in follow_job(address, job_id):
            typer.echo(text, nl=False)
        status, message = job_status(address, job_id)
        if status != "SUCCEEDED":
            raise RuntimeUnavailableError(f"job {job_id} ended as {status}: {message}")
    return job_id
