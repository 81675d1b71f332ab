"""The full training: the student as it will be used, measured once at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from autokd.config import FullRecipe
from autokd.data import DetectionDataset
from autokd.detectors import Detector
from autokd.files import write_text_atomically
from autokd.jobs import Job
from autokd.metrics import Split, ap, ap_50, class_ap, size_ap
from autokd.training.assets import TrainingAssets
from autokd.training.distillation import Distillation
from autokd.training.jobs.files import JobFiles
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader
from autokd.training.loop import EpochResult, Schedule, train
from autokd.training.measure.average_precision import AveragePrecision, detect_split
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
        return train(
            student,
            loader,
            self.recipe,
            seed=self._job.seed,
            distillation=distillation,
            schedule=Schedule(max_steps=self.recipe.most_steps),
            deadline=deadline,
        )

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
        meter = assets.data.meter(datasets.val)
        # The matching of val's boxes runs in a thread beside the forward passes over the test images.
        with ThreadPoolExecutor(1) as beside:
            scored = beside.submit(meter.score, validation.detections, by_size=True)
            # Without a test set of its own, test is val.
            found = None if datasets.test is datasets.val else self._detect(student, datasets.test, deadline)
            of_val = scored.result()
        of_test = of_val if found is None else assets.data.meter(datasets.test).score(found, by_size=True)
        self._keep_precision("val", of_val, files, metrics)
        self._keep_precision("test", of_test, files, metrics)
        files.keep("weights", "student.pt", lambda path: save_weights(path, student.plain_state_dict()))
        if (spec := self._job.spec) is not None:
            files.keep("distiller", "distiller.yaml", lambda path: write_text_atomically(path, spec.to_yaml()))

    def _detect(self, student: Detector, dataset: DetectionDataset, deadline: float | None) -> list[dict[str, Any]]:
        return detect_split(
            student, dataset, batch_size=EVALUATION_BATCH_SIZE, device=self._assets.device, deadline=deadline
        )

    def _keep_precision(
        self, split: Split, precision: AveragePrecision, files: JobFiles, metrics: dict[str, float]
    ) -> None:
        metrics[ap(split)] = precision.map_50_95
        metrics[ap_50(split)] = precision.map_50
        metrics |= {size_ap(split, size): value for size, value in precision.per_size.items()}
        metrics |= {class_ap(split, name): value for name, value in precision.per_class.items()}
        files.keep(f"detections_{split}", f"detections_{split}.json", precision.save_detections)
