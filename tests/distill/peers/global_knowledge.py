"""Distilling Object Detectors with Global Knowledge: prototypes by coupled matching pursuit, and losses by them.

arXiv:2210.09022 and hikvision-research/DAVAR-Lab-ML, ECCV22_Distilling_Object_Detectors_with_Global_Knowledge:
prototype_generation_module.py, kd_one_stage_strategy.py, kd_loss.py. The releases' regions are slices of cells; here
they are exact means over boxes, and cells whose centers a box holds. Each level has all instances. In overlapping boxes
the most reliable counts (there the last).

Legend: N instances of a class, C channels, K classes, P prototypes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from tests.distill.peers.batches import NUM_CLASSES, Batch
from tests.distill.peers.complex_step import Array, Leaves, detached, huber, normalized
from tests.distill.peers.geometry import cells_of, positives
from tests.distill.peers.maps import adapted
from tests.distill.peers.predictions import divergences, rows_of
from tests.distill.peers.relations import vectors

NUM_PROTOTYPES, ALPHA, WIDTH, QUANTILE = 10, 10.0, 0.1, 0.4
Prototypes = tuple[Array, Array, Array]
"""Of one level: the student's vectors (P, C), the teacher's, and the classes (P,)."""


def pursued(student_NC: Array, teacher_NC: Array) -> list[int]:
    """_generate_prototypes_single: rows chosen by coupled matching pursuit, with residuals written out.

    Candidates reach the quantile of density in both spaces; a row is chosen once.
    """
    a, b = normalized(student_NC, 1), normalized(teacher_NC, 1)
    densities = [np.exp(-(((1 - x @ x.T) / WIDTH) ** 2)).sum(1) for x in (a, b)]
    dense = [x >= np.quantile(x, QUANTILE) * (1 - 1e-13) for x in densities]
    candidates = list(np.flatnonzero(dense[0] & dense[1]))
    if not candidates:
        candidates = list(range(len(a)))
    rest_a, rest_b, chosen = a.copy(), b.copy(), []
    while candidates and len(chosen) < NUM_PROTOTYPES:
        best, least = candidates[0], np.inf
        for k in candidates:
            w_a, w_b = _coefficients(rest_a @ a[k], rest_b @ b[k])
            error = ((rest_a - np.outer(w_a, a[k])) ** 2).sum() + ((rest_b - np.outer(w_b, b[k])) ** 2).sum()
            error += ALPHA * ((w_a - w_b) ** 2).sum()
            if error < least - 1e-9:
                best, least = k, error
        w_a, w_b = _coefficients(rest_a @ a[best], rest_b @ b[best])
        rest_a, rest_b = rest_a - np.outer(w_a, a[best]), rest_b - np.outer(w_b, b[best])
        chosen.append(int(best))
        candidates.remove(best)
    return chosen


def _coefficients(i_a: Array, i_b: Array) -> tuple[Array, Array]:
    both = ALPHA * (i_a + i_b)
    return (both + i_a) / (1 + 2 * ALPHA), (both + i_b) / (1 + 2 * ALPHA)


@cache
def prototypes(epoch: tuple[Batch, ...], level: str) -> Prototypes:
    """Return the prototypes of a level, chosen class by class among the instances of an epoch.

    Instances with a side below 30 px of an input of 1333 px are left out, in proportion for other inputs.
    """
    student = np.concatenate([vectors(batch.student[level], batch, level) for batch in epoch])
    teacher = np.concatenate([vectors(batch.teacher[level], batch, level) for batch in epoch])
    labels = np.concatenate([label for batch in epoch for label in batch.labels])
    large = np.concatenate([
        (boxes[:, 2:] - boxes[:, :2] >= 30 * max(batch.image_size_px) / 1333).all(1)
        for batch in epoch for boxes in batch.boxes
    ])  # fmt: skip
    rows: list[int] = []
    for label in range(NUM_CLASSES):
        of_class = np.flatnonzero((labels == label) & large)
        if len(of_class):
            rows += list(of_class[pursued(student[of_class], teacher[of_class])])
    return student[rows], teacher[rows], labels[rows]


def _reliability(student: Array, teacher: Array, labels: Array, known: Prototypes) -> Array:
    """r2i_om_loss: 1 - |q_S - q_T|, q the greatest cosine to a prototype of the class; 1 if the class has none."""
    found = np.ones(len(labels))
    for row, label in enumerate(labels):
        own = known[2] == label
        if own.any():
            q_s = (normalized(student[row : row + 1], 1) @ normalized(known[0][own], 1).T).max()
            q_t = (normalized(teacher[row : row + 1], 1) @ normalized(known[1][own], 1).T).max()
            found[row] = 1 - abs(q_s - q_t)
    return found


def own_level(box: Array, num_levels: int) -> int:
    """_map_roi_levels: floor(log2(side / 56)) from the finest level on, without its pixel and its 1e-6."""
    side = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return int(np.clip(np.floor(np.log2(side / 56)), 0, num_levels - 1))


def global_knowledge(
    of_imitation: float, labels_too: bool
) -> Callable[[Batch, Leaves, tuple[Batch, ...] | None, float], Array]:
    """KDLoss and r2i_om_loss: weights 1 (foreground), 4 (background), 5 (alignment), 1 (soft labels at T = 2).

    Args:
        of_imitation: 1, or 1 / 5 for two-stage detectors: their imitation is divided by the number of levels.
        labels_too: whether soft labels count.
    """

    def loss(batch: Batch, student: Leaves, epoch: tuple[Batch, ...] | None, progress: float) -> Array:
        """``epoch``: the last one, whose instances are prototypes; None: the batch's own instances are."""
        total, reliable, levels = 0.0, [], list(batch.strides)
        labels = np.concatenate(batch.labels)
        for index, level in enumerate(levels):
            t = batch.teacher[level]
            s_RC, t_RC = vectors(student[level], batch, level), vectors(t, batch, level)
            known = (detached(s_RC), t_RC, labels) if epoch is None else prototypes(epoch, level)
            reliability = _reliability(detached(s_RC), t_RC, labels, known)
            reliable.append(reliability)
            mask = _mask(batch, level, index, reliability)
            squares = (adapted(student[level], level, t.shape[1]) - t) ** 2
            for weight, cells in ((1, mask), (4, (mask == 0).astype(float))):
                norm = max(1.0, 2 * t.shape[1] * cells.sum())
                total = total + of_imitation * weight * (squares * cells[:, None]).sum() / norm
            nearness_s = reliability[:, None] * (normalized(s_RC, 1) @ normalized(known[0], 1).T)
            nearness_t = reliability[:, None] * (normalized(t_RC, 1) @ normalized(known[1], 1).T)
            total = total + 5 * huber(nearness_s - nearness_t).mean()
        total = total * (1 - progress)
        return total + _soft_labels(batch, student, reliable) if labels_too else total

    return loss


def _mask(batch: Batch, level: str, index: int, reliability: Array) -> Array:
    """get_gt_mask: the cells of the boxes whose own level this is, weighted by reliability."""
    found, row = np.zeros((batch.num_images, *batch.size_of(level))), 0
    for image, boxes in enumerate(batch.boxes):
        for box in boxes:
            if own_level(box, len(batch.strides)) == index:
                held = cells_of(box, batch.strides[level], batch.size_of(level))
                found[image][held] = np.maximum(found[image][held], reliability[row])
            row += 1
    return found


def _soft_labels(batch: Batch, student: Leaves, reliable: Sequence[Array]) -> Array:
    """knowledge_distillation_kl_div_loss: mean over the classes, times reliability on the own level, mean over rows."""
    chosen = positives(batch)
    first = np.cumsum([0, *(len(boxes) for boxes in batch.boxes)])
    weights = np.array([
        reliable[own_level(batch.boxes[image][which], len(reliable))][first[image] + which]
        for image, _, which in chosen
    ])  # fmt: skip
    rows = divergences(rows_of(student["class_logits"], chosen), rows_of(batch.teacher["class_logits"], chosen), 2.0)
    return (weights * rows / NUM_CLASSES).mean()
