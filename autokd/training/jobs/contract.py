"""The contract of a job's training, which the evaluator walks through from top to bottom."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Protocol

from autokd.config import FullRecipe, ProxyRecipe
from autokd.detectors import Detector
from autokd.training.checkpoint.checkpoints import Checkpoints
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
        self,
        student: Detector,
        loader: Loader,
        distillation: Distillation | None,
        deadline: float | None,
        checkpoints: Checkpoints,
    ) -> Generator[EpochResult, None, None]:
        """Train the student, epoch by epoch; a training that goes on from a checkpoint, from its epoch on."""
        ...

    def get_state(self) -> Mapping[str, Any]:
        """Return what a checkpoint holds beside the training's own state and the reports: tensors and plain values."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``get_state`` returned, before ``train``."""
        ...

    def measure_epoch(self, student: Detector, result: EpochResult, deadline: float | None) -> Mapping[str, float]:
        """Return the metrics that a report has beside the losses, measured after an epoch."""
        ...

    def finish(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
        """After the last epoch: measure what is left, add it to ``metrics``, and write files.

        Metrics and files are added one after the other, so that those of a job that fails on the way are kept.
        """
        ...
