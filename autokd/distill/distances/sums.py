"""Distances that sum over a sample instead of averaging, as several published losses do.

Every distance is 0 with gradient 0 if both sides are equal; distributions are compared as probabilities. Patches
of a sample count together, as the sample that they were cut from.

Legend: S samples (images, regions or patches), P patches of a source's sample, C channels, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Distance
from autokd.distill.term_inputs import TermInputs

_NO_DISTANCE = 1e-24
"""A sum of squares below this is equality: its root is then taken as 0, as its derivative is infinite at 0."""


class L1Sum(Distance):
    """sum |s - t| over channels and weighted cells, mean over the samples that have any cell that counts.

    FGD, arXiv:2111.11837, section 3.1 (attention maps).
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.values()
        return _weighted_sum((student - teacher).abs(), features.weights_SHW) / num_samples(features)


class L2Sum(Distance):
    """sum (s - t)^2 over channels and weighted cells, mean over the samples that have any cell that counts.

    FGD, arXiv:2111.11837, section 3.1; MGD, arXiv:2205.01529, section 3.1.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        return _sum_of_squares(features) / num_samples(features)


class L2Norm(Distance):
    """The square root of the sum of (s - t)^2 over samples, channels and weighted cells.

    FBKD, ICLR 2021, section 3.1.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        total = _sum_of_squares(features)
        differs = total > _NO_DISTANCE
        return torch.where(differs, torch.where(differs, total, 1.0).sqrt(), total)


class SmoothL1Sum(Distance):
    """Sum of the Huber loss over channels and weighted cells, mean over the samples that have any cell that counts.

    Of a matrix of relations a sample is a row: the sum over pairs divided by the number of examples, as MLKD's release
    has it. MLKD, arXiv:2308.06453; Fast R-CNN, arXiv:1504.08083, eq. 3.
    """

    def __init__(self, context: BuildContext, beta: float) -> None:
        super().__init__(context)
        self.beta = beta

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.values()
        huber = functional.smooth_l1_loss(student, teacher, reduction="none", beta=self.beta)
        return _weighted_sum(huber, features.weights_SHW) / num_samples(features)


def _sum_of_squares(features: FeaturePair) -> Tensor:
    student, teacher = features.values()
    if features.weights_SHW is None:
        return functional.mse_loss(student, teacher, reduction="sum")
    return _weighted_sum((student - teacher).square(), features.weights_SHW)


def _weighted_sum(x_SCHW: Tensor, weights_SHW: Tensor | None) -> Tensor:
    """Sum over everything, each cell by its weight."""
    return x_SCHW.sum() if weights_SHW is None else (x_SCHW.sum(1) * weights_SHW).sum()


def num_samples(features: FeaturePair) -> Tensor | int:
    """Return the number of the source's samples that have a cell that counts; at least 1."""
    weights, num_patches = features.weights_SHW, len(features.cells.rows_PH2)
    if weights is None:
        return max(len(features.student_SCHW) // num_patches, 1)
    return (weights > 0).flatten(1).any(1).unflatten(0, (-1, num_patches)).any(1).sum().clamp_min(1)
