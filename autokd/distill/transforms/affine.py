"""A learned scale and shift of the student's channels.

Legend: C channels.
"""

from __future__ import annotations

import torch
from torch import nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.term_inputs import TermInputs


class Affine(Transform):
    """The student's channels times exp(a) plus b, both learned, starting at the identity.

    Layout map -> map; the teacher stays as it is. The scale is an exponential, so that it stays positive: a channel
    cannot turn into its negative, which the declared effect ``channel_affine`` excludes. DetKDS, ICML 2024.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        self.log_scales = nn.ParameterList(nn.Parameter(torch.zeros(pair.channels)) for pair in context.pairs)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(pair.channels)) for pair in context.pairs)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        scale_C11 = self.log_scales[features.level].exp()[:, None, None]
        shift_C11 = self.shifts[features.level][:, None, None]
        return features.with_maps(features.student_SCHW * scale_C11 + shift_C11, features.teacher_SCHW)
