"""Positions of a tensor's cells on the map that a source gave, after pooling and cutting.

A grid is a value (a map's size and the steps taken since), so that all that follows from it is computed once for each
size and kept from batch to batch.

Legend: P patches of a source's sample (1 before any cut), H x W cells of a sample as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

GridStep = tuple[Literal["pool", "cut"], int]


@dataclass(frozen=True, slots=True)
class Grid:
    """``height`` x ``width`` cells of the source's map, then ``steps``, oldest first.

    After a cut into patches, patch p of the source's sample b is sample b * P + p. Patches of unequal size are
    padded below and right; ``Cells.valid_PHW`` is False at the padding.
    """

    height: int
    width: int
    steps: tuple[GridStep, ...] = ()

    def pooled(self, window: int) -> Grid:
        """The grid after windows of ``window`` x ``window`` cells became one cell each; odd edges are kept."""
        return replace(self, steps=(*self.steps, ("pool", window)))

    def cut(self, num_per_side: int) -> Grid:
        """The grid after each sample was cut into ``num_per_side`` x ``num_per_side`` patches."""
        return replace(self, steps=(*self.steps, ("cut", num_per_side)))


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Each cell's extent on the source's map: [start, end) in the source's cells, padding has start = end."""

    rows_PH2: Tensor
    columns_PW2: Tensor
    valid_PHW: Tensor | None
    """None: there is no padding."""


# Kept for the whole process: the key is a value, and trainings meet few sizes (bounded for those of many sizes).
@lru_cache(maxsize=1024)
def cells_of(grid: Grid, device: torch.device) -> Cells:
    """Return where the cells of ``grid`` lie, as float32 tensors on ``device``."""
    rows, columns = _unit_intervals(grid.height), _unit_intervals(grid.width)
    for step, number in grid.steps:
        if step == "pool":
            rows, columns = _pool(rows, number), _pool(columns, number)
        else:
            rows, columns = _cut(rows, number), _cut(columns, number)
            num_down, num_across = rows.shape[1], columns.shape[1]
            rows = np.repeat(rows[:, :, None], num_across, axis=2).reshape(-1, *rows.shape[2:])
            columns = np.repeat(columns[:, None], num_down, axis=1).reshape(-1, *columns.shape[2:])
    is_row, is_column = rows[..., 1] > rows[..., 0], columns[..., 1] > columns[..., 0]
    valid = is_row[:, :, None] & is_column[:, None, :]
    return Cells(
        torch.from_numpy(rows.astype(np.float32)).to(device),
        torch.from_numpy(columns.astype(np.float32)).to(device),
        None if valid.all() else torch.from_numpy(valid).to(device),
    )


def centers_of_cells(height: int, width: int, like: Tensor) -> Tensor:
    """Return (height * width, 2): y and x of the cells' centers, as parts of the map.

    Args:
        height, width: cells of the map.
        like: a tensor of the device and type of the result.
    """
    y_H, x_W = ((torch.arange(length).to(like) + 0.5) / length for length in (height, width))
    return torch.stack(torch.meshgrid(y_H, x_W, indexing="ij"), -1).flatten(0, 1)


def patch_bounds(length: int, num_patches: int) -> list[tuple[int, int]]:
    """Cut ``length`` cells into ``num_patches`` runs whose lengths differ by at most 1; one a cell if fewer cells."""
    num = min(num_patches, length)
    return [(i * length // num, (i + 1) * length // num) for i in range(num)]


def patch_indices(length: int, num_patches: int) -> list[int]:
    """Return indices of the runs of ``patch_bounds`` one after another, the shorter ones padded by their last cell."""
    bounds = patch_bounds(length, num_patches)
    longest = max(end - start for start, end in bounds)
    return [min(start + i, end - 1) for start, end in bounds for i in range(longest)]


def _unit_intervals(length: int) -> np.ndarray:
    start = np.arange(length, dtype=np.float64)
    return np.stack([start, start + 1], axis=-1)[None]


def _pool(intervals_PN2: np.ndarray, window: int) -> np.ndarray:
    first = np.arange(0, intervals_PN2.shape[1], window)
    last = np.minimum(first + window, intervals_PN2.shape[1]) - 1
    return np.stack([intervals_PN2[:, first, 0], intervals_PN2[:, last, 1]], axis=-1)


def _cut(intervals_PN2: np.ndarray, num_patches: int) -> np.ndarray:
    """(P, N, 2) -> (P, patches, longest patch, 2); a padded cell is empty at the end of its patch."""
    bounds = patch_bounds(intervals_PN2.shape[1], num_patches)
    longest = max(end - start for start, end in bounds)
    patches = []
    for start, end in bounds:
        patch = intervals_PN2[:, start:end]
        padding = np.repeat(patch[:, -1:, 1:], 2, axis=-1)
        patches.append(np.concatenate([patch, *[padding] * (longest - (end - start))], axis=1))
    return np.stack(patches, axis=1)
