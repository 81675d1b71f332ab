"""Given weights of the cells of a map, which follow the map when it is pooled or cut.

Legend: B images, S samples, H x W cells.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autokd.distill.geometry.grid import Grid, cells_of, patch_bounds, patch_indices
from autokd.distill.geometry.regions import Region


class CellWeights(Region):
    """Weights that an operator has made for the cells of the source's map.

    A pooled cell has the greatest weight of its window; the padding of patches has weight 0.
    """

    is_graded = True

    def __init__(self, weights_BHW: Tensor) -> None:
        """Hold the weights.

        Args:
            weights_BHW: at least 0, for the source's grid before any step; no gradient.
        """
        super().__init__()
        self._weights_BHW = weights_BHW

    def make_SHW(self, grid: Grid) -> Tensor:
        weights_SHW = self._weights_BHW
        for step, number in grid.steps:
            weights_SHW = _pooled(weights_SHW, number) if step == "pool" else _cut(weights_SHW, number)
        valid_PHW = cells_of(grid, weights_SHW.device).valid_PHW
        if valid_PHW is None:
            return weights_SHW
        return weights_SHW * valid_PHW.repeat(len(self._weights_BHW), 1, 1)


def _pooled(weights_SHW: Tensor, window: int) -> Tensor:
    return functional.max_pool2d(weights_SHW[:, None], window, ceil_mode=True)[:, 0]


def _cut(weights_SHW: Tensor, num_per_side: int) -> Tensor:
    """As ``local_patches`` cuts: patch p of sample s is sample s * P + p; shorter patches repeat their last cell."""
    rows, columns = (patch_indices(length, num_per_side) for length in weights_SHW.shape[1:])
    down, across = (len(patch_bounds(length, num_per_side)) for length in weights_SHW.shape[1:])
    laid_SHW = weights_SHW[:, rows][:, :, columns]
    return laid_SHW.unflatten(2, (across, -1)).unflatten(1, (down, -1)).transpose(2, 3).flatten(0, 2)
