"""The source of maps whose cells are weighted by the part of the image that they belong to.

Legend: B images, A candidate boxes of an image, N the best of them, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.candidates import POSITIVE_IOU, best_overlaps, top_scores
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Boxes, Region, covering
from autokd.distill.operators import BuildContext
from autokd.distill.sources.maps import FeatureMap
from autokd.distill.term_inputs import TermInputs
from autokd.distill.weighting.cell_weights import CellWeights
from autokd.distill.weighting.scale_weights import ScaleWeights
from autokd.errors import DistillError
from autokd.tensors import full_precision

_CANDIDATES = 32
"""The student's boxes that are looked at, the best by score."""


class BalancedRegions(FeatureMap):
    """Every cell of every paired level, with weights that balance objects, the student's errors and background.

    A cell inside ground-truth boxes has weight 1 / (cells of the box), the greatest of its boxes. A cell outside has
    ``false_positives`` * score / (cells of the box) if it lies in a false positive of the student: one of its 32 best
    boxes whose top class probability is at least ``least_score`` and whose IoU with every object is below 0.5. The
    weights of the other cells of an image sum to ``background``. After DistillBEV, arXiv:2309.15109, which decomposes
    the map into true and false positives and negatives and scales each by its size; the score is that of the student.
    """

    def __init__(self, context: BuildContext, false_positives: float, background: float, least_score: float) -> None:
        super().__init__(context)
        self.false_positives, self.background, self.least_score = false_positives, background, least_score

    def region(self, inputs: TermInputs, level: int) -> Region:
        grid, stride = Grid(*self.maps(inputs, level)[0].shape[-2:]), inputs.pairs[level].stride
        boxes, scores_BN = inputs.shared(("false positives", self.least_score), lambda: self._false_positives(inputs))
        outside_BHW = ~inputs.boxes.covered_SHW(stride, grid)
        false_BHW = self.false_positives * _shares(boxes, scores_BN, stride, grid) * outside_BHW
        rest_BHW = (outside_BHW & (false_BHW == 0)).to(false_BHW)
        rest_BHW = rest_BHW * (self.background / rest_BHW.sum((1, 2), keepdim=True).clamp_min(1))
        objects_BHW = ScaleWeights(inputs.boxes, stride, 0.0).weights_SHW(grid)
        return CellWeights(objects_BHW + false_BHW + rest_BHW)

    @torch.no_grad()
    def _false_positives(self, inputs: TermInputs) -> tuple[Boxes, Tensor]:
        """Return the student's boxes without an object, and their scores, (B, N); 0 for those that do not count."""
        boxes_BA4, logits_BAK = inputs.student.boxes, inputs.student.class_logits
        if boxes_BA4 is None or logits_BAK is None or boxes_BA4.shape[:2] != logits_BAK.shape[:2]:
            raise DistillError(
                "source 'balanced_regions' needs the student's boxes and class logits, equally many: see "
                "DetectorOutputs.boxes and .class_logits."
            )
        boxes_BA4, logits_BAK = (full_precision(x.detach()) for x in (boxes_BA4, logits_BAK))
        # By logits, and stable: probabilities of sure boxes are all 1, and any of them might come first.
        index_BN = logits_BAK.amax(2).sort(dim=1, descending=True, stable=True).indices[:, :_CANDIDATES]
        scores_BN = top_scores(logits_BAK).gather(1, index_BN)
        # A head that diverges on one box may decode it to infinity; the box then lies at the edge.
        boxes_BN4 = boxes_BA4.gather(1, index_BN[..., None].expand(-1, -1, 4)).nan_to_num()
        is_false_BN = (scores_BN >= self.least_score) & (best_overlaps(boxes_BN4, inputs.boxes)[0] < POSITIVE_IOU)
        targets = [{"boxes": boxes_N4} for boxes_N4 in boxes_BN4]
        found = Boxes(targets, len(targets), inputs.student.input_size_px, inputs.device)
        return found, torch.where(is_false_BN, scores_BN, 0.0)


def _shares(boxes: Boxes, scores_BN: Tensor, stride: float, grid: Grid) -> Tensor:
    """(B, H, W): score / (cells of the box), the greatest of the boxes of each cell."""
    rows_BNH, columns_BNW = (part[:, 0].to(scores_BN) for part in covering(boxes, stride, grid))
    num_cells_BN = rows_BNH.sum(2) * columns_BNW.sum(2)
    if not scores_BN.shape[1]:
        return scores_BN.new_zeros(len(scores_BN), grid.height, grid.width)
    rows_BNH = rows_BNH * (scores_BN / num_cells_BN.clamp_min(1))[..., None]
    return torch.einsum("bnh,bnw->bnhw", rows_BNH, columns_BNW).amax(1)
