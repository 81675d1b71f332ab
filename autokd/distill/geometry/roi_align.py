"""RoIAlign as sums of few cells each.

Bilinear interpolation is separable, and so is the mean over the sampled points of a region's cell: a region's cell is
a sum over the rows and columns that its points touch. Which they are and how much each adds is known from the boxes
alone, so that all that is left is a weighted sum of rows of a table of cells, forward and back: no loop over boxes, and
the same on every run, on a GPU as well. Equal to ``torchvision.ops.roi_align`` with ``aligned=True`` and the same
sampling ratio (Mask R-CNN, arXiv:1703.06870, section 3).

Legend: B images, M boxes of an image, N boxes with a map each, L maps, C channels, H x W cells of a map, X cells of all
maps of an image, size x size cells of a region, P sampled points along an axis, T cells along an axis that a region's
cell touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.geometry.cell_sums import all_cells, weighted_cells


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
    images_BM = torch.arange(len(boxes_BM4), device=boxes_BM4.device)[:, None].expand(levels_BM.shape)
    return _pooled(
        maps, boxes_BM4.flatten(0, 1), images_BM.flatten(), strides, levels_BM.flatten(), size, samples_per_cell
    )


def roi_align_on_levels(
    maps: Sequence[Tensor], boxes_BM4: Tensor, strides: Sequence[float], size: int, samples_per_cell: int = 2
) -> Tensor:
    """Pool each box on every one of several maps of equal channels.

    As ``roi_align``.

    Returns:
        (L, B * M, C, size, size); in memory, the channels of a cell lie side by side.
    """
    images_BM = torch.arange(len(boxes_BM4), device=boxes_BM4.device)[:, None].expand(boxes_BM4.shape[:2])
    num_maps, num_regions = len(maps), images_BM.numel()
    levels_N = torch.arange(num_maps, device=boxes_BM4.device).repeat_interleave(num_regions)
    boxes_N4, images_N = boxes_BM4.flatten(0, 1).repeat(num_maps, 1), images_BM.flatten().repeat(num_maps)
    regions = _pooled(maps, boxes_N4, images_N, strides, levels_N, size, samples_per_cell)
    return regions.unflatten(0, (num_maps, num_regions))


def _pooled(
    maps: Sequence[Tensor],
    boxes_N4: Tensor,
    images_N: Tensor,
    strides: Sequence[float],
    levels_N: Tensor,
    size: int,
    samples_per_cell: int,
) -> Tensor:
    """(N, C, size, size): each box on its map of its image."""
    channels, dtype = maps[0].shape[1], maps[0].dtype
    table_BXC = torch.cat([map_BCHW.flatten(2).transpose(1, 2) for map_BCHW in maps], 1)
    places_L3, strides_L = _geometry(tuple(tuple(x.shape[2:]) for x in maps), tuple(strides), table_BXC.device)
    height_N, width_N, first_N = places_L3[levels_N].unbind(-1)
    boxes_N4 = (boxes_N4 / strides_L[levels_N][:, None]).to(dtype)
    rows = _touched(boxes_N4[:, 1], boxes_N4[:, 3], height_N, size, samples_per_cell)
    columns = _touched(boxes_N4[:, 0], boxes_N4[:, 2], width_N, size, samples_per_cell)
    first_N = first_N + images_N * table_BXC.shape[1]
    # The number of cells that a region reads depends on the boxes: to know it is free on a CPU alone.
    sums = (weighted_cells if table_BXC.device.type == "cpu" else all_cells)(rows, columns, first_N, width_N)
    # A weighted sum of rows of a table: its backward adds in a fixed order, where a scatter on a GPU does not.
    regions = functional.embedding_bag(
        sums.cells, table_BXC.flatten(0, 1), sums.offsets, mode="sum", per_sample_weights=sums.weights
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
    low_N: Tensor, high_N: Tensor, length_N: Tensor, size: int, samples_per_cell: int
) -> tuple[Tensor, Tensor]:
    """(N, size, T) twice: which cells along one axis each cell of a region takes from, and how much of each."""
    num_points = size * samples_per_cell
    steps_P = (torch.arange(num_points, device=low_N.device, dtype=low_N.dtype) + 0.5) / num_points
    points_NP = low_N[:, None] + (high_N - low_N)[:, None] * steps_P - 0.5  # cell i has its center at i
    length_N1 = length_N[:, None].to(low_N.dtype)
    is_near_NP = (points_NP >= -1) & (points_NP <= length_N1)
    inside_NP = torch.minimum(points_NP.clamp_min(0), length_N1 - 1)
    before_NP = inside_NP.floor()
    share_NP = inside_NP - before_NP
    after_NP = torch.minimum(before_NP + 1, length_N1 - 1)
    weights_NP2 = torch.stack([1 - share_NP, share_NP], -1) * is_near_NP[..., None] / samples_per_cell
    cells_NP2 = torch.stack([before_NP, after_NP], -1).long()
    cells_NsT, weights_NsT = (x.unflatten(1, (size, samples_per_cell)).flatten(2) for x in (cells_NP2, weights_NP2))
    return cells_NsT, weights_NsT
