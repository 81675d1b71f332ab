"""Losses of relations between regions: RKD, and MLKD's structure.

A region's vector is the mean of the student's adapted, or the teacher's, map over a ground-truth box, on every level;
the objects of all images are one set. Levels are added.

Legend: R regions, C channels.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from tests.distill.peers.batches import Batch
from tests.distill.peers.complex_step import Array, Leaves, huber
from tests.distill.peers.geometry import region_mean
from tests.distill.peers.maps import adapted
from tests.distill.peers.predictions import binary_divergence


def vectors(maps_BCHW: Array, batch: Batch, level: str) -> Array:
    """Return the mean vector of each object, (R, C)."""
    return np.stack([
        region_mean(map_CHW, box, batch.strides[level])
        for map_CHW, boxes in zip(maps_BCHW, batch.boxes) for box in boxes
    ])  # fmt: skip


def distances(vectors_RC: Array) -> Array:
    """Pairwise distances over their mean over different vectors, (R, R): RKD, eq. 4."""
    gap = vectors_RC[:, None] - vectors_RC[None]
    squares = (gap**2).sum(-1)
    others = ~np.eye(len(vectors_RC), dtype=bool)
    found = np.where(others, np.sqrt(np.where(others, squares, 1.0)), 0.0)
    return found / (found.sum() / others.sum())


def rkd(batch: Batch, student: Leaves) -> Array:
    """lenscloth/RKD, metric/loss.py: RkdDistance at 25 and RKdAngle at 50, huber with beta 1.

    Admitted: means over pairs and triplets of different examples, where the release counts those of an example with
    itself as zeros.
    """
    total = 0.0
    for level in batch.strides:
        t = batch.teacher[level]
        s_RC = vectors(adapted(student[level], level, t.shape[1]), batch, level)
        t_RC = vectors(t, batch, level)
        num = len(s_RC)
        total = total + 25 * huber(distances(s_RC) - distances(t_RC)).sum() / (num * (num - 1))
        first, middle, last = np.array(list(permutations(range(num), 3))).T
        angles = [_cosines(x[first], x[middle], x[last]) for x in (s_RC, t_RC)]
        total = total + 50 * huber(angles[0] - angles[1]).mean()
    return total


def _cosines(first: Array, middle: Array, last: Array) -> Array:
    """RKD, eq. 6: the cosines of the angles at the middle ones."""
    a, b = first - middle, last - middle
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def mlkd(batch: Batch, student: Leaves) -> Array:
    """penghui-yang/L2D: MLD at 10, and le_based/huber_dist.py, HuberDist (a sum over pairs divided by n), at 100.

    Admitted: the pairs are all of the batch's objects, on every level; there they are those within a class or an image.
    """
    total = 10 * binary_divergence(batch, student)
    for level in batch.strides:
        t = batch.teacher[level]
        s_RC = vectors(adapted(student[level], level, t.shape[1]), batch, level)
        gap = distances(s_RC) - distances(vectors(t, batch, level))
        total = total + 100 * huber(gap).sum() / len(s_RC)
    return total
