"""``autokd submit``: the search as a Ray job."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import typer

from autokd.config import RunConfig, config_yaml
from autokd.errors import RuntimeUnavailableError

SPACE_FILE = "space.yaml"


def submit_search(
    config: RunConfig,
    address: str,
    *,
    trials: int | None,
    storage: str | None,
    run_dir: Path,
    cache_dir: Path,
    follow: bool,
) -> str:
    """Send ``autokd search`` of the resolved configuration to the cluster at ``address``; return the job's id.

    The cluster must have autokd installed, and see the data and the run directory under their paths here.
    """
    from autokd.detectors import resolve
    from autokd.runtime import follow_job, job_status, submit_job

    resolved = resolve(config)
    for note in resolved.notes:
        typer.echo(note)
    command = ["autokd", "search", SPACE_FILE, "--ray-address", "auto"]
    command += ["--trials", str(trials)] if trials is not None else []
    command += ["--storage", storage] if storage is not None else []
    command += ["--run-dir", str(run_dir.absolute()), "--cache-dir", str(cache_dir.absolute())]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / SPACE_FILE).write_text(config_yaml(resolved), encoding="utf-8")
        job_id = submit_job(address, shlex.join(command), working_dir=folder)
    if follow:
        for text in follow_job(address, job_id):
            typer.echo(text, nl=False)
        status, message = job_status(address, job_id)
        if status != "SUCCEEDED":
            raise RuntimeUnavailableError(f"job {job_id} ended as {status}: {message}")
    return job_id
