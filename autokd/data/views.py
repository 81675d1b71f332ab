"""Views of an image: flip, zoom, the place of the window, and colors; applied to the letterboxed image, as uint8.

``view_plan`` draws them, ``mixing`` joins those of several images.

Legend: C, H, W are channels, height and width of the network's input; h, w the part of it that the image fills.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as colors

from autokd.data.geometry import BoxMap, Size, rounded
from autokd.data.pixel_readers import resampled

PAD_RGB = (124, 116, 104)
"""Color of the padding: ImageNet's mean, which the detectors' normalization maps to zero."""


@dataclass(frozen=True, slots=True)
class Color:
    """Changes of color, in the order of the fields."""

    brightness: float = 1.0
    """Factor of all numbers."""
    contrast: float = 1.0
    """Factor of the distance to the image's mean gray."""
    saturation: float = 1.0
    """Factor of the distance to each pixel's gray."""
    hue: float = 0.0
    """Turn of the hue, from -0.5 to 0.5 of the circle."""


@dataclass(frozen=True, slots=True)
class View:
    """A mirroring, then a scaling, then a crop or padding to the network's input, then changes of color.

    ``mixing`` joins several images: a mosaic shows four around a center, a mixture is the mean of two.
    """

    flip: bool = False
    """Mirror left-right."""
    scale: float = 1.0
    """Factor of both sides."""
    offset: tuple[float, float] = (0.0, 0.0)
    """(y, x) in [0, 1], a share of the free room of each axis: start of the crop if the scaled image is larger than the
    input, place of the image if it is smaller."""
    color: Color | None = None
    """Changes of color; None: none."""
    mosaic: Mosaic | None = None
    """The images of a mosaic, which then take the place of flip, scale, offset and color; None: the image alone."""
    mixed_with: tuple[int, View] | None = None
    """Index and view of the image of a mixture; None: no mixture."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Four images around a center, in reading order: the view's own image is above and left of it. YOLOv4, 3.3."""

    center: tuple[float, float]
    """(y, x) as shares of the network's input."""
    parts: tuple[tuple[int, View], ...]
    """Index and view of each of the four images; offsets are not read, every image touches the center."""


IDENTITY = View()


@dataclass(frozen=True, slots=True)
class Placement:
    """A view of one image in whole pixels; sizes are (height, width), starts (y, x)."""

    scaled_size: Size
    """Size of the image's part after scaling."""
    crop_start: Size
    """First pixel of the scaled image that is visible."""
    paste_start: Size
    """Place of that pixel in the input."""
    visible_size: Size
    """Size of the visible part."""
    box_map: BoxMap
    """Map from pixels of the letterboxed image to pixels of the view."""


def place(view: View, content_size: Size, image_size_px: Size) -> Placement:
    """Return the placement of a view.

    Args:
        view: the view.
        content_size: (h, w), the part of the input that the letterboxed image fills.
        image_size_px: (H, W) of the network's input.
    """
    scaled, crop, start, visible = [], [], [], []
    for length, room, offset in zip(content_size, image_size_px, view.offset, strict=True):
        side = length if view.scale == 1 else max(1, rounded(length * view.scale))
        scaled.append(side)
        crop.append(rounded(offset * max(0, side - room)))
        start.append(rounded(offset * max(0, room - side)))
        visible.append(min(side, room))
    return placed(
        view.flip,
        content_size,
        (scaled[0], scaled[1]),
        (crop[0], crop[1]),
        (start[0], start[1]),
        (visible[0], visible[1]),
    )


def placed(
    flip: bool, content_size: Size, scaled_size: Size, crop_start: Size, paste_start: Size, visible_size: Size
) -> Placement:
    """Return a placement with the map of boxes that belongs to it."""
    height, width = content_size
    # Scales of the rounded sizes, not of the view: boxes move exactly as the pixels do.
    scale_y, scale_x = scaled_size[0] / height, scaled_size[1] / width
    mirror = BoxMap(-1.0, float(width)) if flip else BoxMap()
    zoom = BoxMap(scale_x, float(paste_start[1] - crop_start[1]), scale_y, float(paste_start[0] - crop_start[0]))
    return Placement(scaled_size, crop_start, paste_start, visible_size, mirror.then(zoom))


def apply_view(pixels_CHW: Tensor, content_size: Size, view: View, image_size_px: Size | None = None) -> Tensor:
    """Return the view of one letterboxed image; ``mixing`` joins several.

    Args:
        pixels_CHW: uint8.
        content_size: (h, w), the part that the image fills.
        view: the view; without zoom no pixel is resampled.
        image_size_px: (height, width) of the view; None: that of ``pixels_CHW``.

    Returns:
        (3, *image_size_px) uint8; ``pixels_CHW`` itself, not a copy, for the identity.
    """
    own_size_px = (pixels_CHW.shape[1], pixels_CHW.shape[2])
    image_size_px = image_size_px or own_size_px
    placement = place(view, content_size, image_size_px)
    unmoved = placement.scaled_size == content_size and placement.paste_start == (0, 0)
    unmoved = unmoved and image_size_px == own_size_px
    if not view.flip and unmoved and view.color is None:
        return pixels_CHW
    window = visible_window(pixels_CHW, content_size, view, placement)
    if window.shape[1:] == image_size_px:
        return window
    canvas_CHW = blank_canvas(image_size_px, pixels_CHW.device)
    paste(window, canvas_CHW, placement)
    return canvas_CHW


def visible_window(pixels_CHW: Tensor, content_size: Size, view: View, placement: Placement) -> Tensor:
    """Return the part of a letterboxed image that a placement shows, (3, *placement.visible_size) uint8."""
    h, w = content_size
    content_Chw = pixels_CHW[:, :h, :w]
    if view.flip:
        content_Chw = content_Chw.flip(-1)
    if placement.scaled_size != content_size:
        content_Chw = resampled(content_Chw, placement.scaled_size, antialias=view.scale < 1)
    (top, left), (rows, columns) = placement.crop_start, placement.visible_size
    window = content_Chw[:, top : top + rows, left : left + columns]
    # Before the padding, whose color the detectors' normalization maps to zero.
    return window if view.color is None else recolored(window, view.color)


def paste(window_Chw: Tensor, canvas_CHW: Tensor, placement: Placement) -> None:
    """Write a window at its place of a canvas."""
    (y, x), (rows, columns) = placement.paste_start, placement.visible_size
    canvas_CHW[:, y : y + rows, x : x + columns] = window_Chw


def recolored(pixels_CHW: Tensor, color: Color) -> Tensor:
    """Return uint8 pixels with changed colors, by torchvision's transforms.v2."""
    pixels_CHW = colors.adjust_brightness(pixels_CHW, color.brightness)
    pixels_CHW = colors.adjust_contrast(pixels_CHW, color.contrast)
    pixels_CHW = colors.adjust_saturation(pixels_CHW, color.saturation)
    return pixels_CHW if color.hue == 0 else colors.adjust_hue(pixels_CHW, color.hue)


def blank_canvas(image_size_px: Size, device: torch.device | None = None) -> Tensor:
    """Return a (3, H, W) uint8 image of padding."""
    return torch.tensor(PAD_RGB, dtype=torch.uint8, device=device)[:, None, None].repeat(1, *image_size_px)
