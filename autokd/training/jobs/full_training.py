"""The full training: the student as it will be used, measured once at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from autokd.config import FullRecipe
from autokd.detectors import Detector
from autokd.files import write_text_atomically
from autokd.jobs import Job
from autokd.training.assets import TrainingAssets
from autokd.training.distillation import Distillation
from autokd.training.jobs.files import JobFiles
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader
from autokd.training.loop import EpochResult, train
from autokd.training.measure.average_precision import AveragePrecision
from autokd.training.measure.validation import validate
from autokd.training.shards import RankGroup
from autokd.training.weights import save_weights


class FullTraining:
    """Trains a student from scratch by the full recipe; several processes may share it.

    At the end it is measured on validation and test images, and its weights and detections are written.
    """

    def __init__(self, job: Job, assets: TrainingAssets) -> None:
        self._job = job
        self._assets = assets

    @property
    def recipe(self) -> FullRecipe:
        return self._assets.config.full

    def build_student(self) -> Detector:
        """Return a new student of the job's seed."""
        return self._assets.students.new(self._job.seed)

    def build_loader(self) -> Loader:
        """Return the loader of all training images, whose batches are shared between the ranks of this process."""
        return replace(self._assets.data.training_loader("full"), ranks=RankGroup.current())

    def train(
        self, student: Detector, loader: Loader, distillation: Distillation | None, deadline: float | None
    ) -> Iterator[EpochResult]:
        """Train by the recipe."""
        return train(student, loader, self.recipe, seed=self._job.seed, distillation=distillation, deadline=deadline)

    def measure_epoch(self, student: Detector, result: EpochResult, deadline: float | None) -> Mapping[str, float]:
        """Measure nothing: a full training decides nothing on its way, and to measure takes time."""
        return {}

    def finish(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
        """Measure the student on validation and test images; write its weights, its distiller and its detections."""
        if RankGroup.current().rank > 0:
            # All ranks have the same student; the first one's outcome is the job's.
            return
        assets = self._assets
        validation = validate(
            student,
            assets.data.validation_loader(),
            assets.teachers.validation_taps(),
            wants_detections=True,
            deadline=deadline,
        )
        metrics["val_loss"] = validation.val_loss
        if validation.cka is not None:
            metrics["cka"] = validation.cka
        datasets = assets.data.full
        precision = assets.data.meter(datasets.val).score(validation.detections)
        self._keep_precision("val", precision, files, metrics)
        # Without a test set of its own, test is val.
        if datasets.test is not datasets.val:
            precision = assets.data.meter(datasets.test).measure(
                student, batch_size=EVALUATION_BATCH_SIZE, device=assets.device, deadline=deadline
            )
        self._keep_precision("test", precision, files, metrics)
        files.keep("weights", "student.pt", lambda path: save_weights(path, student.plain_state_dict()))
        if (spec := self._job.spec) is not None:
            files.keep("distiller", "distiller.yaml", lambda path: write_text_atomically(path, spec.to_yaml()))

    def _keep_precision(
        self, split: str, precision: AveragePrecision, files: JobFiles, metrics: dict[str, float]
    ) -> None:
        metrics[f"{split}_ap"] = precision.map_50_95
        metrics[f"{split}_ap_50"] = precision.map_50
        metrics |= {f"{split}_ap/{name}": value for name, value in precision.per_class.items()}
        files.keep(f"detections_{split}", f"detections_{split}.json", precision.save_detections)
