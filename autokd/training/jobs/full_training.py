"""The full training: the student as it will be used, measured once at the end."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

from autokd.config import FullRecipe
from autokd.data import DetectionDataset
from autokd.detectors import Detector
from autokd.files import write_text_atomically
from autokd.jobs import Job
from autokd.metrics import BEST_EPOCH, Split, ap, ap_50, class_ap, size_ap
from autokd.training.assets import TrainingAssets
from autokd.training.checkpoint.checkpoints import Checkpoints
from autokd.training.distillation import Distillation
from autokd.training.jobs.best_epoch import BestEpoch
from autokd.training.jobs.candidate_metrics import candidate_metrics
from autokd.training.jobs.files import JobFiles
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader
from autokd.training.loop import EpochResult, Schedule, StudentExtras, train
from autokd.training.measure.average_precision import AveragePrecision, detect_split
from autokd.training.measure.validation import validate
from autokd.training.optim.averaging import WeightAverage, averaged
from autokd.training.shards import RankGroup
from autokd.training.weights import save_weights

LAST_EVALUATIONS = 3
"""Evaluations before a cut, one an epoch, over which a candidate's metrics are averaged at most."""


def evaluated_epochs(stop_after: int) -> tuple[int, ...]:
    """Return the epochs after which a training that is cut off is judged: the last quarter, three at most.

    Args:
        stop_after: epoch after which it is cut off.
    """
    count = max(1, min(LAST_EVALUATIONS, stop_after // 4))
    return tuple(range(stop_after - count + 1, stop_after + 1))


class FullTraining:
    """Trains a student from scratch by the full recipe; several processes may share it.

    At the end it is measured on validation and test images, and its weights and detections are written. A training that
    is cut off (``Job.stop_after``) is measured as a candidate instead; a later job of the same distiller and seed goes
    on from its checkpoint.
    """

    def __init__(self, job: Job, assets: TrainingAssets) -> None:
        self._job = job
        self._assets = assets
        recipe = self.recipe
        self._best = None if recipe.patience is None else BestEpoch(recipe.patience_metric, recipe.patience)
        self._average: WeightAverage | None = None
        self._evaluated: dict[int, dict[str, float]] = {}

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
        self,
        student: Detector,
        loader: Loader,
        distillation: Distillation | None,
        deadline: float | None,
        checkpoints: Checkpoints,
    ) -> Generator[EpochResult, None, None]:
        """Train by the recipe, to its last epoch or until ``patience`` is at an end."""
        recipe = self.recipe
        if recipe.weight_average is not None:
            self._average = WeightAverage(student, recipe.weight_average)
        results = train(
            student,
            loader,
            recipe,
            seed=self._job.seed,
            distillation=distillation,
            schedule=Schedule(stop_after=self._job.stop_after, max_steps=recipe.most_steps),
            extras=StudentExtras(average=self._average),
            deadline=deadline,
            checkpoints=checkpoints,
        )
        with closing(results):
            for result in results:
                yield result
                # Ranks must stop at the same epoch, and the first one alone measures.
                if self._best is not None and RankGroup.current().from_first(self._best.is_over):
                    return

    def get_state(self) -> Mapping[str, Any]:
        """Return the best epoch so far, if there is ``patience``, and what was measured before a cut."""
        state: dict[str, Any] = {} if self._best is None else dict(self._best.get_state())
        return state | {"evaluated": dict(self._evaluated)} if self._evaluated else state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``get_state`` returned."""
        if self._best is not None:
            self._best.set_state(state)
        self._evaluated = {int(epoch): dict(found) for epoch, found in state.get("evaluated", {}).items()}

    def measure_epoch(self, student: Detector, result: EpochResult, deadline: float | None) -> Mapping[str, float]:
        """Measure the metric of ``patience``, and a candidate before a cut; nothing else: it would decide nothing."""
        return {**self._of_patience(student, result, deadline), **self._of_candidate(student, result.epoch, deadline)}

    def _of_candidate(self, student: Detector, epoch: int, deadline: float | None) -> Mapping[str, float]:
        """Measure a training that will be cut off; at the cut, return the means over its last evaluations."""
        stop_after = self._job.stop_after
        if stop_after is None or epoch not in evaluated_epochs(stop_after) or RankGroup.current().rank > 0:
            return {}
        with averaged(self._average):
            self._evaluated[epoch] = candidate_metrics(student, self._assets, "full", 1.0, deadline)
        if epoch < stop_after:
            return self._evaluated[epoch]
        last = [self._evaluated[each] for each in evaluated_epochs(stop_after) if each in self._evaluated]
        return {name: math.fsum(found[name] for found in last) / len(last) for name in last[-1]}

    def _of_patience(self, student: Detector, result: EpochResult, deadline: float | None) -> Mapping[str, float]:
        best, metric = self._best, self.recipe.patience_metric
        if best is None or RankGroup.current().rank > 0:
            return {}
        with averaged(self._average):
            if metric == "val_ap":
                dataset = self._assets.data.full.val
                found = self._detect(student, dataset, deadline)
                value = self._assets.data.meter(dataset).score(found).map_50_95
            else:
                value = validate(student, self._assets.data.validation_loader(), deadline=deadline).val_loss
            best.add(result.epoch, value, student)
        return {metric: value}

    def finish(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
        """Measure the student on validation and test images; write its weights, its distiller and its detections."""
        if RankGroup.current().rank > 0 or self._job.stop_after is not None:
            # All ranks have the same student; the first one's outcome is the job's. One that was cut off is measured.
            return
        if self._best is not None:
            self._best.put(student)
            metrics[BEST_EPOCH] = self._best.epoch
        # A student that is put back to its best epoch has that epoch's average already.
        with averaged(self._average if self._best is None else None):
            self._measure(student, files, metrics, deadline)

    def _measure(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
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
