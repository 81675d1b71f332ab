"""Curves and parameters as CSV files in ``tracking/`` of the run directory; no library is needed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autokd.tracking.contract import RunSummary, TrackedJob, TrackedRun, Tracker

FOLDER = "tracking"
CURVES, JOBS, RESULTS, REWARDS = "curves.csv", "jobs.csv", "results.csv", "rewards.csv"
CURVE_COLUMNS = ("job", "group", "epoch", "metric", "value")
JOB_COLUMNS = ("job", "group", "status", "seconds", "formula", "parameters", "metrics")


class CsvTracker(Tracker):
    """Rows are appended as they come, so that a resumed run goes on, and a reader sees whole lines."""

    def __init__(self, run: TrackedRun) -> None:
        self._folder = run.directory / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)

    def job_started(self, job: TrackedJob) -> None:
        """Write nothing: a job's row has its end."""

    def epoch(self, job: TrackedJob, epoch: int, metrics: Mapping[str, float]) -> None:
        """Append a row a metric."""
        rows = [(job.id, job.group, epoch, name, repr(value)) for name, value in metrics.items()]
        self._append(CURVES, CURVE_COLUMNS, rows)

    def job_ended(self, job: TrackedJob, status: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """Append the job's row."""
        texts = (json.dumps(dict(job.parameters), ensure_ascii=False), json.dumps(dict(metrics)))
        self._append(JOBS, JOB_COLUMNS, [(job.id, job.group, status, f"{seconds:.3f}", job.formula, *texts)])

    def finish(self, summary: RunSummary) -> None:
        """Write the tables, and the pictures beside them."""
        columns = list(dict.fromkeys(name for row in summary.rows for name in row))
        self._write(RESULTS, columns, ([row.get(name, "") for name in columns] for row in summary.rows))
        self._write(REWARDS, ("job", "reward"), summary.rewards.items())
        for name, content in summary.pictures.items():
            (self._folder / f"{name}.jpg").write_bytes(content)

    def close(self, *, is_complete: bool) -> None:
        """Close nothing: files are open while a row is written."""

    def _append(self, name: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        path = self._folder / name
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(columns)
            writer.writerows(rows)

    def _write(self, name: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        path: Path = self._folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
