"""Replayable views of an image: flip, zoom, and the place of the window.

A view depends on (seed, image index, view number) alone, so that the teacher's features are computed once and serve
every student. It is applied to the letterboxed image (see ``geometry``), as uint8.

Legend: C, H, W are channels, height and width of the network's input; h, w the part of it that the image fills.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from autokd.data.geometry import BoxMap, Size, rounded
from autokd.files import text_digest

PAD_RGB = (124, 116, 104)
"""Color of the padding: ImageNet's mean, which the detectors' normalization maps to zero."""
_FLIP_STREAM, _ZOOM_STREAM = 101, 102
"""Streams of random numbers, one a purpose: a change of one setting leaves the draws of the other as they were."""


@dataclass(frozen=True, slots=True)
class View:
    """A mirroring, then a scaling, then a crop or padding to the network's input."""

    flip: bool = False
    """Mirror left-right."""
    scale: float = 1.0
    """Factor of both sides."""
    offset: tuple[float, float] = (0.0, 0.0)
    """(y, x) in [0, 1], a share of the free room of each axis: start of the crop if the scaled image is larger than the
    input, place of the image if it is smaller."""


IDENTITY = View()


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Every view of every image of a split. Equal plans give equal views, on every machine."""

    num_images: int
    """Images of the split."""
    num_views: int
    """Views of each image."""
    seed: int
    """Seed of all draws."""
    flip_probability: float = 0.5
    """Probability of a mirroring, from 0 to 1."""
    scale_range: tuple[float, float] = (1.0, 1.0)
    """Least and greatest scale; 1 to 1: no zoom."""

    def view(self, index: int, number: int) -> View:
        """Return one view of one image.

        Each view is flipped with ``flip_probability``, and the flips of one image's views are spread evenly: with
        probability 0.5 its views alternate, so that two views of an image are never the same picture. The scale is
        log-uniform in ``scale_range``, the offset uniform.

        Args:
            index: position of the image in its split.
            number: number of the view, from 0.

        Raises:
            IndexError: if the plan has no such image or view.
        """
        if not (0 <= index < self.num_images and 0 <= number < self.num_views):
            raise IndexError(f"view {number} of image {index} is outside {self}")
        # Views are points on a line, one probability apart, with a random start. A view is flipped if a whole number
        # lies between its point and the next: with this probability, and spread evenly over the views.
        start = np.random.default_rng([self.seed, _FLIP_STREAM, index]).random()
        probability = self.flip_probability
        flip = math.floor((number + 1) * probability + start) > math.floor(number * probability + start)
        low, high = self.scale_range
        if low == high == 1:
            return View(flip)
        scale_draw, y, x = np.random.default_rng([self.seed, _ZOOM_STREAM, index, number]).random(3)
        return View(flip, float(low * (high / low) ** scale_draw), (float(y), float(x)))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal plans; for content-addressed caches."""
        return text_digest(repr(sorted(asdict(self).items())))


def plan_views(
    num_images: int,
    num_views: int,
    seed: int,
    flip_probability: float = 0.5,
    scale_range: tuple[float, float] = (1.0, 1.0),
) -> ViewPlan:
    """Plan the views of every image of a split.

    Args:
        num_images: images of the split.
        num_views: views of each image, at least 1.
        seed: seed of all draws.
        flip_probability: probability of a mirroring, from 0 to 1.
        scale_range: least and greatest scale, above 0.

    Returns:
        The plan; ``ViewPlan.view`` draws each view.
    """
    assert num_views >= 1
    assert 0 <= flip_probability <= 1
    assert 0 < scale_range[0] <= scale_range[1]
    low, high = scale_range
    return ViewPlan(num_images, num_views, seed, float(flip_probability), (float(low), float(high)))


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
    scaled, crop, paste, visible = [], [], [], []
    for length, room, offset in zip(content_size, image_size_px, view.offset, strict=True):
        side = length if view.scale == 1 else max(1, rounded(length * view.scale))
        scaled.append(side)
        crop.append(rounded(offset * max(0, side - room)))
        paste.append(rounded(offset * max(0, room - side)))
        visible.append(min(side, room))
    height, width = content_size
    # Scales of the rounded sizes, not of the view: boxes move exactly as the pixels do.
    scale_y, scale_x = scaled[0] / height, scaled[1] / width
    mirror = BoxMap(-1.0, float(width)) if view.flip else BoxMap()
    zoom = BoxMap(scale_x, float(paste[1] - crop[1]), scale_y, float(paste[0] - crop[0]))
    return Placement(
        (scaled[0], scaled[1]), (crop[0], crop[1]), (paste[0], paste[1]), (visible[0], visible[1]), mirror.then(zoom)
    )


def apply_view(pixels_CHW: Tensor, content_size: Size, view: View) -> Tensor:
    """Return the view of a letterboxed image.

    Args:
        pixels_CHW: uint8.
        content_size: (h, w), the part that the image fills.
        view: the view; without zoom no pixel is resampled.

    Returns:
        uint8 of the same shape; ``pixels_CHW`` itself, not a copy, for the identity.
    """
    placement = place(view, content_size, (pixels_CHW.shape[1], pixels_CHW.shape[2]))
    h, w = content_size
    unmoved = placement.scaled_size == content_size and placement.paste_start == (0, 0)
    if not view.flip and unmoved:
        return pixels_CHW
    content_Chw = pixels_CHW[:, :h, :w]
    if view.flip:
        content_Chw = content_Chw.flip(-1)
    if placement.scaled_size != content_size:
        content_Chw = functional.interpolate(
            content_Chw[None], size=placement.scaled_size, mode="bilinear", antialias=view.scale < 1
        )[0]
    (top, left), (y, x), (rows, columns) = placement.crop_start, placement.paste_start, placement.visible_size
    window = content_Chw[:, top : top + rows, left : left + columns]
    if (rows, columns) == pixels_CHW.shape[1:]:
        return window
    canvas_CHW = blank_canvas((pixels_CHW.shape[1], pixels_CHW.shape[2]))
    canvas_CHW[:, y : y + rows, x : x + columns] = window
    return canvas_CHW


def blank_canvas(image_size_px: Size) -> Tensor:
    """Return a (3, H, W) uint8 image of padding."""
    return torch.tensor(PAD_RGB, dtype=torch.uint8)[:, None, None].repeat(1, *image_size_px)
