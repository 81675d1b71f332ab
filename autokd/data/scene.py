"""One generated image: textured shapes on textured ground, hiding parts of each other.

Every shape fits the unit circle in its own coordinates (u, v). It is turned and stretched a little, filled with a
pattern and colors that do not depend on its class, and partly hidden by shapes and unlabeled distractors that are
drawn after it. A shape that would leave any object, itself included, with less than ``MIN_VISIBLE`` of its full area is
not drawn, so that every visible object is labeled.

Legend: a patch is the square of pixels around a shape; masks are (h, w) booleans of a patch or of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autokd.data.textures import COSINES, SINES, Plane, draw_between, draw_int, ground, paint

Mask = NDArray[np.bool_]

MIN_VISIBLE = 0.7
"""Least visible share of an object's full area."""
MIN_SIZE_PX, MAX_SIZE_PX = 10.0, 64.0
"""Diameter of the circle around an object, at most 0.7 of the image's shorter side; small ones are more frequent."""
MAX_OBJECTS, MAX_DISTRACTORS = 6, 2
_TRIES = 10
"""Places that are tried for a shape before it is left out."""
_SUB = 2
"""Samples a pixel and axis: an edge is blended by the share of the pixel that the shape covers."""


def _disc(u: Plane, v: Plane) -> Mask:
    return np.asarray(u * u + v * v <= 1.0)


def _square(u: Plane, v: Plane) -> Mask:
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) <= 0.7071)


def _triangle(u: Plane, v: Plane) -> Mask:
    return _half_planes(u, v, 3, 0.5) == 3


def _star(u: Plane, v: Plane) -> Mask:
    """Return the pentagram: points in at least four of the five half-planes whose edges are its lines."""
    return _half_planes(u, v, 5, 0.3090) >= 4


def _ring(u: Plane, v: Plane) -> Mask:
    radius_squared = u * u + v * v
    return np.asarray((radius_squared <= 1.0) & (radius_squared >= 0.3))


def _cross(u: Plane, v: Plane) -> Mask:
    u, v = np.abs(u), np.abs(v)
    return np.asarray((np.maximum(u, v) <= 0.95) & (np.minimum(u, v) <= 0.3))


def _bar(u: Plane, v: Plane) -> Mask:
    """Return the distractor, which is longer than any class."""
    return np.asarray((np.abs(u) <= 1.0) & (np.abs(v) <= 0.14))


def _half_planes(u: Plane, v: Plane, count: int, distance: float) -> NDArray[np.int64]:
    """Return the number of half-planes, of ``count`` at a ``distance`` around the center, that hold each point."""
    inside = np.zeros(u.shape, dtype=np.int64)
    for k in range(count):
        angle = round(256 * k / count) % 256
        inside += u * COSINES[angle] + v * SINES[angle] <= distance
    return inside


SHAPES: dict[str, Callable[[Plane, Plane], Mask]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
"""Class name -> whether points (u, v) are inside; the order is that of the labels."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One labeled object of an image."""

    label: int
    """Position in ``SHAPES``."""
    mask: Mask
    """(H, W), its visible pixels."""


@dataclass
class _Canvas:
    """The image as drawn so far."""

    rgb: Plane
    owner: NDArray[np.int64]
    """(H, W), number of the object on top; -1 for ground and distractors."""
    labels: list[int] = field(default_factory=list)
    full_areas: list[int] = field(default_factory=list)

    def would_hide(self, mask: Mask, window: tuple[slice, slice]) -> bool:
        """Return whether painting the mask leaves an object with less than ``MIN_VISIBLE`` of its area."""
        if not self.full_areas:
            return False
        number = len(self.full_areas)
        visible = np.bincount(self.owner.ravel() + 1, minlength=number + 1)[1:]
        lost = np.bincount(self.owner[window][mask] + 1, minlength=number + 1)[1:]
        return bool((visible - lost < MIN_VISIBLE * np.array(self.full_areas)).any())


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], list[SceneObject]]:
    """Draw one image.

    Args:
        rng: source of all its random numbers.
        size: (H, W) in pixels.

    Returns:
        Pixels of shape (H, W, 3), uint8, and at most ``MAX_OBJECTS`` objects.
    """
    base_rgb = 50.0 + 155.0 * rng.random(3)
    canvas = _Canvas(ground(rng, size, base_rgb), np.full(size, -1, dtype=np.int64))
    num_objects = max(draw_int(rng, 1, MAX_OBJECTS), draw_int(rng, 1, MAX_OBJECTS))
    num_distractors = draw_int(rng, 0, MAX_DISTRACTORS)
    is_object = np.argsort(rng.random(num_objects + num_distractors), kind="stable") < num_objects
    for objects_turn in is_object:
        _place(rng, canvas, draw_int(rng, 0, len(SHAPES) - 1) if objects_turn else None, base_rgb)
    strength = draw_between(rng, 1.0, 6.0)
    noise = (rng.random((*size, 3)) + rng.random((*size, 3)) - 1.0) * strength
    pixels = np.floor(np.clip(canvas.rgb + noise, 0.0, 255.0) + 0.5).astype(np.uint8)
    objects = [SceneObject(label, canvas.owner == number) for number, label in enumerate(canvas.labels)]
    return pixels, objects


