"""RoIAlign as sums of few cells each.

Bilinear interpolation is separable, and so is the mean over the sampled points of a region's cell: a region's cell is
a sum over the rows and columns that its points touch. Which they are and how much each adds is known from the boxes
alone, so that all that is left is a weighted sum of rows of a table of cells, forward and back: no loop over boxes, and
the same on every run, on a GPU as well. Equal to ``torchvision.ops.roi_align`` with ``aligned=True`` and the same
sampling ratio (Mask R-CNN, arXiv:1703.06870, section 3).

Legend: B images, M boxes of an image, L maps, C channels, H x W cells of a map, X cells of all maps of an image,
size x size cells of a region, P sampled points along an axis, T cells along an axis that a region's cell touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional


def roi_align(map_BCHW: Tensor, boxes_BM4: Tensor, stride: float, size: int, samples_per_cell: int = 2) -> Tensor:
    """Pool each box of each image to ``size`` x ``size`` cells.

    Args:
        map_BCHW: the map of one level.
        boxes_BM4: xyxy pixels of the network's input.
        stride: pixels per cell of the map.
        size: cells of a region, per side.
        samples_per_cell: points of a region's cell, per side, whose mean it is.

    Returns:
        (B * M, C, size, size). Points beyond the map have its edge's value, and 0 more than a cell further out.
    """
    levels_BM = torch.zeros(boxes_BM4.shape[:2], dtype=torch.int64, device=boxes_BM4.device)
    return roi_align_at_levels([map_BCHW], boxes_BM4, [stride], levels_BM, size, samples_per_cell)


def roi_align_at_levels(
    maps: Sequence[Tensor],
    boxes_BM4: Tensor,
    strides: Sequence[float],
    levels_BM: Tensor,
    size: int,
    samples_per_cell: int = 2,
) -> Tensor:
    """Pool each box on one of several maps of equal channels.

    As ``roi_align``; ``levels_BM`` (int64) is the index of each box's map.
    """
    channels, dtype = maps[0].shape[1], maps[0].dtype
    table_BXC = torch.cat([map_BCHW.flatten(2).transpose(1, 2) for map_BCHW in maps], 1)
    places_L3, strides_L = _geometry(tuple(tuple(x.shape[2:]) for x in maps), tuple(strides), table_BXC.device)
    height, width, first = places_L3[levels_BM].unbind(-1)
    boxes_BM4 = (boxes_BM4 / strides_L[levels_BM][..., None]).to(dtype)
    rows_BMsT, of_rows_BMsT = _touched(boxes_BM4[..., 1], boxes_BM4[..., 3], height, size, samples_per_cell)
    columns_BMsT, of_columns_BMsT = _touched(boxes_BM4[..., 0], boxes_BM4[..., 2], width, size, samples_per_cell)
    first = first + torch.arange(len(table_BXC), device=first.device)[:, None] * table_BXC.shape[1]
    rows_BMsT = first[..., None, None] + rows_BMsT * width[..., None, None]
    cells = rows_BMsT[:, :, :, None, :, None] + columns_BMsT[:, :, None, :, None, :]
    weights = of_rows_BMsT[:, :, :, None, :, None] * of_columns_BMsT[:, :, None, :, None, :]
    # A weighted sum of rows of a table: its backward adds in a fixed order, where a scatter on a GPU does not.
    regions = functional.embedding_bag(
        cells.flatten(4).flatten(0, 3),
        table_BXC.flatten(0, 1),
        mode="sum",
        per_sample_weights=weights.flatten(4).flatten(0, 3),
    )
    return regions.view(-1, size, size, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=256)
def _geometry(
    sizes: tuple[tuple[int, ...], ...], strides: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(L, 3) int64: height, width, first of an image's rows of the table; (L,) float32: stride."""
    rows, first = [], 0
    for height, width in sizes:
        rows.append((height, width, first))
        first += height * width
    # Integers stay integers: a row's number in the table can exceed what float32 counts to.
    return torch.tensor(rows, device=device), torch.tensor(strides, dtype=torch.float32, device=device)


def _touched(
    low_BM: Tensor, high_BM: Tensor, length_BM: Tensor, size: int, samples_per_cell: int
) -> tuple[Tensor, Tensor]:
    """(B, M, size, T) twice: which cells along one axis each cell of a region takes from, and how much of each."""
    num_points = size * samples_per_cell
    steps_P = (torch.arange(num_points, device=low_BM.device, dtype=low_BM.dtype) + 0.5) / num_points
    points_BMP = low_BM[..., None] + (high_BM - low_BM)[..., None] * steps_P - 0.5  # cell i has its center at i
    length_BM1 = length_BM[..., None].to(low_BM.dtype)
    is_near_BMP = (points_BMP >= -1) & (points_BMP <= length_BM1)
    inside_BMP = torch.minimum(points_BMP.clamp_min(0), length_BM1 - 1)
    before_BMP = inside_BMP.floor()
    share_BMP = inside_BMP - before_BMP
    after_BMP = torch.minimum(before_BMP + 1, length_BM1 - 1)
    weights_BMP2 = torch.stack([1 - share_BMP, share_BMP], -1) * is_near_BMP[..., None] / samples_per_cell
    cells_BMP2 = torch.stack([before_BMP, after_BMP], -1).long()
    grouped = (x.unflatten(2, (size, samples_per_cell)).flatten(3) for x in (cells_BMP2, weights_BMP2))
    cells_BMsT, weights_BMsT = grouped
    return cells_BMsT, weights_BMsT
