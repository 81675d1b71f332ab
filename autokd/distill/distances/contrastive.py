"""Contrastive distances, for the layout ``contrast``, whose first column is the partner.

Legend: S regions, N = 1 + negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Distance
from autokd.distill.term_inputs import TermInputs

_NO_LOGIT = -1e30
"""Logit of a negative that does not count. Finite: a region without any column that counts would be NaN with -inf."""


class InfoNCE(Distance):
    """Mean over regions of -log exp(<s_i,t_i>/g) / (exp(<s_i,t_i>/g) + sum_k exp(<s_i,n_k>/g)), g = temperature.

    A region without negatives adds 0. Not 0 at equality: it is least if the student agrees
    with its partner and with no negative. CPC, arXiv:1807.03748, eq. 4; G-DetKD, arXiv:2108.07482, eq. 5.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        weights_SN = _weights(features)
        logits_SN = _logits(features.student_SCHW, weights_SN, self.temperature)
        return _mean_over_regions(-logits_SN.log_softmax(1)[:, 0], weights_SN)


class SmoothContrastive(Distance):
    """Mean over regions of KL(softmax(teacher's similarities / g) || softmax(student's similarities / g)).

    Soft targets in place of the one partner: the teacher's similarities to the negatives are targets as well; 0 if the
    student's similarities equal the teacher's. SEED, arXiv:2101.04731, eq. 3.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        weights_SN = _weights(features)
        student_SN, teacher_SN = (
            _logits(side, weights_SN, self.temperature).log_softmax(1)
            for side in (features.student_SCHW, features.teacher_SCHW)
        )
        counts_SN = weights_SN > 0
        # Masked twice: the logarithms of columns that do not count are about -1e30, whose gradient must not be read.
        gap_SN = torch.where(counts_SN, teacher_SN - torch.where(counts_SN, student_SN, 0.0), 0.0)
        divergence_S = (teacher_SN.exp() * gap_SN).sum(1)
        return _mean_over_regions(divergence_S.clamp_min(0.0), weights_SN)


def _weights(features: FeaturePair) -> Tensor:
    weights_SHW = features.weights_SHW
    if weights_SHW is None:
        return torch.ones_like(features.student_SCHW[:, 0]).flatten(1)
    return weights_SHW.flatten(1)


def _logits(x_SCHW: Tensor, weights_SN: Tensor, temperature: float) -> Tensor:
    return (x_SCHW.flatten(1) / temperature).masked_fill(weights_SN <= 0, _NO_LOGIT)


def _mean_over_regions(value_S: Tensor, weights_SN: Tensor) -> Tensor:
    there_S = weights_SN[:, 0]
    return torch.where(there_S > 0, value_S, 0.0).sum() / there_S.sum().clamp_min(1.0)
