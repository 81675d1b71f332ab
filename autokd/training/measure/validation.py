"""Validation in one forward pass a batch: task losses, CKA with the teacher, detections."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from autokd.detector_outputs import PYRAMID_TAP
from autokd.detectors import Detections, Detector, Target
from autokd.errors import DetectorError, NonFiniteError
from autokd.training.distillation import TeacherTaps
from autokd.training.loader import Loader
from autokd.training.measure.average_precision import coco_results
from autokd.training.measure.cka import Rows, TeachersCKA
from autokd.training.seeds import random_stream, seed_stream

VALIDATION_SEED = 0
"""Seed of losses that sample (Faster R-CNN's): they draw the same numbers at every validation."""


@dataclass(frozen=True)
class Validation:
    """Measurements of a student on the validation images.

    Attributes:
        val_loss: the task loss, mean over images.
        cka: mean over pyramid levels and teachers; None without a teacher.
        losses: parts of ``val_loss`` by name.
        cka_levels: CKA by level of the student.
        detections: COCO results; empty if they were not asked for.
    """

    val_loss: float
    cka: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    cka_levels: Mapping[str, float] = field(default_factory=dict)
    detections: tuple[dict[str, Any], ...] = field(default=(), repr=False)


@torch.no_grad()
def validate(
    student: Detector,
    loader: Loader,
    teacher: TeacherTaps | None = None,
    *,
    rows: Rows = "cells",
    wants_detections: bool = False,
    deadline: float | None = None,
) -> Validation:
    """Measure a student in eval mode; its mode is as before afterwards.

    Args:
        student: the detector, on the loader's device.
        loader: the images, which are taken in order.
        teacher: returns teachers' taps, for CKA; None: no CKA.
        rows: rows of CKA, every cell of a map or one row an instance.
        wants_detections: whether to return detections, from the same forward passes.
        deadline: a value of ``time.monotonic`` in seconds.

    Raises:
        NonFiniteError: if a loss is not finite.
        TimeoutError: if the deadline has passed.
        DetectorError: if the student returns no losses.
    """
    was_training = student.training
    student.eval()
    sums: dict[str, torch.Tensor] = {}
    cka = TeachersCKA(rows) if teacher is not None else None
    detections: list[dict[str, Any]] = []
    num_images = 0
    try:
        with random_stream(loader.device, VALIDATION_SEED, "validation"):
            for step, batch in enumerate(loader.in_order()):
                # A stream for each batch, so that the draws of one do not depend on the detections of those before.
                seed_stream(loader.device, VALIDATION_SEED, "validation", step)
                targets = cast("list[Target]", batch.targets)
                found: list[Detections] = []
                if wants_detections:
                    outputs, found = student.forward_and_detect(batch.images_BCHW, targets, taps=(PYRAMID_TAP,))
                else:
                    outputs = student(batch.images_BCHW, targets, taps=(PYRAMID_TAP,))
                for (index, _), boxes in zip(batch.pairs, found):
                    detections += coco_results(loader.dataset, index, boxes)
                if not outputs.losses:
                    raise DetectorError(f"{type(student).__name__} returned no losses in eval mode.")
                for name, loss in outputs.losses.items():
                    # Batch losses are means over images, and the last batch may have fewer.
                    sums[name] = sums.get(name, loss.new_zeros(())) + loss * batch.num_images
                num_images += batch.num_images
                if cka is not None and teacher is not None:
                    taught = teacher(batch)
                    cka.add(outputs, taught if isinstance(taught, tuple) else (taught,), batch.targets)
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError("out of time while validating.")
    finally:
        student.train(was_training)
    losses = {name: float(value) / num_images for name, value in sums.items()}
    for name, value in losses.items():
        if not torch.isfinite(torch.tensor(value)):
            raise NonFiniteError(f"the validation loss {name} is {value}: the student's weights have diverged.")
    return Validation(
        sum(losses.values()),
        cka.value() if cka else None,
        losses,
        cka.levels() if cka else {},
        tuple(detections),
    )