def _place(rng: np.random.Generator, canvas: _Canvas, label: int | None, ground_rgb: Plane) -> None:
    """Draw a shape (``label`` None: a distractor) at a place where it fits; leave it out if none is found."""
    name = None if label is None else list(SHAPES)[label]
    inside = _bar if name is None else SHAPES[name]
    height, width = canvas.owner.shape
    largest = min(MAX_SIZE_PX, 0.7 * min(height, width))
    for _ in range(_TRIES):
        part = float(rng.random())
        diameter = MIN_SIZE_PX + (largest - MIN_SIZE_PX) * part * (1.0 + part) / 2.0
        radius = diameter / 2
        center = (draw_between(rng, 0.0, height), draw_between(rng, 0.0, width))
        u, v, top, left = _own_coordinates(rng, radius, center)
        coverage = inside(u, v).reshape(u.shape[0] // _SUB, _SUB, u.shape[1] // _SUB, _SUB).sum((1, 3)) / _SUB**2
        full_area = int((coverage >= 0.5).sum())
        coverage, window, cut = _within(coverage, top, left, (height, width))
        mask = coverage >= 0.5
        # Too much of the object would lie outside the image.
        if label is not None and mask.sum() < max(1.0, 0.85 * full_area):
            continue
        if canvas.would_hide(mask, window):
            continue
        color_rgb = _contrasting(rng, ground_rgb)
        middle = slice(None, None, _SUB)
        fill = paint(rng, (u * radius)[middle, middle][cut], (v * radius)[middle, middle][cut], color_rgb, 40.0)
        region = canvas.rgb[window]
        canvas.rgb[window] = region + (fill - region) * coverage[..., None]
        canvas.owner[window][mask] = -1 if label is None else len(canvas.labels)
        if label is not None:
            canvas.labels.append(label)
            canvas.full_areas.append(full_area)
        return


def _own_coordinates(
    rng: np.random.Generator, radius: float, center: tuple[float, float]
) -> tuple[Plane, Plane, int, int]:
    """Return (u, v) of the sub-pixels of a patch around the center, turned and stretched, and the patch's corner."""
    turn = draw_int(rng, -16, 16) % 256
    stretch = draw_between(rng, 0.8, 1.0)
    side = int(radius) + 2
    top, left = int(np.floor(center[0])) - side, int(np.floor(center[1])) - side
    steps = (np.arange((2 * side + 1) * _SUB) + 0.5) / _SUB
    down = ((steps + top - center[0]) / radius)[:, None]
    across = ((steps + left - center[1]) / radius)[None, :]
    u = across * COSINES[turn] + down * SINES[turn]
    v = (down * COSINES[turn] - across * SINES[turn]) / stretch
    return u, v, top, left


def _within(
    coverage: Plane, top: int, left: int, size: tuple[int, int]
) -> tuple[Plane, tuple[slice, slice], tuple[slice, slice]]:
    """Cut a patch to the image; return its coverage there, its window in the image, and the part that is inside."""
    cut, window = [], []
    for start, length, limit in zip((top, left), coverage.shape, size, strict=True):
        first, last = max(0, -start), min(length, limit - start)
        cut.append(slice(first, last))
        window.append(slice(start + first, start + last))
    return coverage[cut[0], cut[1]], (window[0], window[1]), (cut[0], cut[1])


def _contrasting(rng: np.random.Generator, ground_rgb: Plane) -> Plane:
    """Draw a color that differs from the ground's by at least 90 levels in some channel."""
    while True:
        color_rgb = 30.0 + 195.0 * rng.random(3)
        if np.abs(color_rgb - ground_rgb).max() >= 90.0:
            return color_rgb
