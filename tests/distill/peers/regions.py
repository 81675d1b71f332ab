"""G-DetKD: semantic-guided feature imitation and contrastive distillation of regions.

Legend: R regions, L levels, C channels, D numbers of an embedding or a projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tests.distill.peers.batches import Batch, learned
from tests.distill.peers.complex_step import Array, Leaves, log_softmax, normalized, relu, softmax
from tests.distill.peers.geometry import overlaps, pyramid_level, roi_align
from tests.distill.peers.maps import adapted

PROJECTION = 128
TAU = 3.0


@dataclass(frozen=True)
class Region:
    """A region: the index of its image, and its box (xyxy pixels)."""

    image: int
    box: Array


@cache
def regions(batch: Batch) -> list[Region]:
    """Return the objects and the student's proposals.

    G-DetKD, section 3.3: proposals with an IoU above 0.5 are positive; of the others the best, three for each positive
    or object of the image.
    """
    found = []
    for image, objects in enumerate(batch.boxes):
        found += [Region(image, box) for box in objects]
        if batch.proposals is None or not len(objects):
            continue
        given = batch.proposals[image][np.isfinite(batch.proposals[image]).all(1)]
        is_positive = overlaps(given, objects).max(1) > 0.5
        budget = 3 * (is_positive.sum() + len(objects))
        is_taken = is_positive | (np.cumsum(~is_positive) <= budget)
        found += [Region(image, box) for box in given[is_taken]]
    return found


def _own_level(batch: Batch, region: Region) -> str:
    return list(batch.strides)[pyramid_level(region.box, list(batch.strides.values()))]


def sgfi(batch: Batch, student: Leaves) -> Array:
    """G-DetKD, arXiv:2108.07482, section 3.2, eqs. 1 to 3; compare LutingWang/todd, losses/rcnn.py, SGFILoss.

    alpha = softmax over the levels (todd: over the regions) of <e(f(S_l)), e(T)> / tau; the mean of the squares.
    Regions are 7 x 7 cells of 4 x 4 points. e: two 2x2 convolutions of stride 2 with a ReLU between.
    """
    squares = []
    for region in regions(batch):
        own = _own_level(batch, region)
        t = roi_align(batch.teacher[own][region.image], region.box, batch.strides[own], 7, 4)
        on_levels = []
        for level, stride in batch.strides.items():
            roi = roi_align(student[level][region.image], region.box, stride, 7, 4)
            on_levels.append(adapted(roi[None], "sgfi", t.shape[0])[0])
        s_LCHW = np.stack(on_levels)
        scores = (_embedded(s_LCHW) * _embedded(t[None])).sum(1) / TAU
        mixed = np.einsum("l,lchw->chw", softmax(scores, 0), s_LCHW)
        squares.append(((mixed - t) ** 2).mean())
    return sum(squares) / len(squares)


def _embedded(x_LCHW: Array) -> Array:
    num = min(x_LCHW.shape[1], 32)
    hidden = relu(_halved(x_LCHW, "sgfi.embed.0", num))
    return _halved(hidden, "sgfi.embed.2", num).reshape(len(x_LCHW), -1)


def _halved(x_LCHW: Array, role: str, num_out: int) -> Array:
    """A 2x2 convolution of stride 2, with zeros around maps of odd size."""
    kernel = learned(f"{role}.weight", num_out, x_LCHW.shape[1], 2, 2)
    edge = x_LCHW.shape[2] % 2
    x = np.pad(x_LCHW, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    size = x.shape[2] // 2 * 2
    windows = [x[:, :, i:size:2, j:size:2] for i in range(2) for j in range(2)]
    parts = [np.einsum("oc,lchw->lohw", kernel[:, :, i // 2, i % 2], window) for i, window in enumerate(windows)]
    return sum(parts) + learned(f"{role}.bias", num_out)[:, None, None]


def projected(maps: Leaves, batch: Batch, side: str) -> Array:
    """Return the regions' vectors, (R, D): mean of 7 x 7 cells of 2 x 2 points on the own level, two layers, unit."""
    found = []
    for region in regions(batch):
        own = _own_level(batch, region)
        pooled = roi_align(maps[own][region.image], region.box, batch.strides[own], 7, 2)
        found.append(pooled.mean((1, 2)))
    x_RC = np.stack(found)
    first, second = f"contrast.{side}.first", f"contrast.{side}.second"
    hidden = relu(x_RC @ learned(f"{first}.weight", PROJECTION, x_RC.shape[1]).T + learned(f"{first}.bias", PROJECTION))
    weight = learned(f"{second}.weight", PROJECTION, PROJECTION, scale=0.1)
    return normalized(hidden @ weight.T + learned(f"{second}.bias", PROJECTION), 1)


@cache
def of_teacher(batch: Batch) -> Array:
    return projected(batch.teacher, batch, "teacher")


def contrastive(batch: Batch, student: Leaves, earlier: Sequence[Batch] = ()) -> Array:
    """G-DetKD, section 3.3, eqs. 4 and 5, temperature 0.07; compare LutingWang/todd, losses/ckd.py, CKDLoss.

    Negatives: the teacher's other regions, but those of the same image with an IoU above 0.5, and those of earlier
    batches (a queue of 1024). The partner is in the denominator (todd leaves it out).
    """
    s_RD, t_RD = projected(student, batch, "student"), of_teacher(batch)
    queue = [of_teacher(before) for before in earlier]
    found, values = regions(batch), []
    for row, region in enumerate(found):
        negatives = [
            t_RD[other]
            for other, candidate in enumerate(found)
            if other != row
            and (candidate.image != region.image or overlaps(region.box[None], candidate.box[None])[0, 0] <= 0.5)
        ]
        columns = np.stack([t_RD[row], *negatives, *(vector for rows in queue for vector in rows)])
        values.append(-log_softmax(columns @ s_RD[row] / 0.07, 0)[0])
    return sum(values) / len(values)


def g_detkd(batch: Batch, student: Leaves, earlier: Sequence[Batch] = ()) -> Array:
    """G-DetKD, section 3: semantic-guided imitation and contrastive distillation, weights 1 and 1 (it names none)."""
    return sgfi(batch, student) + contrastive(batch, student, earlier)
