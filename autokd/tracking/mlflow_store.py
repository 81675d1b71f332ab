"""MLflow: a run for the search, and a run inside it for every training.

The store is the one that MLFLOW_TRACKING_URI names, else SQLite in ``mlflow/`` of the run directory.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autokd.errors import needs_extra
from autokd.tracking.contract import RunSummary, TrackedJob, TrackedRun, Tracker

FOLDER = "mlflow"
OWNER_TAG = "autokd.run"
JOB_TAG = "autokd.job"
PARENT_TAG = "mlflow.parentRunId"
_LONGEST_PARAMETER = 500
"""Characters of a parameter that every MLflow server takes."""


class MlflowTracker(Tracker):
    """Runs by MLflow's client; a resumed run finds its own by a tag."""

    def __init__(self, run: TrackedRun) -> None:
        self.check_installed()
        from mlflow import MlflowClient

        folder = run.directory / FOLDER
        address = os.environ.get("MLFLOW_TRACKING_URI")
        is_own = not address
        if is_own:
            folder.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{folder / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=address)
        self._experiment = self._experiment_of(run.name, (folder / "artifacts").as_uri() if is_own else None)
        self._parent = self._find(f"tags.`{OWNER_TAG}` = '{run.owner}'") or self._new_run(
            run.name, {OWNER_TAG: run.owner}
        )
        self._client.set_tag(self._parent, "autokd.directory", str(run.directory))
        self._runs: dict[str, str] = {}

    @classmethod
    def check_installed(cls) -> None:
        """See ``Tracker.check_installed``."""
        with needs_extra("mlflow", "mlflow"):
            import mlflow.tracking  # noqa: F401

    def job_started(self, job: TrackedJob) -> None:
        """Make the training's run, with its parameters."""
        tags = {PARENT_TAG: self._parent, JOB_TAG: job.id, "autokd.group": job.group}
        self._runs[job.id] = run_id = self._new_run(job.id, tags)
        for name, value in {**job.parameters, "formula": job.formula}.items():
            self._client.log_param(run_id, name, str(value)[:_LONGEST_PARAMETER])

    def epoch(self, job: TrackedJob, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._log(self._runs[job.id], metrics, epoch)

    def job_ended(self, job: TrackedJob, status: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """Add the last metrics, and end the run."""
        run_id = self._runs[job.id]
        self._log(run_id, {f"end/{name}": value for name, value in metrics.items()} | {"seconds": seconds}, 0)
        self._client.set_tag(run_id, "autokd.status", status)
        self._client.set_terminated(run_id, "FAILED" if status == "failed" else "FINISHED")

    def finish(self, summary: RunSummary) -> None:
        """Add rewards to the trials' runs, and table, pictures and files to the search's."""
        for job_id, reward in summary.rewards.items():
            if job_id in self._runs:
                self._log(self._runs[job_id], {"reward": reward}, 0)
        self._client.log_text(self._parent, summary.table_markdown, "results.md")
        for row in summary.rows:
            means = {name: value for name, value in row.items() if isinstance(value, float)}
            self._log(self._parent, {f"{row['name']}/{name}": value for name, value in means.items()}, 0)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in summary.pictures.items():
                path = Path(folder) / f"{name}.jpg"
                path.write_bytes(content)
                self._client.log_artifact(self._parent, str(path), "pictures")
        for file in summary.files:
            self._client.log_artifact(self._parent, str(file))

    def close(self, *, is_complete: bool) -> None:
        """End the search's run; one that was interrupted is resumed under the same run."""
        self._client.set_terminated(self._parent, "FINISHED" if is_complete else "KILLED")

    def _experiment_of(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def _find(self, condition: str) -> str | None:
        found = self._client.search_runs([self._experiment], condition, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _new_run(self, name: str, tags: Mapping[str, str]) -> str:
        return str(self._client.create_run(self._experiment, tags=dict(tags), run_name=name).info.run_id)

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        rows: list[Any] = [Metric(_key(name), value, now_ms, step) for name, value in metrics.items()]
        self._client.log_batch(run_id, metrics=rows)


def _key(name: str) -> str:
    """Return a metric's name in the characters that MLflow takes."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)
