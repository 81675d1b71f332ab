"""CrossKD: the student's head maps through the rest of the teacher's head.

The head of the peers, from its cut on: ReLU, 3x3 convolution, ReLU, 1x1 convolution, of either branch; a candidate a
cell, whose box has the sides exp(x) * stride around the cell's center.

Legend: B images, C channels, H x W cells, A candidates of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.distill.peers.batches import NUM_CLASSES, Batch
from tests.distill.peers.complex_step import Array, Leaves, relu
from tests.distill.peers.maps import convolved
from tests.distill.peers.predictions import boxes_by_score, focal_cross_entropy


def head(maps: Leaves, batch: Batch) -> tuple[Array, Array]:
    """Return class logits (B, A, K) and boxes (B, A, 4) from the maps at the cut."""
    logits, boxes = [], []
    for level, stride in batch.strides.items():
        hidden = {
            branch: relu(convolved(relu(maps[f"{branch}.{level}"]), f"head.{branch}", 8, side=3))
            for branch in ("class", "box")
        }
        found = convolved(hidden["class"], "head.logits", NUM_CLASSES)
        logits.append(found.reshape(*found.shape[:2], -1).swapaxes(1, 2))
        found = np.exp(0.3 * convolved(hidden["box"], "head.sides", 4)) * stride
        sides = found.reshape(*found.shape[:2], -1).swapaxes(1, 2)
        height, width = batch.size_of(level)
        y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
        centers = np.stack([x.ravel(), y.ravel()], -1) * stride
        boxes.append(np.concatenate([centers - sides[..., :2], centers + sides[..., 2:]], -1))
    return np.concatenate(logits, 1), np.concatenate(boxes, 1)


def crosskd(of_classes: float, of_boxes: float, is_generalized: bool) -> Callable[[Batch, Leaves], Array]:
    """jbwang1997/CrossKD, crosskd_single_stage.py and its RetinaNet and FCOS: align_scale, then the teacher's head.

    Admitted: sums are divided by the sum of the teacher's top probabilities, and the factor of the focal loss has no
    gradient.
    """

    def loss(batch: Batch, student: Leaves) -> Array:
        crossed = {
            name: aligned(_to_channels(student[name], name, teacher), teacher)
            for name, teacher in batch.teacher.items()
            if "." in name
        }
        logits_t, boxes_t = head(batch.teacher, batch)
        logits_s, boxes_s = head(crossed, batch)
        boxes = boxes_by_score(boxes_s, boxes_t, logits_t, is_generalized)
        return of_classes * focal_cross_entropy(logits_s, logits_t) + of_boxes * boxes

    return loss


def aligned(student_BCHW: Array, teacher_BCHW: Array) -> Array:
    """align_scale: (x - mean) / (std + 1e-6) * the teacher's std + its mean; over batch and cells, unbiased."""

    def statistics(x: Array) -> tuple[Array, Array]:
        average = x.mean((0, 2, 3), keepdims=True)
        count = x[:, 0].size
        return average, np.sqrt(((x - average) ** 2).sum((0, 2, 3), keepdims=True) / (count - 1))

    average_s, deviation_s = statistics(student_BCHW)
    average_t, deviation_t = statistics(teacher_BCHW)
    return (student_BCHW - average_s) / (deviation_s + 1e-6) * deviation_t + average_t


def _to_channels(student_BCHW: Array, name: str, teacher_BCHW: Array) -> Array:
    channels = teacher_BCHW.shape[1]
    return student_BCHW if student_BCHW.shape[1] == channels else convolved(student_BCHW, f"crossing.{name}", channels)
