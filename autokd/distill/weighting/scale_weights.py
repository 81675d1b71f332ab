"""Weights by the size of boxes: those of a box sum to 1, those of the background to a part of that.

Legend: B images, M the most boxes of an image, P patches of a source's sample, S = B * P samples, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Boxes, Outside, Region, covering


class ScaleWeights(Region):
    """FGD's scale mask: 1 / (cells of the box) inside, the greatest of several boxes; ``background`` / cells outside.

    FGD, arXiv:2111.11837, section 3.1. A box that covers the rows y .. y + h and the columns x .. x + w has
    (h + 1)(w + 1) cells, as FGD counts them. A box covers the cells whose centers it holds, as for all sources; FGD's
    released code takes every cell that it touches and one more. Patches of an image share its numbers of cells.
    """

    is_graded = True

    def __init__(self, boxes: Boxes, stride: float, background: float) -> None:
        super().__init__()
        self._boxes, self._stride, self._background = boxes, stride, background
        self._outside = Outside(boxes, stride)

    def make_SHW(self, grid: Grid) -> Tensor:
        outside_BPHW = self._outside.weights_SHW(grid).unflatten(0, (self._boxes.num_images, -1))
        share_B111 = self._background / outside_BPHW.sum((1, 2, 3), keepdim=True).clamp_min(1)
        return (self._inside_BPHW(grid) + outside_BPHW * share_B111).flatten(0, 1)

    def _inside_BPHW(self, grid: Grid) -> Tensor:
        rows_BPMH, columns_BPMW = (part.float() for part in covering(self._boxes, self._stride, grid))
        if not rows_BPMH.shape[2]:
            return rows_BPMH.new_zeros(*rows_BPMH.shape[:2], rows_BPMH.shape[3], columns_BPMW.shape[3])
        # Summed over the patches: a box that is cut still has weights that sum to 1.
        num_cells_BM = (rows_BPMH.sum(-1) * columns_BPMW.sum(-1)).sum(1)
        rows_BPMH = rows_BPMH / num_cells_BM[:, None, :, None].clamp_min(1)
        return torch.einsum("bpmh,bpmw->bpmhw", rows_BPMH, columns_BPMW).amax(2)
