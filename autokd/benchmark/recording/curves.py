"""Full trainings that are measured on their way too, so that searches which judge early can be simulated on a table."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autokd.detectors import Detector
from autokd.jobs import Job
from autokd.training.assets import TrainingAssets
from autokd.training.jobs.candidate_metrics import PRECISION_PARTS
from autokd.training.jobs.files import JobFiles
from autokd.training.jobs.full_training import FullTraining
from autokd.training.loop import EpochResult
from autokd.training.measure.validation import validate
from autokd.training.optim.averaging import averaged

FRACTIONS = (1 / 10, 1 / 3)
"""Parts of a training after which it is measured, beside its end."""
RAW_AP = "raw_ap"
"""Metric: AP on val of the weights themselves, where the others are those of a moving average."""


def measured_epochs(num_epochs: int) -> tuple[int, ...]:
    """Return the epochs, from 1, after which a training is measured before its end.

    Args:
        num_epochs: epochs of the training.

    Returns:
        The first epoch at or after each of ``FRACTIONS``; the last epoch is not among them.
    """
    epochs = {math.ceil(fraction * num_epochs - 1e-9) for fraction in FRACTIONS}
    return tuple(sorted(epochs - {num_epochs}))


class CurveTraining(FullTraining):
    """A full training whose reports hold the parts of a proxy's reward after some epochs.

    These are, named as by proxies, AP, AP50 and the worst class's AP on val, the validation loss with its parts, and
    CKA: of the averaged weights if the recipe averages them, and the last time AP of the weights themselves beside it.
    The steps of the training, and its result, are those of a full training.
    """

    def __init__(self, job: Job, assets: TrainingAssets) -> None:
        super().__init__(job, assets)
        self._measured = measured_epochs(self.recipe.epochs)

    def measure_epoch(self, student: Detector, result: EpochResult, deadline: float | None) -> Mapping[str, float]:
        """Measure after the epochs of ``measured_epochs``."""
        metrics = dict(super().measure_epoch(student, result, deadline))
        if result.epoch not in self._measured:
            return metrics
        with averaged(self._average):
            metrics |= self._measure_val(student, deadline)
        if self._average is not None and result.epoch == self._measured[-1]:
            dataset = self._assets.data.full.val
            metrics[RAW_AP] = self._assets.data.meter(dataset).score(self._detect(student, dataset, deadline)).map_50_95
        return metrics

    def finish(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
        """Measure the result, and name its precision on val as the points of the curve do."""
        super().finish(student, files, metrics, deadline)
        if self._job.stop_after is not None:
            return  # one that was cut off has no result
        per_class = [value for name, value in metrics.items() if name.startswith("val_ap/")]
        metrics |= {"ap": metrics["val_ap"], "ap_50": metrics["val_ap_50"], "ap_worst_class": min(per_class)}

    def _measure_val(self, student: Detector, deadline: float | None) -> dict[str, float]:
        data, teachers = self._assets.data, self._assets.teachers
        validation = validate(
            student, data.validation_loader(), teachers.validation_taps(), wants_detections=True, deadline=deadline
        )
        metrics = {"val_loss": validation.val_loss}
        metrics |= {f"val_loss/{part}": loss for part, loss in validation.losses.items()}
        if validation.cka is not None:
            metrics["cka"] = validation.cka
        precision = data.meter(data.full.val).score(validation.detections)
        return metrics | {part: value_of(precision) for part, value_of in PRECISION_PARTS.items()}
