"""Means over all that a region's cell covers, however many cells of the map that are.

RoIAlign reads a fixed number of points: of a region much larger than its own cells it sees a few of the map's cells.
Here a region's cell is the integral of the bilinearly interpolated map over its part of the box, divided by its area,
which is RoIAlign with infinitely many points (Mask R-CNN, arXiv:1703.06870, section 3). Interpolation is separable, and
so is the integral: two matrix products with weights of rows and of columns. Their cost depends on the number of boxes
and the size of the map, not on the size of a box, and nothing waits for the device.

Legend: B images, M boxes of an image, C channels, H x W cells of a map, size x size cells of a region, L cells of a map
along an axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_NARROWEST = 1e-3
"""Least width of a region's cell, in cells of the map: a box without area is its neighborhood, not a division by 0."""


@dataclass(frozen=True, eq=False)
class RegionWeights:
    """The weight of each row and each column of a map in each cell of a region; both sum to 1."""

    rows_BMsH: Tensor
    columns_BMsW: Tensor

    @classmethod
    def of(cls, boxes_BM4: Tensor, stride: float, map_size: tuple[int, int], size: int) -> RegionWeights:
        """Return the weights of ``size`` x ``size`` cells of each box.

        Args:
            boxes_BM4: xyxy pixels of the network's input, finite.
            stride: pixels per cell of the map.
            map_size: (height, width) of the map in cells.
            size: cells of a region, per side.
        """
        boxes_BM4 = boxes_BM4 / stride
        return cls(
            _weights(boxes_BM4[..., 1], boxes_BM4[..., 3], map_size[0], size),
            _weights(boxes_BM4[..., 0], boxes_BM4[..., 2], map_size[1], size),
        )

    def pool(self, map_BCHW: Tensor) -> Tensor:
        """Return each region's means, (B * M, C, size, size).

        Args:
            map_BCHW: a map of the size that the weights are made for. Beyond it counts its edge's value.
        """
        num_images, num_boxes, size, height = self.rows_BMsH.shape
        width, channels = self.columns_BMsW.shape[-1], map_BCHW.shape[1]
        # Channels last: the first product is one large matrix product an image, in place of one for each channel.
        map_BHX = map_BCHW.permute(0, 2, 3, 1).reshape(num_images, height, width * channels)
        strips_BRX = self.rows_BMsH.flatten(1, 2).to(map_BHX) @ map_BHX
        strips = strips_BRX.view(num_images, num_boxes, size, width, channels)
        means_BMssC = self.columns_BMsW[:, :, None].to(map_BHX) @ strips
        return means_BMssC.flatten(0, 1).permute(0, 3, 1, 2)


def region_means(map_BCHW: Tensor, boxes_BM4: Tensor, stride: float, size: int) -> Tensor:
    """Pool each box of each image to ``size`` x ``size`` cells, each the mean of all that it covers.

    Args:
        map_BCHW: the map of one level.
        boxes_BM4: xyxy pixels of the network's input, finite.
        stride: pixels per cell of the map.
        size: cells of a region, per side.

    Returns:
        (B * M, C, size, size). Beyond the map counts its edge's value.
    """
    height, width = map_BCHW.shape[-2:]
    return RegionWeights.of(boxes_BM4.to(map_BCHW), stride, (height, width), size).pool(map_BCHW)


def _weights(low_BM: Tensor, high_BM: Tensor, length: int, size: int) -> Tensor:
    """(B, M, size, L): the mean over each of ``size`` equal parts of [low, high] of each cell's interpolation weight.

    Cell i has its center at i + 0.5 and a weight that falls linearly to 0 at its neighbors' centers; before the first
    and beyond the last center the edge's cell has weight 1.
    """
    steps_s = torch.arange(size + 1, device=low_BM.device, dtype=low_BM.dtype) / size
    edges_BMs = torch.lerp(low_BM[..., None], high_BM[..., None], steps_s) - 0.5  # cell i has its center at i
    too_narrow = (_NARROWEST - (edges_BMs[..., 1:] - edges_BMs[..., :-1])).clamp_min(0) / 2
    start_BMs1, end_BMs1 = (edges_BMs[..., :-1] - too_narrow)[..., None], (edges_BMs[..., 1:] + too_narrow)[..., None]
    center_L = torch.arange(length, device=low_BM.device, dtype=low_BM.dtype)
    inner = (start_BMs1.clamp(0, length - 1), end_BMs1.clamp(0, length - 1))
    # A linear weight's integral is its value in the middle times the length, on either side of the cell's center. The
    # difference of two antiderivatives would cancel in narrow parts.
    before = _overlap(*inner, center_L - 1, center_L)
    behind = _overlap(*inner, center_L, center_L + 1)
    total_BMsL = before[0] * (before[1] - center_L + 1) + behind[0] * (center_L + 1 - behind[1])
    outside = torch.zeros_like(total_BMsL)
    outside[..., 0] += (end_BMs1.clamp_max(0) - start_BMs1.clamp_max(0))[..., 0]
    outside[..., -1] += (end_BMs1.clamp_min(length - 1) - start_BMs1.clamp_min(length - 1))[..., 0]
    return (total_BMsL + outside) / (end_BMs1 - start_BMs1)


def _overlap(start: Tensor, end: Tensor, low_L: Tensor, high_L: Tensor) -> tuple[Tensor, Tensor]:
    """Length and middle of the part of [start, end] that lies in each [low, high]; length 0 if there is none."""
    first, last = torch.maximum(start, low_L), torch.minimum(end, high_L)
    return (last - first).clamp_min(0), (first + last) / 2
