"""The contract of a tracker: what it receives of a run, in the driver's thread."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autokd.jobs import Job, Outcome, Report
from autokd.spec import formula

Group = Literal["trial", "proxy", "full"]
"""Kind of a training: a trial of the search, another proxy (the reference, the race), a full training."""
Plain = str | int | float | bool
NO_FORMULA = "no distillation"


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers see it.

    Args:
        name: name of the configuration.
        directory: run directory.
        owner: mark of the run, which a resumed run keeps.
        config: resolved configuration as plain data.
    """

    name: str
    directory: Path
    owner: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class TrackedJob:
    """A training as trackers see it.

    Args:
        id: id of the job.
        group: kind of the training.
        formula: distiller as one line.
        parameters: recipe, seed, and every choice of the distiller by its place, such as ``term1.distance``.
    """

    id: str
    group: Group
    formula: str
    parameters: Mapping[str, Plain]


@dataclass(frozen=True)
class RunSummary:
    """The end of a run.

    Args:
        rewards: reward of each trial that has one, by the id of its job.
        table_markdown: table of the results.
        rows: the same, a mapping an entry.
        pictures: name -> bytes of a JPEG: test images with the boxes of each detector.
        files: report.html, results.json, best_distiller.yaml; those that exist.
    """

    rewards: Mapping[str, float] = field(default_factory=dict)
    table_markdown: str = ""
    rows: Sequence[Mapping[str, Plain]] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    files: Sequence[Path] = ()


class Tracker(ABC):
    """Receiver of a run's curves, parameters and results. Methods are called in the driver's thread, one at a time.

    A job of a resumed run may begin again: its epochs are then received anew, and the later value counts.

    Args:
        run: the run.
    """

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None: ...

    @classmethod  # noqa: B027 - a tracker that needs no library has nothing to import
    def check_installed(cls) -> None:
        """Import the tracker's library.

        Raises:
            MissingExtraError: if it is not installed.
        """

    @abstractmethod
    def job_started(self, job: TrackedJob) -> None:
        """Receive a training that begins.

        Args:
            job: the training.
        """

    @abstractmethod
    def epoch(self, job: TrackedJob, epoch: int, metrics: Mapping[str, float]) -> None:
        """Receive the metrics after an epoch.

        Args:
            job: the training.
            epoch: number of epochs done.
            metrics: finite numbers by name.
        """

    @abstractmethod
    def job_ended(self, job: TrackedJob, status: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """Receive the end of a training.

        Args:
            job: the training.
            status: "finished", "pruned" or "failed".
            seconds: its duration.
            metrics: its last metrics, finite numbers by name.
        """

    @abstractmethod
    def finish(self, summary: RunSummary) -> None:
        """Receive the results of a run that has ended.

        Args:
            summary: tables, pictures, files.
        """

    @abstractmethod
    def close(self, *, is_complete: bool) -> None:
        """Close files and connections.

        Args:
            is_complete: whether the run has ended well; else it may be resumed.
        """


class Trackers:
    """Several trackers as one, fed with jobs, reports and outcomes.

    Args:
        trackers: the trackers.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = tuple(trackers)
        self._jobs: dict[str, TrackedJob] = {}

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def started(self, job: Job) -> None:
        """Pass on that a job begins.

        Args:
            job: the job.
        """
        self._jobs[job.id] = tracked = tracked_job(job)
        for tracker in self._trackers:
            tracker.job_started(tracked)

    def reported(self, report: Report) -> None:
        """Pass on the metrics of an epoch.

        Args:
            report: the report.
        """
        for tracker in self._trackers:
            tracker.epoch(self._jobs[report.job_id], report.epoch, _finite(report.metrics))

    def ended(self, outcome: Outcome) -> None:
        """Pass on how a job ended.

        Args:
            outcome: its outcome.
        """
        job = self._jobs.pop(outcome.job_id)
        for tracker in self._trackers:
            tracker.job_ended(job, outcome.status, outcome.seconds, _finite(outcome.metrics))

    def finish(self, summary: RunSummary) -> None:
        """Pass on the results.

        Args:
            summary: the end of the run.
        """
        for tracker in self._trackers:
            tracker.finish(summary)

    def close(self, *, is_complete: bool) -> None:
        """Close all trackers, also if one of them fails.

        Args:
            is_complete: whether the run has ended well.
        """
        failed: list[Exception] = []
        for tracker in self._trackers:
            try:
                tracker.close(is_complete=is_complete)
            except Exception as error:  # noqa: BLE001 - whatever library it is, the others are closed first
                failed.append(error)
        if failed:
            raise failed[0]


def tracked_job(job: Job) -> TrackedJob:
    """Return a job as trackers see it.

    Args:
        job: the job.
    """
    group: Group = "full" if job.recipe == "full" else "trial" if job.id.startswith("trial-") else "proxy"
    parameters: dict[str, Plain] = {"recipe": job.recipe, "seed": job.seed, "digest": job.digest}
    if job.spec is not None:
        for number, term in enumerate(job.spec.to_data().get("terms", []), start=1):
            parameters |= _flat(term, f"term{number}")
    return TrackedJob(job.id, group, formula(job.spec) if job.spec else NO_FORMULA, parameters)


def _flat(value: Any, name: str) -> dict[str, Plain]:
    """Return nested mappings and lists as one mapping, with names such as ``term1.transforms.2.scale``."""
    if isinstance(value, Mapping):
        pairs = [(f"{name}.{key}", item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        pairs = [(f"{name}.{index}", item) for index, item in enumerate(value, start=1)]
    else:
        return {name: value if isinstance(value, (str, int, float, bool)) else str(value)}
    return {key: item for pair in pairs for key, item in _flat(pair[1], pair[0]).items()}


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
