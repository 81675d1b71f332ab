"""Maps between pixels of the original image and of the network's input: one scale and shift an axis, the letterbox.

Legend: boxes are ``xyxy`` in continuous pixels: 0 is the left (upper) edge of the first pixel and W (H) the
right (lower) edge of the last, as in COCO's ``xywh``. Sizes are (height, width). n boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""(n, 4) xyxy pixels."""
Size = tuple[int, int]
"""(height, width) in pixels."""

MIN_SIDE_PX = 0.5
"""Shortest side of a box in the network's input that is trained on."""
MIN_VISIBLE_FRACTION = 0.3
"""Least part of a box in a view's window with which it is trained on in that view."""


@dataclass(frozen=True, slots=True)
class BoxMap:
    """The map x -> scale_x * x + shift_x, and likewise y.

    Attributes:
        scale_x, scale_y: factors; a negative factor mirrors the axis.
        shift_x, shift_y: shifts in pixels of the image that the map leads to.
    """

    scale_x: float = 1.0
    shift_x: float = 0.0
    scale_y: float = 1.0
    shift_y: float = 0.0

    def apply(self, boxes_xyxy_px: Any) -> Boxes:
        """Map boxes.

        Args:
            boxes_xyxy_px: (n, 4); anything that NumPy reads.

        Returns:
            (n, 4) float64; after a mirroring the corners are put in order again.
        """
        boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        shift = np.array([self.shift_x, self.shift_y] * 2)
        corners = boxes * scale + shift
        return np.concatenate(
            [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], axis=1
        )

    def then(self, after: BoxMap) -> BoxMap:
        """Return the map that applies this one first and ``after`` next.

        Args:
            after: map of the pixels that this map leads to.
        """
        return BoxMap(
            self.scale_x * after.scale_x,
            self.shift_x * after.scale_x + after.shift_x,
            self.scale_y * after.scale_y,
            self.shift_y * after.scale_y + after.shift_y,
        )

    def inverse(self) -> BoxMap:
        """Return the map that undoes this one."""
        return BoxMap(1 / self.scale_x, -self.shift_x / self.scale_x, 1 / self.scale_y, -self.shift_y / self.scale_y)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """An image scaled into the network's input, its aspect ratio kept, padded right and below."""

    content_size: Size
    """(h, w), the part of the input that the image fills from the upper left corner, in whole pixels."""
    box_map: BoxMap
    """Map from the original image. Its two scales may differ by the rounding to whole pixels."""


def letterbox(original_size: Size, image_size_px: Size) -> Letterbox:
    """Fit an image into the network's input; small images are enlarged.

    Args:
        original_size: (height, width) of the image in pixels.
        image_size_px: (H, W) of the input.

    Returns:
        Size of the part of the input that the image fills, and the map from pixels of the image to pixels of the input.
    """
    height, width = original_size
    scale = min(image_size_px[0] / height, image_size_px[1] / width)
    content_h = min(image_size_px[0], max(1, rounded(height * scale)))
    content_w = min(image_size_px[1], max(1, rounded(width * scale)))
    return Letterbox((content_h, content_w), BoxMap(content_w / width, 0.0, content_h / height, 0.0))


def letterbox_maps(
    original_sizes: NDArray[np.int64], image_size_px: Size | NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Fit many images into the network's input at once, each as ``letterbox`` does.

    Args:
        original_sizes: (N, 2), (height, width) of the images in pixels.
        image_size_px: (H, W) of the input; (N, 2) if each image has its own.

    Returns:
        Factors (N, 2) from pixels of the image to pixels of the input, and sizes (N, 2) of the parts of the input that
        the images fill, height first.
    """
    limits = np.array(image_size_px)
    scale = (limits / original_sizes).min(axis=1, keepdims=True)
    contents = np.floor(original_sizes * scale + 0.5).astype(np.int64).clip(1, limits)
    return contents / original_sizes, contents


def clip_boxes(boxes: Boxes, size: Size) -> Boxes:
    """Clip (n, 4) boxes to an image of ``size`` (height, width)."""
    height, width = size
    return np.stack([boxes[:, i].clip(0, limit) for i, limit in enumerate((width, height, width, height))], axis=1)


def box_areas(boxes: Boxes) -> NDArray[np.float64]:
    """Return the (n,) areas in square pixels; 0 if a side is negative."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def visible_boxes(boxes: Boxes, start: Size, size: Size | NDArray[np.int64]) -> tuple[Boxes, NDArray[np.bool_]]:
    """Clip boxes to a window.

    Args:
        boxes: (n, 4) xyxy pixels.
        start: (y, x) of the window's first pixel.
        size: (h, w) of the window; (2, n) if each box has its own.

    Returns:
        The clipped boxes, (n, 4), and whether each is large and visible enough to be trained on, (n,).
    """
    (top, left), (rows, columns) = start, size
    low, high = np.array([left, top, left, top]), np.array([left + columns, top + rows] * 2).T
    clipped = boxes.clip(low, high)
    wide_enough = ((clipped[:, 2:] - clipped[:, :2]) >= MIN_SIDE_PX).all(axis=1)
    return clipped, wide_enough & (box_areas(clipped) >= MIN_VISIBLE_FRACTION * box_areas(boxes))


def rounded(value: float) -> int:
    """Return the nearest whole number, halves upwards (Python's ``round`` takes halves to the even number)."""
    return int(np.floor(value + 0.5))
