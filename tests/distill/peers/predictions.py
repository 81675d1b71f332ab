"""Losses of predictions, candidate by candidate: KD, DKD, DIST, logit standardization, LD, BCKD, MLKD's logits.

Positive are the candidates whose box, by the teacher, has an IoU of at least 0.5 with an object: every detector assigns
in its own way, so the presets do not take the release's assignment. That differs from all releases here.

Legend: P positive candidates, K classes, A candidates, E bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.distill.peers.batches import Batch
from tests.distill.peers.complex_step import (
    Array,
    Leaves,
    absolute,
    detached,
    log_sigmoid,
    log_softmax,
    sigmoid,
    softmax,
)
from tests.distill.peers.geometry import level_of_candidate, paired_overlaps, positives


def rows_of(x_BAK: Array, chosen: Sequence[tuple[int, int, int]]) -> Array:
    """Return the candidates' rows, (P, K)."""
    return np.stack([x_BAK[image, candidate] for image, candidate, _ in chosen])


def positive_logits(batch: Batch, student: Leaves) -> tuple[Array, Array]:
    chosen = positives(batch)
    return rows_of(student["class_logits"], chosen), rows_of(batch.teacher["class_logits"], chosen)


def divergences(student: Array, teacher: Array, temperature: float) -> Array:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each row, summed over its members."""
    s, t = log_softmax(student / temperature, -1), log_softmax(teacher / temperature, -1)
    return temperature**2 * (np.exp(t) * (t - s)).sum(-1)


def kd(batch: Batch, student: Leaves) -> Array:
    """HikariTJU/LD, ld_head.py, loss_kd: KnowledgeDistillationKLDivLoss, weight 10, T 2, mean over the classes.

    avg_factor is the number of a level's positives, and levels are added.
    """
    levels_A, chosen, total = level_of_candidate(batch), positives(batch), 0.0
    for level in range(len(batch.strides)):
        part = [row for row in chosen if levels_A[row[1]] == level]
        if part:
            s, t = rows_of(student["class_logits"], part), rows_of(batch.teacher["class_logits"], part)
            total = total + 10 * (divergences(s, t, 2.0) / s.shape[1]).sum() / len(part)
    return total


def dkd(batch: Batch, student: Leaves) -> Array:
    """megvii-research/mdistiller, detection: dkd_loss with alpha 1, beta 0.25, T 1; the classes have no background.

    TCKD: KL of (target, rest); NCKD: KL of the softmax over the classes but the target; means over the rows.
    """
    s_PK, t_PK = positive_logits(batch, student)
    values = []
    for s, t, (image, _, which) in zip(s_PK, t_PK, positives(batch)):
        label = int(batch.labels[image][which])
        p_s, p_t = softmax(s, 0), softmax(t, 0)
        two_s, two_t = (np.array([p[label], 1.0 - p[label]]) for p in (p_s, p_t))
        target = (two_t * np.log(two_t / two_s)).sum()
        others_s, others_t = softmax(np.delete(s, label), 0), softmax(np.delete(t, label), 0)
        values.append(target + 0.25 * (others_t * np.log(others_t / others_s)).sum())
    return sum(values) / len(values)


def dist(batch: Batch, student: Leaves) -> Array:
    """hunto/DIST_KD, DIST: beta (1 - mean correlation of rows) + gamma (the same of columns), beta = gamma = 1, tau 1.

    On the softmax of positives: the release for RetinaNet (hunto/MasKD) has a sigmoid and all cells.
    """

    def correlations(x: Array, y: Array) -> Array:
        x, y = (z - z.mean(1, keepdims=True) for z in (x, y))
        return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))

    s, t = (softmax(x, 1) for x in positive_logits(batch, student))
    return (1 - correlations(s, t).mean()) + (1 - correlations(s.T, t.T).mean())


def logit_standardization(batch: Batch, student: Leaves) -> Array:
    """sunshangquan/logit-standardization-KD, mdistiller/distillers/KD.py: normalize and kd_loss, T 2, weight 9.

    (x - mean) / (std + 1e-7), unbiased; there rows are images, here positives.
    """

    def standardized(x: Array) -> Array:
        gap = x - x.mean(1, keepdims=True)
        return gap / (np.sqrt((gap**2).sum(1, keepdims=True) / (x.shape[1] - 1)) + 1e-7)

    s, t = (standardized(x) for x in positive_logits(batch, student))
    return 9 * divergences(s, t, 2.0).mean()


def ld(batch: Batch, student: Leaves) -> Array:
    """HikariTJU/LD, ld_head.py, loss_ld: 0.25 sum over positives and edges of w KL / 4, mean over bins, T 10.

    w is the top score, here the teacher's (there the student's).
    """
    chosen = positives(batch)
    s_P4E, t_P4E = rows_of(student["edge_logits"], chosen), rows_of(batch.teacher["edge_logits"], chosen)
    weights = sigmoid(rows_of(batch.teacher["class_logits"], chosen)).max(1)
    of_edges = divergences(s_P4E, t_P4E, 10.0) / s_P4E.shape[-1]
    return 0.25 * (weights[:, None] * of_edges).sum() / 4.0


def focal_cross_entropy(student: Array, teacher: Array) -> Array:
    """sum |p_s - p_t| BCE(p_s, p_t) / max(1, sum of the teacher's top probabilities); the factor has no gradient."""
    target = sigmoid(teacher)
    entropy = -(target * log_sigmoid(student) + (1 - target) * log_sigmoid(-student))
    factor = absolute(sigmoid(detached(student)) - target)
    return (factor * entropy).sum() / max(1.0, target.max(-1).sum())


def boxes_by_score(student: Array, teacher: Array, logits: Array, is_generalized: bool = False) -> Array:
    """Mean of 1 - IoU, weighted by the teacher's top class probability."""
    weights = sigmoid(logits).max(-1)
    return (weights * (1 - paired_overlaps(student, teacher, is_generalized))).sum() / weights.sum()


def bckd(batch: Batch, student: Leaves) -> Array:
    """TinyTigerPan/BCKD: 1 x binary classification distillation + 4 x IoU-based localization distillation.

    Admitted: divided by the teacher's top probabilities (there by positives), IoU for GIoU, weights of boxes the
    teacher's top probability (there the greatest disagreement), the factor of the disagreement without gradient.
    """
    logits = batch.teacher["class_logits"]
    boxes = boxes_by_score(student["boxes"], batch.teacher["boxes"], logits)
    return focal_cross_entropy(student["class_logits"], logits) + 4 * boxes


def binary_divergence(batch: Batch, student: Leaves) -> Array:
    """penghui-yang/L2D, logits_based/mld.py, MLD with "batchmean": KL of each label, summed, divided by the rows."""
    s, t = positive_logits(batch, student)
    yes = sigmoid(t) * (log_sigmoid(t) - log_sigmoid(s))
    no = sigmoid(-t) * (log_sigmoid(-t) - log_sigmoid(-s))
    return (yes + no).sum() / len(s)
