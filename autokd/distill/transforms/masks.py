"""Masks over the cells of a map, the same for student and teacher: drawn at random, or by attention.

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


def attended(attention_SHW: Tensor, members_SHW: Tensor | None, part: float) -> Tensor:
    """Return the cells of each sample where attention is greatest.

    Args:
        attention_SHW: any number of each cell.
        members_SHW: None, or 1 for the cells that count and 0 for the others, which are never chosen.
        part: part of the sample's cells that count, rounded to whole cells; of equal cells the first are chosen.

    Returns:
        Whether each cell is chosen, (S, H, W).
    """
    flat_SN = attention_SHW.detach().flatten(1)
    if members_SHW is None:
        num_S1 = torch.full((len(flat_SN), 1), round(part * flat_SN.shape[1]), device=flat_SN.device)
    else:
        is_member_SN = members_SHW.flatten(1) > 0
        num_S1 = (part * is_member_SN.sum(1, keepdim=True)).round()
        flat_SN = flat_SN.masked_fill(~is_member_SN, -torch.inf)
    order_SN = flat_SN.sort(dim=1, descending=True, stable=True).indices
    is_chosen_SN = torch.arange(flat_SN.shape[1], device=flat_SN.device) < num_S1
    return torch.zeros_like(flat_SN, dtype=torch.bool).scatter(1, order_SN, is_chosen_SN).view_as(attention_SHW)
