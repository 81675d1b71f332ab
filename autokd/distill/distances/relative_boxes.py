"""Distances between boxes as center and size, relative to the image.

Legend: S samples (images), A candidate boxes, as H x W = 1 x A cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import Distance
from autokd.distill.statistics import mean
from autokd.distill.term_inputs import TermInputs


class BoxL1(Distance):
    """Mean over candidates of |s - t| summed over center and size, divided by the input's width and height.

    DETR, arXiv:2005.12872, section 3.1.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        height, width = inputs.student.input_size_px
        student, teacher = (_centered(x) for x in (features.student_SCHW, features.teacher_SCHW))
        scale = student.new_tensor([width, height, width, height])[:, None, None]
        return mean(((student - teacher).abs() / scale).sum(1, keepdim=True), features.weights_SHW)


def _centered(boxes_S4HW: Tensor) -> Tensor:
    low, high = boxes_S4HW[:, :2], boxes_S4HW[:, 2:]
    return torch.cat([(low + high) / 2, high - low], 1)
