"""Windows of a map: pooled to a cell each, or cut into samples of their own.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid, patch_indices
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import MAP, REGIONS


class MaxPool(Transform):
    """The greatest value of each window of ``window`` x ``window`` cells; odd edges make smaller windows.

    ``zero_edge`` 1 fills them with zeros, as DetKDS's released code does: a window at the edge is then at least 0.
    Layout map -> map. The region is made anew from the boxes at the new size (a box covers a cell by its center there).
    DetKDS, ICML 2024.
    """

    def __init__(self, context: BuildContext, window: int, zero_edge: int = 0) -> None:
        super().__init__(context)
        self.window = window
        self.beyond_edge = 0.0 if zero_edge else -torch.inf

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        grid = features.grid.pooled(self.window)
        pooled = features.with_maps(features.student_SCHW, features.teacher_SCHW, grid=grid)
        padding, empty = _padding(features), _padding(pooled)
        return pooled.with_maps(
            self._pool(features.student_SCHW, padding, empty), self._pool(features.teacher_SCHW, padding, empty)
        )

    def _pool(self, x_SCHW: Tensor, padding_S1HW: Tensor | None, empty_S1HW: Tensor | None) -> Tensor:
        if padding_S1HW is not None:
            # -inf, so that the padding of patches never is the maximum, whatever the sign of the map.
            x_SCHW = x_SCHW.masked_fill(padding_S1HW, -torch.inf)
        height, width = x_SCHW.shape[2:]
        missing = (-width % self.window, -height % self.window)
        if any(missing):
            x_SCHW = functional.pad(x_SCHW, (0, missing[0], 0, missing[1]), value=self.beyond_edge)
        pooled_SCHW = cast(Tensor, _WindowMax.apply(x_SCHW, self.window))  # type: ignore[no-untyped-call]
        # A window of padding alone is -inf; as a number it would make every later statistic NaN.
        return pooled_SCHW if empty_S1HW is None else pooled_SCHW.masked_fill(empty_S1HW, 0.0)


class _WindowMax(torch.autograd.Function):
    """The maximum of each window, several times as fast as torch's max_pool2d on a CPU."""

    @staticmethod
    def forward(ctx: Any, x_SCHW: Tensor, window: int) -> Tensor:
        first, *others = (x_SCHW[..., i::window, j::window] for i in range(window) for j in range(window))
        greatest = first.clone()
        for other in others:
            torch.maximum(greatest, other, out=greatest)
        ctx.save_for_backward(x_SCHW, greatest)
        ctx.window = window
        return greatest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x_SCHW, greatest = ctx.saved_tensors
        window: int = ctx.window
        found = torch.empty_like(x_SCHW)
        # The first of equal values gets the whole gradient, as in max_pool2d; each would get it without ``is_open``.
        is_open = torch.ones_like(greatest, dtype=torch.bool)
        for i in range(window):
            for j in range(window):
                is_it = (x_SCHW[..., i::window, j::window] == greatest) & is_open
                torch.mul(gradients[0], is_it, out=found[..., i::window, j::window])
                is_open &= ~is_it
        return found, None


def _padding(features: FeaturePair) -> Tensor | None:
    """(S, 1, H, W): which cells are padding of a patch; None if there is no padding."""
    valid_PHW = features.cells.valid_PHW
    if valid_PHW is None:
        return None
    return ~valid_PHW.repeat(len(features.student_SCHW) // len(valid_PHW), 1, 1)[:, None]


class LocalPatches(Transform):
    """Cut each sample into ``grid`` x ``grid`` patches, each a sample of its own.

    Layout map -> map. Sides of patches differ by at most one cell; smaller patches are padded with cells that do not
    count. A map with fewer cells than patches becomes one patch a cell. DetKDS, ICML 2024.
    """

    def __init__(self, context: BuildContext, grid: int) -> None:
        super().__init__(context)
        self.grid = grid

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        return features.with_maps(
            self._cut(features.student_SCHW),
            self._cut(features.teacher_SCHW),
            grid=features.grid.cut(self.grid),
            layout=MAP if features.layout == REGIONS else features.layout,
            instances=None,
        )

    def _cut(self, x_SCHW: Tensor) -> Tensor:
        num_samples, channels, height, width = x_SCHW.shape
        down, across = min(self.grid, height), min(self.grid, width)
        if height % down:
            x_SCHW = x_SCHW.index_select(2, _indices(height, down, x_SCHW.device))
        if width % across:
            x_SCHW = x_SCHW.index_select(3, _indices(width, across, x_SCHW.device))
        height, width = x_SCHW.shape[2] // down, x_SCHW.shape[3] // across
        patches = x_SCHW.reshape(num_samples, channels, down, height, across, width)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(num_samples * down * across, channels, height, width)


class CellPatches(Transform):
    """Cut each sample into patches of ``side`` x ``side`` cells, each a sample of its own.

    Layout map -> map. Zeros fill the patches at the edge, and count as cells do. If a source masks, the cells that do
    not count become zeros that count, as in DetKDS's released code, where a mask is a factor of the map.
    """

    def __init__(self, context: BuildContext, side: int) -> None:
        super().__init__(context)
        self.side = side

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        return features.with_maps(
            self._cut(features.student_SCHW, features.members_SHW),
            self._cut(features.teacher_SCHW, features.members_SHW),
            grid=Grid(self.side, self.side),
            region=None,
        )

    def _cut(self, x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
        if members_SHW is not None:
            x_SCHW = x_SCHW * members_SHW[:, None]
        side, (height, width) = self.side, x_SCHW.shape[2:]
        x_SCHW = functional.pad(x_SCHW, (0, -width % side, 0, -height % side))
        patches = x_SCHW.unflatten(2, (-1, side)).unflatten(4, (-1, side))  # (S, C, down, side, across, side)
        return patches.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


@lru_cache(maxsize=256)
def _indices(length: int, num_patches: int, device: torch.device) -> Tensor:
    return torch.tensor(patch_indices(length, num_patches), device=device)
