"""Normalizations: to mean 0 and deviation 1, to length 1, or to the range 0 to 1.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import Transform
from autokd.distill.statistics import centered, sum_of_squares, unit

_ROUNDING = 1e-6
"""A channel that varies by less than this part of its greatest value is constant: float32 resolves no better."""
_NO_SPAN = 1e-15
"""A channel whose range is below this is constant, as after an attention that is almost 0: the backward of 1 / range
has 1 / range^2, which would overflow float32."""


class Standardize(Transform):
    """(x - mean) / (std + 1e-6), each channel over batch and cells, unbiased std; 1e-6 as in PKD's released code.

    Layout stays. A channel that is constant up to rounding becomes 0, with no gradient.
    PKD, arXiv:2207.02039, section 3.2.
    """

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        difference, deviation, varies = centered(x_SCHW, features.members_SHW)
        return difference * torch.where(varies, 1.0 / (deviation + 1e-6), 0.0)


class StandardizeClasses(Transform):
    """(x - mean) / (std + 1e-7), each candidate over its classes, unbiased std; 1e-7 as in the released code.

    Layout logits -> logits. The size of a candidate's logits, which a small student need not match, is gone; their
    order and relations stay. A candidate whose logits are equal up to rounding becomes 0, with no gradient. Of two
    classes nothing but the order would be left, so it needs three. Logit standardization, arXiv:2403.01427, section 4.
    """

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        average_S1HW = x_SCHW.mean(1, keepdim=True)
        difference = x_SCHW - average_S1HW
        variance_S1HW = sum_of_squares(difference, (1,)) / max(x_SCHW.shape[1] - 1, 1)
        varies = variance_S1HW > (_ROUNDING * average_S1HW).square()
        deviation_S1HW = torch.where(varies, variance_S1HW, 1.0).sqrt()
        return difference * torch.where(varies, 1.0 / (deviation_S1HW + 1e-7), 0.0)


class L2Channels(Transform):
    """Each cell's vector over the channels divided by its length.

    Layout stays. A cell of zeros stays as it is. DetKDS, ICML 2024.
    """

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        return unit(x_SCHW, (1,))


class L2Cells(Transform):
    """Each channel of each sample divided by its length over the cells.

    Layout stays. A channel of zeros stays as it is. DetKDS, ICML 2024.
    """

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        return unit(x_SCHW, (2, 3), features.members_SHW)


class L2Samples(Transform):
    """Each number (a channel of a cell) divided by its length over the samples of the batch.

    Layout stays. Samples in which the cell does not count do not exist for it; if a single one is left, x / |x| is its
    sign, with gradient 0. DetKDS, ICML 2024 ("L2 over samples").
    """

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        members = features.members_SHW
        if members is None:
            return x_SCHW.sign() if len(x_SCHW) == 1 else unit(x_SCHW, (0,))
        is_alone_HW = members.sum(0) <= 1
        return torch.where(is_alone_HW, x_SCHW.sign(), unit(x_SCHW, (0,), members))


class MinMax(Transform):
    """(x - min) / (max - min), each channel of each sample over its cells.

    Layout stays. A channel that is constant up to rounding becomes 0, with no gradient. DetKDS, ICML 2024.
    """

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        low_SC11, high_SC11 = _extremes(x_SCHW, features.members_SHW)
        span_SC11 = high_SC11 - low_SC11
        greatest_SC11 = torch.maximum(low_SC11.abs(), high_SC11.abs())
        varies = (span_SC11 > _ROUNDING * greatest_SC11) & (span_SC11 > _NO_SPAN)
        scale_SC11 = torch.where(varies, 1.0 / torch.where(varies, span_SC11, 1.0), 0.0)
        return (x_SCHW - low_SC11) * scale_SC11


def _extremes(x_SCHW: Tensor, members_SHW: Tensor | None) -> tuple[Tensor, Tensor]:
    """(S, C, 1, 1) twice: the least and the greatest of the cells that count; 0 if none does."""
    if members_SHW is None:
        return x_SCHW.amin((2, 3), keepdim=True), x_SCHW.amax((2, 3), keepdim=True)
    left_out_S1HW = members_SHW[:, None] <= 0
    low_SC11 = x_SCHW.masked_fill(left_out_S1HW, torch.inf).amin((2, 3), keepdim=True)
    high_SC11 = x_SCHW.masked_fill(left_out_S1HW, -torch.inf).amax((2, 3), keepdim=True)
    is_empty = left_out_S1HW.all(3, keepdim=True).all(2, keepdim=True)
    return low_SC11.masked_fill(is_empty, 0.0), high_SC11.masked_fill(is_empty, 0.0)
