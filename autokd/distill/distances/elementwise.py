"""Means over all numbers of a function of their difference.

Every distance is 0 with gradient 0 if both sides are equal. Distributions and log-odds are compared as probabilities.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Distance
from autokd.distill.statistics import mean
from autokd.distill.term_inputs import TermInputs


class L1(Distance):
    """mean |s - t| over samples, channels and the region's cells. DetKDS, ICML 2024."""

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.values()
        return mean((student - teacher).abs(), features.weights_SHW)


class L2(Distance):
    """mean (s - t)^2 over samples, channels and the region's cells. FitNets, arXiv:1412.6550, eq. 3."""

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.values()
        if features.weights_SHW is None and student.numel():
            return functional.mse_loss(student, teacher)
        return mean((student - teacher).square(), features.weights_SHW)


class SmoothL1(Distance):
    """mean of (s - t)^2 / (2 beta) where |s - t| < beta, else |s - t| - beta / 2.

    Fast R-CNN, arXiv:1504.08083, eq. 3.
    """

    def __init__(self, context: BuildContext, beta: float) -> None:
        super().__init__(context)
        self.beta = beta

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.values()
        huber = functional.smooth_l1_loss(student, teacher, reduction="none", beta=self.beta)
        return mean(huber, features.weights_SHW)
