"""Replayable views of an image: flip, zoom, and where the window lies.

A view depends on nothing but (seed, image index, view number), so that a teacher's taps can be computed once
and met again by every student. It is applied to the letterboxed image (see ``geometry``), as uint8.

Legend: C, H, W are the network input's channels, height and width; h, w the part that the image fills.
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
"""Colour of the padding: ImageNet's mean, which detectors' normalisation makes zero."""
_FLIP_STREAM, _ZOOM_STREAM = 101, 102
"""Keep the draws of one image apart by purpose: changing one setting leaves the other's draws as they were."""


@dataclass(frozen=True, slots=True)
class View:
    """Mirror left-right, then scale, then cut or pad to the network's input.

    ``offset`` (y, x) in [0, 1] says where, as a part of the free room of each axis: where the scaled image is
    larger than the input it is cropped there, where smaller it is placed there.
    """

    flip: bool = False
    scale: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)


IDENTITY = View()


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Every view of every image of a split. Equal plans give equal views, on every machine."""

    num_images: int
    num_views: int
    seed: int
    flip_probability: float = 0.5
    scale_range: tuple[float, float] = (1.0, 1.0)

    def view(self, index: int, number: int) -> View:
        """Return view ``number`` of image ``index``; IndexError outside the plan.

        Each view is flipped with ``flip_probability``, and the flips of one image's views are spread evenly:
        with probability 0.5 its views alternate, so that two views of an image are never the same picture.
        The scale is log-uniform in ``scale_range``, the offset uniform.
        """
        if not (0 <= index < self.num_images and 0 <= number < self.num_views):
            raise IndexError(f"view {number} of image {index} is outside {self}")
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
    """Plan ``num_views`` views of each of ``num_images`` images; see ``ViewPlan``."""
    assert num_views >= 1
    assert 0 <= flip_probability <= 1
    assert 0 < scale_range[0] <= scale_range[1]
    low, high = scale_range
    return ViewPlan(num_images, num_views, seed, float(flip_probability), (float(low), float(high)))


@dataclass(frozen=True, slots=True)
class Placement:
    """What a view does to one image: the size after scaling, the crop's start, the place in the input."""

    scaled_size: Size
    crop_start: Size
    paste_start: Size
    visible_size: Size
    box_map: BoxMap
    """From the letterboxed image to the view."""


def place(view: View, content_size: Size, image_size_px: Size) -> Placement:
    """Work out ``view`` for an image that fills ``content_size`` (h, w) of the input ``image_size_px`` (H, W)."""
    scaled, crop, paste, visible = [], [], [], []
    for length, room, offset in zip(content_size, image_size_px, view.offset, strict=True):
        side = length if view.scale == 1 else max(1, rounded(length * view.scale))
        scaled.append(side)
        crop.append(rounded(offset * max(0, side - room)))
        paste.append(rounded(offset * max(0, room - side)))
        visible.append(min(side, room))
    height, width = content_size
    scale_y, scale_x = scaled[0] / height, scaled[1] / width
    mirror = BoxMap(-1.0, float(width)) if view.flip else BoxMap()
    zoom = BoxMap(scale_x, float(paste[1] - crop[1]), scale_y, float(paste[0] - crop[0]))
    return Placement(
        (scaled[0], scaled[1]), (crop[0], crop[1]), (paste[0], paste[1]), (visible[0], visible[1]), mirror.then(zoom)
    )


def apply_view(pixels_CHW: Tensor, content_size: Size, view: View) -> Tensor:
    """Return the view of a letterboxed uint8 image (C, H, W); without zoom only pixels move.

    The identity gives ``pixels_CHW`` itself, not a copy.
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
    """(3, H, W) uint8 of padding."""
    return torch.tensor(PAD_RGB, dtype=torch.uint8)[:, None, None].repeat(1, *image_size_px)
