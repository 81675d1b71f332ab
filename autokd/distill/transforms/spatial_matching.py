"""Learned matching of cells: both sides are read at the places of one grid, wherever their cells lie.

Legend: S samples, C channels, H x W cells, N = H * W, G places of the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid, centers_of_cells
from autokd.distill.geometry.regions import Present
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.products import mixed, related
from autokd.distill.statistics import Weights
from autokd.distill.term_inputs import TermInputs

_NO_LOGIT = -1e30
_FIRST_REACH = 0.5
"""Of a place, in the grid's spacing: places begin as means of the cells around them."""


class SpatialMatch(Transform):
    """The map at ``side`` x ``side`` places g: sum_i softmax_i(<e_g, x_i> / sqrt(C) - |p_g - i|^2 / (2 r^2)) x_i.

    Layout map -> map. Each level has a grid of embeddings e (they begin at 0) and a reach r for both sides; the
    student's places p may move from those of the grid, where the teacher's stay: so maps match that are shifted or
    stretched against each other. e, p and r learn through the student's side alone: a target that learns would be moved
    to where both sides agree already. The softmax is over the cells that count. SAM (spatial alignment via matching)
    of "Dense 2D-3D Indoor Prediction with Sound via Aligned Cross-Modal Distillation", arXiv:2309.11081, where learned
    embeddings of places match features of sound and image; the bias by position is AutoKD's.
    """

    def __init__(self, context: BuildContext, side: int) -> None:
        super().__init__(context)
        self.side = side
        num_places, levels = side * side, context.pairs
        self.embeddings = nn.ParameterList(nn.Parameter(torch.zeros(num_places, pair.channels)) for pair in levels)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(num_places, 2)) for _ in levels)
        """Of the student's places, in the grid's spacing."""
        self.log_reaches = nn.ParameterList(nn.Parameter(torch.tensor(_FIRST_REACH).log()) for _ in levels)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        level, members = features.level, features.members_SHW
        embeddings_GC, reach = self.embeddings[level], self.log_reaches[level].exp()
        student = self._matched(features.student_SCHW, embeddings_GC, self.shifts[level], reach, members)
        with torch.no_grad():
            unmoved_G2 = torch.zeros_like(self.shifts[level])
            teacher = self._matched(features.teacher_SCHW, embeddings_GC, unmoved_G2, reach, members)
        region = None if members is None else Present((members > 0).flatten(1).any(1))
        return features.with_maps(student, teacher, grid=Grid(self.side, self.side), region=region)

    def _matched(
        self, x_SCHW: Tensor, embeddings_GC: Tensor, shifts_G2: Tensor, reach: Tensor, members_SHW: Weights
    ) -> Tensor:
        """(S, C, side, side)."""
        x_SCN, channels = x_SCHW.flatten(2), x_SCHW.shape[1]
        places_G2 = centers_of_cells(self.side, self.side, shifts_G2) * self.side + shifts_G2
        cells_N2 = centers_of_cells(x_SCHW.shape[2], x_SCHW.shape[3], shifts_G2) * self.side
        squares_GN = (places_G2[:, None] - cells_N2).square().sum(2)
        logits_SGN = mixed(embeddings_GC / channels**0.5, x_SCN) - squares_GN / (2 * reach.square())
        if members_SHW is not None:
            logits_SGN = logits_SGN.masked_fill(members_SHW.flatten(1)[:, None] <= 0, _NO_LOGIT)
        return related(x_SCN, logits_SGN.softmax(2)).unflatten(2, (self.side, self.side))
