"""The metrics by which a candidate is judged on its way: the parts of the reward, by one pass over the val images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autokd.detectors import Detector
from autokd.jobs import RecipeName
from autokd.training.assets import TrainingAssets
from autokd.training.loader import EVALUATION_BATCH_SIZE
from autokd.training.measure.average_precision import AveragePrecision, detect_split
from autokd.training.measure.validation import validate

PRECISION_PARTS: Mapping[str, Callable[[AveragePrecision], float]] = {
    "ap": lambda precision: precision.map_50_95,
    "ap_50": lambda precision: precision.map_50,
    "ap_worst_class": lambda precision: precision.worst_class,
}
"""Parts of a reward that are read from one measurement of AP."""

_VALIDATION_PARTS = ("val_loss", "val_loss_parts", "cka")
"""Parts of a reward that need a forward pass with targets."""


def candidate_metrics(
    student: Detector, assets: TrainingAssets, recipe: RecipeName, val_subset: float, deadline: float | None
) -> dict[str, float]:
    """Measure what ``proxy.reward`` asks for.

    Args:
        student: the candidate's student.
        assets: what the job reads.
        recipe: recipe of the training, which says the size of images.
        val_subset: fraction of the validation images.
        deadline: a value of ``time.monotonic`` in seconds; None: no limit.

    Returns:
        The metrics of the reward's parts, by name.
    """
    metrics: dict[str, float] = {}
    detections: tuple[Mapping[str, Any], ...] = ()
    reward, val_set = assets.config.proxy.reward, assets.data.of(recipe).val
    loader = assets.data.validation_loader(recipe, val_subset)
    wanted = [part for part in reward if part in PRECISION_PARTS]
    if not set(_VALIDATION_PARTS).isdisjoint(reward):
        taps = assets.teachers.validation_taps(recipe) if "cka" in reward else None
        validation = validate(student, loader, taps, wants_detections=bool(wanted), deadline=deadline)
        metrics |= {"val_loss": validation.val_loss}
        metrics |= {f"val_loss/{part}": loss for part, loss in validation.losses.items()}
        if validation.cka is not None:
            metrics["cka"] = validation.cka
        detections = validation.detections
    elif wanted:
        found = detect_split(
            student,
            val_set,
            batch_size=EVALUATION_BATCH_SIZE,
            device=assets.device,
            indices=loader.indices(),
            deadline=deadline,
        )
        detections = tuple(found)
    if wanted:
        precision = assets.data.meter(val_set).score(detections, loader.indices())
        metrics |= {part: PRECISION_PARTS[part](precision) for part in wanted}
    return metrics


__all__ = ["PRECISION_PARTS", "candidate_metrics"]
