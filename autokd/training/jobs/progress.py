"""Reports and time of a job, over all processes that worked on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from autokd.jobs import Report
from autokd.training.checkpoint.checkpoints import Checkpoints
from autokd.training.jobs.contract import JobTraining


class JobProgress:
    """The reports of a job so far, and its clock; a checkpoint holds both beside the training's state.

    Attributes:
        reports: all reports, those of earlier processes included.
    """

    def __init__(self, job_id: str, began_s: float, training: JobTraining, checkpoints: Checkpoints) -> None:
        """Begin, or go on from a checkpoint; ``training`` takes its own part of it.

        Args:
            job_id: the job's id, which a trial that is tried again does not share with the interrupted one.
            began_s: value of ``time.monotonic`` when this process began the job.
            training: the job's training.
            checkpoints: its checkpoints.
        """
        self.reports: list[Report] = []
        self._job_id, self._began_s, self._training = job_id, began_s, training
        self._earlier_steps_s, self._first_step_s = 0.0, began_s
        if (saved := checkpoints.saved) is not None:
            self._began_s -= saved["seconds"]
            self._earlier_steps_s = saved["steps_s"]
            self.reports += [Report(job_id, epoch, metrics, seconds) for epoch, metrics, seconds in saved["reports"]]
            training.set_state(saved["job"])
        checkpoints.more = self._state

    @property
    def seconds(self) -> float:
        """Time that all processes have worked on the job."""
        return time.monotonic() - self._began_s

    def begin_steps(self) -> float:
        """Start the clock of the time limit, now: what this process has loaded and built before does not count.

        Returns:
            Seconds that earlier processes have used up of the limit, each from its first step on.
        """
        self._first_step_s = time.monotonic()
        return self._earlier_steps_s

    def report(self, epoch: int, metrics: Mapping[str, float]) -> Report:
        """Add a report and return it."""
        self.reports.append(Report(self._job_id, epoch, dict(metrics), self.seconds))
        return self.reports[-1]

    def _state(self) -> dict[str, Any]:
        reports = [[report.epoch, dict(report.metrics), report.seconds] for report in self.reports]
        steps_s = self._earlier_steps_s + time.monotonic() - self._first_step_s
        return {"seconds": self.seconds, "steps_s": steps_s, "reports": reports, "job": self._training.get_state()}
