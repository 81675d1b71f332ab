"""Where a point of the original image lies in the network's input: axis-wise maps and the letterbox.

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


@dataclass(frozen=True, slots=True)
class BoxMap:
    """x -> scale_x * x + shift_x, likewise y. A negative scale mirrors; corners are put in order again."""

    scale_x: float = 1.0
    shift_x: float = 0.0
    scale_y: float = 1.0
    shift_y: float = 0.0

    def apply(self, boxes_xyxy_px: Any) -> Boxes:
        """Map (n, 4) boxes (anything that NumPy reads); gives float64."""
        boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        shift = np.array([self.shift_x, self.shift_y] * 2)
        corners = boxes * scale + shift
        return np.concatenate(
            [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], axis=1
        )

    def then(self, after: BoxMap) -> BoxMap:
        """Return the map that applies this one first and ``after`` next."""
        return BoxMap(
            self.scale_x * after.scale_x,
            self.shift_x * after.scale_x + after.shift_x,
            self.scale_y * after.scale_y,
            self.shift_y * after.scale_y + after.shift_y,
        )

    def inverse(self) -> BoxMap:
        return BoxMap(1 / self.scale_x, -self.shift_x / self.scale_x, 1 / self.scale_y, -self.shift_y / self.scale_y)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """An image scaled into the network's input, its aspect ratio kept, padded right and below.

    ``content_size`` is the part of the input that the image fills, from the upper left corner. It is whole
    pixels, so the two axes' scales may differ by a rounding; ``box_map`` holds the exact ones.
    """

    content_size: Size
    box_map: BoxMap


def letterbox(original_size: Size, image_size_px: Size) -> Letterbox:
    """Fit ``original_size`` into ``image_size_px``; small images are enlarged."""
    height, width = original_size
    scale = min(image_size_px[0] / height, image_size_px[1] / width)
    content_h = min(image_size_px[0], max(1, rounded(height * scale)))
    content_w = min(image_size_px[1], max(1, rounded(width * scale)))
    return Letterbox((content_h, content_w), BoxMap(content_w / width, 0.0, content_h / height, 0.0))


def clip_boxes(boxes: Boxes, size: Size) -> Boxes:
    """Clip (n, 4) boxes to an image of ``size``."""
    height, width = size
    return np.stack([boxes[:, i].clip(0, limit) for i, limit in enumerate((width, height, width, height))], axis=1)


def box_areas(boxes: Boxes) -> NDArray[np.float64]:
    """(n,) areas in square pixels; 0 where a side is negative."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def rounded(value: float) -> int:
    """Nearest whole number, halves upwards (Python's ``round`` would alternate)."""
    return int(np.floor(value + 0.5))
