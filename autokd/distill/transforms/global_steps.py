"""Transformations of the first kind: every number by one rule. One class a row of ``tables/global_steps``.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.statistics import centred, log_softmax_over_cells, unit
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import BINARY, CELL_DISTRIBUTION, CHANNEL_DISTRIBUTION

_ROUNDING = 1e-6
"""A channel that varies by less than this part of its greatest value is constant: float32 resolves no better."""
_NO_SPAN = 1e-15
"""A channel that varies by less than this, as after an attention that is almost 0, has no range to speak of."""
_LEAST_ROOT = 1e-6
"""Below this, a root goes on as a straight line: its slope would be infinite at 0."""


class Standardise(Transform):
    """(x - mean) / (std + 1e-6), each channel over batch and cells, unbiased std.

    Layout stays. A channel that is constant up to rounding becomes 0, with no gradient.
    PKD, arXiv:2207.02039, section 3.2.
    """

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        difference, deviation, varies = centred(x_SCHW, features.members_SHW)
        return difference * torch.where(varies, 1.0 / (deviation + 1e-6), 0.0)


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

    Layout stays. Samples in which the cell does not count do not exist; where a single one is left, its sign
    remains, with no gradient. DetKDS, ICML 2024 ("L2 over samples").
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
    """(S, C, 1, 1) twice: the least and the greatest of the cells that count; 0 where none does."""
    if members_SHW is None:
        return x_SCHW.amin((2, 3), keepdim=True), x_SCHW.amax((2, 3), keepdim=True)
    left_out_S1HW = members_SHW[:, None] <= 0
    low_SC11 = x_SCHW.masked_fill(left_out_S1HW, torch.inf).amin((2, 3), keepdim=True)
    high_SC11 = x_SCHW.masked_fill(left_out_S1HW, -torch.inf).amax((2, 3), keepdim=True)
    is_empty = left_out_S1HW.all(3, keepdim=True).all(2, keepdim=True)
    return low_SC11.masked_fill(is_empty, 0.0), high_SC11.masked_fill(is_empty, 0.0)


class Power(Transform):
    """sign(x) |x|^exponent. Layout stays. Auto-KD, ICCV 2023 (global transformations)."""

    def __init__(self, context: BuildContext, exponent: int) -> None:
        super().__init__(context)
        self.exponent = exponent

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        return x_SCHW * x_SCHW.abs() ** (self.exponent - 1)


class Root(Transform):
    """sign(x) |x|^(1 / degree), for |x| below 1e-6 the straight line from there through 0.

    Layout stays. Auto-KD, ICCV 2023 (global transformations).
    """

    def __init__(self, context: BuildContext, degree: int) -> None:
        super().__init__(context)
        self.degree = degree

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        size = x_SCHW.abs().clamp_min(_LEAST_ROOT)
        return x_SCHW * size ** (1 / self.degree - 1)


class Log(Transform):
    """sign(x) log(1 + |x|). Layout stays. Auto-KD, ICCV 2023 (global transformations)."""

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        return x_SCHW.sign() * x_SCHW.abs().log1p()


class Sigmoid(Transform):
    """Each number as a yes or no of its own, with probability sigmoid(x / temperature).

    Layout map or logits -> binary (log-odds). Binary distillation of class logits: BCKD, arXiv:2308.14286, section 3.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        student_SCHW, teacher_SCHW = features.student_SCHW, features.teacher_SCHW
        return features.with_maps(
            student_SCHW / self.temperature,
            teacher_SCHW / self.temperature,
            layout=BINARY,
            temperature=self.temperature,
        )


class SoftmaxCells(Transform):
    """Each channel of each sample as a distribution over its cells: softmax_s(x / temperature).

    Layout map or scalar_map -> cell_distribution (log-probabilities). CWD, arXiv:2011.13256, eq. 2.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        weights = features.members_SHW
        return features.with_maps(
            log_softmax_over_cells(features.student_SCHW / self.temperature, weights),
            log_softmax_over_cells(features.teacher_SCHW / self.temperature, weights),
            layout=CELL_DISTRIBUTION,
            temperature=self.temperature,
        )


class SoftmaxChannels(Transform):
    """Each cell as a distribution over the channels: softmax_c(x / temperature).

    Layout map or logits -> channel_distribution (log-probabilities); of logits, over the classes. DetKDS, ICML 2024.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        return features.with_maps(
            (features.student_SCHW / self.temperature).log_softmax(1),
            (features.teacher_SCHW / self.temperature).log_softmax(1),
            layout=CHANNEL_DISTRIBUTION,
            temperature=self.temperature,
        )
