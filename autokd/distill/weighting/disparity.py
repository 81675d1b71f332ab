"""Weights of regions by the disparity of their representations.

Legend: S regions (or candidate boxes), X numbers that represent a region.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.geometry.regions import Present, Region, Weighed

_LEAST_WEIGHT = 1e-3
"""A weight of 0 would take the region out of every statistic."""
_NO_VARIANCE = 1e-24


def disparity_weights(student_SX: Tensor, teacher_SX: Tensor, counts_S: Tensor, prefers: int) -> Tensor:
    """Weigh each region by how far the student's representation of it is from the teacher's.

    w = n softmax_i(-d_i) over the n regions that count, or n softmax_i(d_i). d is the KL divergence between Gaussian
    codes, N(t, v) and N(s, v), a number of the code on average: d = mean_x (s - t)^2 / (2 v), v the variance of the
    teacher's number over the regions. After RDD, arXiv:2308.10308, section 3 (proposals weighted by their disparity
    through an information bottleneck); the variance from the batch is AutoKD's, in place of a learned one.

    Args:
        student_SX, teacher_SX: representations.
        counts_S: 1 for the regions that count, 0 for others.
        prefers: 1: regions of the least disparity weigh most; 2: of the greatest.

    Returns:
        (S,), without gradient: mean 1 over the regions that count, at least 0.001 each, 0 for others.
    """
    student_SX, counts_S1 = student_SX.detach(), counts_S[:, None].to(teacher_SX)
    num = counts_S1.sum().clamp_min(1)
    mean_1X = (teacher_SX * counts_S1).sum(0, keepdim=True) / num
    variance_1X = ((teacher_SX - mean_1X).square() * counts_S1).sum(0, keepdim=True) / num
    # A number that is the same for all regions says nothing of which of them to weigh more.
    precision_1X = (variance_1X > _NO_VARIANCE) / variance_1X.clamp_min(_NO_VARIANCE)
    disparity_S = ((student_SX - teacher_SX).square() * precision_1X).mean(1) / 2
    logits_S = (disparity_S if prefers == 2 else -disparity_S).masked_fill(counts_S <= 0, -1e30)
    return (num * logits_S.softmax(0)).clamp_min(_LEAST_WEIGHT) * counts_S1[:, 0]


def weighed_regions(student_SCHW: Tensor, teacher_SCHW: Tensor, present_S: Tensor, region_weights: int) -> Region:
    """Return regions as samples that count by their disparity, or equally.

    Args:
        student_SCHW, teacher_SCHW: the regions' maps; a region is represented by the mean over its cells.
        present_S: False for padding.
        region_weights: 0: equal; 1, 2: as ``prefers`` of ``disparity_weights``.
    """
    if not region_weights:
        return Present(present_S)
    student_SC, teacher_SC = student_SCHW.mean((2, 3)), teacher_SCHW.mean((2, 3))
    return Weighed(disparity_weights(student_SC, teacher_SC, present_S, region_weights))
