"""The contract of a job's training, which the evaluator walks through from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from autokd.config import FullRecipe, ProxyRecipe
from autokd.detectors import Detector
from autokd.training.distillation import Distillation
from autokd.training.jobs.files import JobFiles
from autokd.training.loader import Loader
from autokd.training.loop import EpochResult


class JobTraining(Protocol):
    """One kind of training. An object of it belongs to one job.

    Every method may raise what ends a job: NonFiniteError, TimeoutError, DetectorError, ...; ``deadline`` is a value of
    ``time.monotonic`` in seconds, or None.
    """

    @property
    def recipe(self) -> ProxyRecipe | FullRecipe:
        """The recipe, of which the evaluator reads the time limit."""
        ...

    def build_student(self) -> Detector:
        """Return the student as this training starts from it."""
        ...

    def build_loader(self) -> Loader:
        """Return the loader of the training images."""
        ...

    def train(
        self, student: Detector, loader: Loader, distillation: Distillation | None, deadline: float | None
    ) -> Iterator[EpochResult]:
        """Train the student, epoch by epoch."""
        ...

    def measure_epoch(self, student: Detector, result: EpochResult, deadline: float | None) -> Mapping[str, float]:
        """Return the metrics that a report has beside the losses, measured after an epoch."""
        ...

    def finish(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
        """After the last epoch: measure what is left, add it to ``metrics``, and write files.

        Metrics and files are added one after the other, so that those of a job that fails on the way are kept.
        """
        ...
