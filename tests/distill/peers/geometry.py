"""Boxes on maps: which cells they hold, overlaps, means over regions, RoIAlign.

Legend: B images, A candidates of an image, C channels, H x W cells, R regions.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from tests.distill.peers.batches import Batch
from tests.distill.peers.complex_step import Array, greater, lesser


def cells_of(box: Array, stride: int, size: tuple[int, int]) -> Array:
    """Return the (H, W) mask of the cells whose centers a box holds; along each axis at least its own center's."""

    def along(low: float, high: float, num: int) -> Array:
        centers = (np.arange(num) + 0.5) * stride
        held = (low <= centers) & (centers < high)
        held[min(int((low + high) / 2 // stride), num - 1)] = True
        return held

    return np.outer(along(box[1], box[3], size[0]), along(box[0], box[2], size[1]))


@cache
def masks(batch: Batch, level: str) -> tuple[Array, Array]:
    """Return foreground and background (B, H, W).

    FGD, get_fea_loss: a cell of the foreground has 1 / (cells of the box), the greatest of its boxes'; one of the
    background 1 / (cells of the background).
    """
    size = batch.size_of(level)
    inside = np.zeros((batch.num_images, *size))
    for image, boxes in enumerate(batch.boxes):
        for box in boxes:
            held = cells_of(box, batch.strides[level], size)
            inside[image][held] = np.maximum(inside[image][held], 1.0 / held.sum())
    outside = (inside == 0).astype(float)
    return inside, outside / np.maximum(outside.sum((1, 2), keepdims=True), 1.0)


def overlaps(first_A4: Array, second_M4: Array) -> Array:
    """Return the IoU of each two boxes, (A, M)."""
    low = np.maximum(first_A4[:, None, :2], second_M4[None, :, :2])
    high = np.minimum(first_A4[:, None, 2:], second_M4[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (first_A4, second_M4)]
    return common / (areas[0][:, None] + areas[1][None] - common)


def paired_overlaps(first: Array, second: Array, is_generalized: bool = False) -> Array:
    """Return the IoU, or the GIoU (arXiv:1902.09630), of boxes one by one, (...)."""
    common = _sides(greater(first[..., :2], second[..., :2]), lesser(first[..., 2:], second[..., 2:]))
    areas = (_sides(x[..., :2], x[..., 2:]) for x in (first, second))
    union = sum(areas) - common
    if not is_generalized:
        return common / union
    hull = _sides(lesser(first[..., :2], second[..., :2]), greater(first[..., 2:], second[..., 2:]))
    return common / union - (hull - union) / hull


def _sides(low: Array, high: Array) -> Array:
    sides = high - low
    sides = np.where(sides.real > 0, sides, 0.0)
    return sides[..., 0] * sides[..., 1]


@cache
def positives(batch: Batch) -> list[tuple[int, int, int]]:
    """Return (image, candidate, object) where the teacher's box has an IoU of at least 0.5 with an object."""
    found = []
    for image, (boxes_A4, objects_M4) in enumerate(zip(batch.teacher["boxes"], batch.boxes)):
        if len(objects_M4):
            of_objects_AM = overlaps(boxes_A4, objects_M4)
            found += [(image, int(a), int(of_objects_AM[a].argmax()))
                      for a in np.flatnonzero(of_objects_AM.max(1) >= 0.5)]  # fmt: skip
    return found


@cache
def level_of_candidate(batch: Batch) -> Array:
    """Return the index of each candidate's level, (A,)."""
    return np.concatenate([np.full(np.prod(batch.size_of(level)), i) for i, level in enumerate(batch.strides)])


def region_mean(map_CHW: Array, box: Array, stride: int) -> Array:
    """Return the mean of a map over a box: of the bilinear interpolation between the cells' centers, edges continued.

    RoIAlign (arXiv:1703.06870) with infinitely many points. An axis's weights are integrals of piecewise linear
    functions, for which the trapezoidal rule between all kinks is exact.
    """
    rows = _axis_means(box[1] / stride, box[3] / stride, map_CHW.shape[1])
    columns = _axis_means(box[0] / stride, box[2] / stride, map_CHW.shape[2])
    return np.einsum("h,w,chw->c", rows, columns, map_CHW)


@cache
def _axis_means(low: float, high: float, num: int) -> Array:
    kinks = np.unique([low, *(x for x in np.arange(num) + 0.5 if low < x < high), high])
    total = np.zeros(num)
    for start, end in pairwise(kinks):
        total += (end - start) / 2 * (_interpolation(start, num) + _interpolation(end, num))
    return total / (high - low)


def _interpolation(at: float, num: int) -> Array:
    """Weights of the cells along an axis for a point in cells; beyond the outermost centers the edge's cell has all."""
    place = min(max(at - 0.5, 0.0), num - 1.0)
    weights = np.zeros(num)
    below = int(place)
    weights[below] += 1.0 - (place - below)
    weights[min(below + 1, num - 1)] += place - below
    return weights


def roi_align(map_CHW: Array, box: Array, stride: int, size: int, samples: int) -> Array:
    """Return RoIAlign (C, size, size) with ``samples`` x ``samples`` points a cell, as torchvision with aligned=True.

    A point further than a cell beyond the map counts as 0.
    """
    rows = _axis_points(box[1] / stride, box[3] / stride, map_CHW.shape[1], size, samples)
    columns = _axis_points(box[0] / stride, box[2] / stride, map_CHW.shape[2], size, samples)
    return np.einsum("ih,jw,chw->cij", rows, columns, map_CHW)


@cache
def _axis_points(low: float, high: float, num: int, size: int, samples: int) -> Array:
    weights = np.zeros((size, num))
    for cell in range(size):
        for sample in range(samples):
            at = low + (high - low) * (cell + (sample + 0.5) / samples) / size
            if -1.0 <= at - 0.5 <= num:
                weights[cell] += _interpolation(at, num) / samples
    return weights


def pyramid_level(box: Array, strides: list[int]) -> int:
    """Return the index of a box's level by FPN (arXiv:1612.03144, eq. 1), or of the nearest stride that there is.

    k = floor(4 + log2(sqrt(area) / 224)), of stride 2^k: a box of 56 px has stride 4.
    """
    side = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    wanted = np.floor(4 + np.log2(side / 224))
    return int(np.abs(wanted - np.log2(strides)).argmin())
