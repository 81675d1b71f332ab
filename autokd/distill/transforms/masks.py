"""Random masks over the cells of a map, the same for student and teacher.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.term_inputs import TermInputs


class RandomMask(Transform):
    """Set cells to 0 at random, each with probability ``drop``, the same ones on both sides.

    Layout map -> map. The masked cells still count, as zeros: a mean over them is not larger for fewer cells. DetKDS,
    ICML 2024; after MGD, arXiv:2205.01529.
    """

    def __init__(self, context: BuildContext, drop: float) -> None:
        super().__init__(context)
        self.drop = drop

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        dropped_S1HW = ~draw_kept(features.student_SCHW, self.drop, inputs)
        return features.with_maps(
            features.student_SCHW.masked_fill(dropped_S1HW, 0.0), features.teacher_SCHW.masked_fill(dropped_S1HW, 0.0)
        )


def draw_kept(x_SCHW: Tensor, drop: float, inputs: TermInputs) -> Tensor:
    """Draw which cells are kept, (S, 1, H, W), each with probability 1 - drop, from the step's generator."""
    shape = (len(x_SCHW), 1, *x_SCHW.shape[2:])
    return torch.rand(shape, generator=inputs.generator, device=x_SCHW.device) >= drop
