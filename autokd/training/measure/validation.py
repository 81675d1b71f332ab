"""Validation in one forward pass a batch: the task loss, the representation gap to the teacher, the detections."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from autokd.detectors import Detections, Detector, Target
from autokd.errors import DetectorError, NonFiniteError
from autokd.outputs import PYRAMID_TAP
from autokd.training.distillation import TeacherTaps
from autokd.training.loader import Loader
from autokd.training.measure.average_precision import coco_results
from autokd.training.measure.cka import Rows, TeachersCKA
from autokd.training.seeds import random_stream, seed_stream

VALIDATION_SEED = 0
"""Losses that sample (FasterRCNN's) draw the same numbers at every validation."""


@dataclass(frozen=True)
class Validation:
    """``val_loss``: the task loss, mean over images. ``cka``: mean over levels and teachers, None without any.

    ``detections``: COCO results, if they were wanted.
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
    """Measure ``student`` in eval mode on the loader's images in order; its mode is as before afterwards.

    The batch losses are weighted by their numbers of images. NonFiniteError if the loss or the gap is not
    finite, TimeoutError past ``deadline`` (of ``time.monotonic``).
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
                    raise DetectorError(f"{type(student).__name__} gave no losses in eval mode.")
                for name, loss in outputs.losses.items():
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
            raise NonFiniteError(f"the validation loss {name} is {value}: the student's weights have run away.")
    return Validation(
        sum(losses.values()),
        cka.value() if cka else None,
        losses,
        cka.levels() if cka else {},
        tuple(detections),
    )
