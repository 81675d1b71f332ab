"""Distances between predicted boxes.

Legend: S samples (images), A candidate boxes, as H x W = 1 x A cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import Distance
from autokd.distill.statistics import mean
from autokd.distill.term_inputs import TermInputs

_NO_AREA = 1e-12
"""An area below this, in square pixels, is 0."""


class IoU(Distance):
    """Mean over candidates of 1 - intersection over union. Two boxes without area are taken as equal.

    BCKD, arXiv:2308.14286, section 3.3.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        common_SHW, union_SHW, _ = _areas(features.student_SCHW, features.teacher_SCHW)
        return mean(1 - _ratio(common_SHW, union_SHW)[:, None], features.weights_SHW)


class GIoU(Distance):
    """Mean over candidates of 1 - (IoU - share of the enclosing box that neither box covers).

    It pulls boxes together that do not meet. Generalized IoU, arXiv:1902.09630, algorithm 1.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        common_SHW, union_SHW, hull_SHW = _areas(features.student_SCHW, features.teacher_SCHW)
        gap_SHW = 2 - _ratio(common_SHW, union_SHW) - _ratio(union_SHW, hull_SHW)
        return mean(gap_SHW[:, None], features.weights_SHW)


def _areas(student_S4HW: Tensor, teacher_S4HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(S, H, W) each: the area of the boxes' intersection, of their union and of the box around both, square pixels."""
    boxes = student_S4HW, teacher_S4HW
    area_s, area_t = ((x[:, 2:] - x[:, :2]).clamp_min(0).prod(1) for x in boxes)
    inner_low, inner_high = torch.maximum(*(x[:, :2] for x in boxes)), torch.minimum(*(x[:, 2:] for x in boxes))
    outer_low, outer_high = torch.minimum(*(x[:, :2] for x in boxes)), torch.maximum(*(x[:, 2:] for x in boxes))
    common = (inner_high - inner_low).clamp_min(0).prod(1)
    hull = (outer_high - outer_low).clamp_min(0).prod(1)
    return common, area_s + area_t - common, hull


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 1, with gradient 0, if the whole has no area: two boxes without area are equal."""
    has_area = whole > _NO_AREA
    return torch.where(has_area, part / torch.where(has_area, whole, 1.0), 1.0)
