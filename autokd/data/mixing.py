"""Views that join several images: mosaics (YOLOv4, arXiv:2004.10934, section 3.3) and mixtures (mixup,
arXiv:1710.09412, with equal parts as YOLOX has them, arXiv:2107.08430, section 2.1).

Boxes of all images are kept; a box that a mosaic cuts counts by the same rule as one that a zoom cuts.

Legend: C = 3 channels (RGB), H x W pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autokd.data.geometry import Size, rounded
from autokd.data.views import Placement, View, blank_canvas, paste, placed, visible_window


def mosaic_placements(
    views: Sequence[View], content_sizes: Sequence[Size], center: tuple[float, float], image_size_px: Size
) -> tuple[Placement, ...]:
    """Return the placement of each of a mosaic's four images, each with a corner at the center.

    Args:
        views: view of each image, in reading order; flips and scales are read.
        content_sizes: (h, w) of each letterboxed image, the part of the input that it fills.
        center: (y, x) of the center as shares of the input.
        image_size_px: (H, W) of the network's input.
    """
    middle = tuple(rounded(share * side) for share, side in zip(center, image_size_px, strict=True))
    found = []
    for number, (view, content_size) in enumerate(zip(views, content_sizes, strict=True)):
        is_after = divmod(number, 2)  # whether the image lies below the center, and right of it
        scaled, crop, start, visible = [], [], [], []
        for axis in range(2):
            side = max(1, rounded(content_size[axis] * view.scale))
            room = image_size_px[axis] - middle[axis] if is_after[axis] else middle[axis]
            scaled.append(side)
            # Of an image before the center its end is visible, of one after it its beginning.
            visible.append(min(side, room))
            crop.append(0 if is_after[axis] else side - min(side, room))
            start.append(middle[axis] if is_after[axis] else middle[axis] - min(side, room))
        found.append(
            placed(
                view.flip,
                content_size,
                (scaled[0], scaled[1]),
                (crop[0], crop[1]),
                (start[0], start[1]),
                (visible[0], visible[1]),
            )
        )
    return tuple(found)


def draw_mosaic(
    images: Sequence[Tensor],
    views: Sequence[View],
    content_sizes: Sequence[Size],
    placements: Sequence[Placement],
    image_size_px: Size,
) -> Tensor:
    """Return a mosaic, (3, H, W) uint8.

    Args:
        images: letterboxed images, (3, H, W) uint8, in reading order.
        views: view of each.
        content_sizes: (h, w) of each, the part that the image fills.
        placements: those of ``mosaic_placements``.
        image_size_px: (H, W) of the network's input.
    """
    canvas_CHW = blank_canvas(image_size_px, images[0].device)
    for pixels_CHW, view, content_size, placement in zip(images, views, content_sizes, placements, strict=True):
        if min(placement.visible_size) > 0:
            paste(visible_window(pixels_CHW, content_size, view, placement), canvas_CHW, placement)
    return canvas_CHW


def mixture(first_CHW: Tensor, second_CHW: Tensor) -> Tensor:
    """Return the mean of two uint8 images, halves rounded up."""
    return ((first_CHW.to(torch.int16) + second_CHW + 1) // 2).to(torch.uint8)
