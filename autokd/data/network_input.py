"""Images without annotations as the network's input: scaled and padded exactly as those of a data set.

Legend: C = 3 channels (RGB), H x W pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from autokd.data.depth import FULL_DEPTH_SHIFT
from autokd.data.geometry import BoxMap, Size, letterbox
from autokd.data.images import read_header, read_pixels, resized_pixels
from autokd.data.orientation import Frames
from autokd.data.sample import original_boxes
from autokd.data.views import blank_canvas


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """An image in the network's input, and the way of boxes back to the image."""

    pixels_CHW: Tensor
    """uint8."""
    original_size: Size
    """(height, width) of the image in pixels."""
    input_from_original: BoxMap
    """Map from pixels of the image to pixels of the network's input."""

    @property
    def image(self) -> Tensor:
        """The image as (3, H, W) float32 in [0, 1]."""
        return self.pixels_CHW.float().div_(255)

    def to_original(self, boxes_xyxy_px: Tensor) -> Tensor:
        """Return boxes of the network's input in the image, clipped to it.

        Args:
            boxes_xyxy_px: (n, 4) pixels of the network's input.

        Returns:
            (n, 4) float64, xyxy in pixels of the image.
        """
        return original_boxes(boxes_xyxy_px, self.input_from_original, self.original_size)


def network_input(
    source: Path | Image.Image,
    image_size_px: Size,
    deep_shift: int = FULL_DEPTH_SHIFT,
    *,
    has_two_frames: bool = False,
) -> NetworkInput:
    """Scale an image into the network's input, with its aspect ratio kept, and pad it right and below.

    Args:
        source: an image file, which is turned upright as its EXIF orientation says; or an RGB image.
        image_size_px: (H, W) of the network's input.
        deep_shift: bits by which values of more than 8 bits are reduced (``DetectionDataset.deep_shift``).
        has_two_frames: whether an image that lies across the input has it turned.

    Returns:
        The pixels of the input, and the way of boxes back to the image.

    Raises:
        DataError: if the file is missing or broken.
    """
    if isinstance(source, Path):
        size = read_header(source).upright_size
        image_size_px = _frame_of(size, image_size_px) if has_two_frames else image_size_px
        fitted = letterbox(size, image_size_px)
        pixels = read_pixels(source, size, fitted.content_size, deep_shift)
    else:
        size = (source.height, source.width)
        image_size_px = _frame_of(size, image_size_px) if has_two_frames else image_size_px
        fitted = letterbox(size, image_size_px)
        pixels = resized_pixels(source, fitted.content_size)
    canvas_CHW = blank_canvas(image_size_px)
    height, width = fitted.content_size
    canvas_CHW[:, :height, :width] = torch.from_numpy(pixels)
    return NetworkInput(canvas_CHW, size, fitted.box_map)


def _frame_of(original_size: Size, image_size_px: Size) -> Size:
    """Return the input of an image of a set with two frames: turned if the image lies across it."""
    return Frames.two(image_size_px, np.array([original_size])).of(0)
