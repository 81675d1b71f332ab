"""Sources of relations between the cells of a map.

Legend: B images, C channels, N cells of a map, P chosen cells of the foreground, Q of the background.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Given
from autokd.distill.operators import BuildContext, Source
from autokd.distill.products import related
from autokd.distill.statistics import unit
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import SCALAR_MAP


class ForegroundToBackground(Source):
    """Cosines of each chosen cell inside boxes to each chosen cell outside, on every paired level.

    Layout scalar_map (B * P, 1, 1, Q): a row is a cell of the foreground. At most ``cells`` of either part of an image
    are chosen, evenly spaced in reading order: the same for both sides and at each call. Images without a part have no
    relation. After "Deep Image Harmonization with Globally Guided Feature Transformation and Relation Distillation",
    arXiv:2308.00356, which transfers the relation of an object to its surroundings.
    """

    def __init__(self, context: BuildContext, cells: int) -> None:
        super().__init__(context)
        self.cells = cells

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        return tuple(self._level(inputs, level) for level in self.levels(inputs))

    def _level(self, inputs: TermInputs, level: int) -> FeaturePair:
        maps = self.maps(inputs, level)
        grid = Grid(*maps[0].shape[-2:])
        inside_BN = inputs.boxes.covered_SHW(inputs.pairs[level].stride, grid).flatten(1)
        foreground_BP, has_BP = evenly_spaced(inside_BN, self.cells)
        background_BQ, has_BQ = evenly_spaced(~inside_BN, self.cells)
        student, teacher = (
            _cosines(_at(x_BCHW, foreground_BP), _at(x_BCHW, background_BQ)).flatten(0, 1)[:, None, None]
            for x_BCHW in maps
        )
        weights_BPQ = (has_BP[:, :, None] & has_BQ[:, None]).to(teacher.dtype)
        region = Given(weights_BPQ.flatten(0, 1)[:, None])
        return FeaturePair(student, teacher, Grid(1, student.shape[-1]), region, SCALAR_MAP, level=level)


def evenly_spaced(members_BN: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return some of the cells that are members, evenly spaced among them.

    Args:
        members_BN: which cells of an image are members.
        most: the most cells that are chosen.

    Returns:
        Indices of P = min(most, N) cells, (B, P), and which of these are members, (B, P): fewer than P members are
        all chosen, and the rest is filling.
    """
    places = min(most, members_BN.shape[1])
    # A stable sort brings the members to the front in their own order, without a loop over images.
    order_BN = members_BN.byte().sort(dim=1, descending=True, stable=True).indices
    count_B1 = members_BN.sum(1, keepdim=True)
    place_P = torch.arange(places, device=members_BN.device)
    middle_BP = (2 * place_P + 1) * count_B1 // (2 * places)
    return order_BN.gather(1, torch.where(count_B1 > places, middle_BP, place_P)), place_P < count_B1


def _at(x_BCHW: Tensor, index_BP: Tensor) -> Tensor:
    """(B, P, C): the vectors of some cells."""
    x_BCN = x_BCHW.flatten(2)
    return x_BCN.gather(2, index_BP[:, None].expand(-1, x_BCN.shape[1], -1)).transpose(1, 2)


def _cosines(first_BPC: Tensor, second_BQC: Tensor) -> Tensor:
    return related(unit(first_BPC, (2,)), unit(second_BQC, (2,)))
