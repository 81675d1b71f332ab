"""Band-limited noise and patterns with the same bits on every machine.

Only table look-ups and elementwise + - * / are used, whose results IEEE 754 fixes. Sums over axes, matrix products and
transcendental functions may differ in the last bit between processors, and the rounding to whole levels would show it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
"""(h, w) or (h, w, channels)."""

_ANGLES = 256
_UNIT = 4096
COSINES = np.array([round(math.cos(2 * math.pi * k / _ANGLES) * _UNIT) for k in range(_ANGLES)]) / _UNIT
"""Cosines of 256 angles of the full turn, to 12 bits: rounded so coarsely that every C library agrees."""
SINES = np.roll(COSINES, _ANGLES // 4)


def draw_int(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw a whole number in [low, high] by one ``random()``, whose stream NumPy keeps stable across versions."""
    return low + int(rng.random() * (high - low + 1))


def draw_between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number in [low, high)."""
    return low + (high - low) * float(rng.random())


def value_noise(rng: np.random.Generator, size: tuple[int, int], cell_px: float, channels: int = 1) -> Plane:
    """Draw smooth noise: random values on a lattice, smoothly interpolated.

    Args:
        rng: source of the random numbers.
        size: (h, w) in pixels.
        cell_px: distance of the lattice's points; the noise has little of frequencies above 1 / (2 cell_px).
        channels: independent channels.

    Returns:
        (h, w, channels) in [0, 1).
    """
    (rows, row_steps), (columns, column_steps) = (_lattice(rng, length, cell_px) for length in size)
    lattice = rng.random((int(rows[-1]) + 2, int(columns[-1]) + 2, channels))
    row_steps, column_steps = row_steps[:, None, None], column_steps[None, :, None]
    lines = lattice[rows] + (lattice[rows + 1] - lattice[rows]) * row_steps
    return np.asarray(lines[:, columns] + (lines[:, columns + 1] - lines[:, columns]) * column_steps)


def ground(rng: np.random.Generator, size: tuple[int, int], base_rgb: Plane) -> Plane:
    """Draw a textured background: octaves of gray noise, colored noise, and a ramp of light.

    Args:
        rng: source of the random numbers.
        size: (h, w) in pixels.
        base_rgb: (3,) mean color, in levels from 0 to 255.

    Returns:
        (h, w, 3) levels.
    """
    height, width = size
    gray = np.zeros((height, width, 1))
    total = 0.0
    for cell_px in (32.0, 16.0, 8.0, 4.0):
        amplitude = draw_between(rng, 4.0, 40.0)
        total += amplitude
        gray += amplitude * (value_noise(rng, size, cell_px) - 0.5)
    color = 12.0 * (value_noise(rng, size, 20.0, channels=3) - 0.5)
    across, down = draw_between(rng, -12.0, 12.0), draw_between(rng, -12.0, 12.0)
    light = across * (np.arange(width) / width - 0.5)[None, :, None]
    light = light + down * (np.arange(height) / height - 0.5)[:, None, None]
    return base_rgb + gray * (30.0 / total) + color + light


def paint(rng: np.random.Generator, u: Plane, v: Plane, base_rgb: Plane, contrast: float) -> Plane:
    """Draw the fill of an object: plain, noise, stripes or checks of two colors. It does not depend on the class.

    Args:
        rng: source of the random numbers.
        u: (h, w), first of the object's own coordinates, in pixels.
        v: (h, w), second of them.
        base_rgb: (3,) first color, in levels from 0 to 255.
        contrast: greatest distance of the second color, in levels.

    Returns:
        (h, w, 3) levels.
    """
    other_rgb = base_rgb + contrast * (2.0 * rng.random(3) - 1.0)
    pattern = draw_int(rng, 0, 3)
    period_px = draw_between(rng, 3.0, 9.0)
    if pattern == 0:
        mix = np.zeros_like(u)
    elif pattern == 1:
        mix = value_noise(rng, (u.shape[0], u.shape[1]), period_px)[..., 0]
    else:
        phase = draw_between(rng, 0.0, 1.0)
        stripes = np.floor(u / period_px + phase)
        if pattern == 3:
            stripes = stripes + np.floor(v / period_px + phase)
        mix = stripes - 2.0 * np.floor(stripes / 2.0)
    shade = 12.0 * (value_noise(rng, (u.shape[0], u.shape[1]), 6.0) - 0.5)
    return np.asarray(base_rgb + (other_rgb - base_rgb) * mix[..., None] + shade)


def _lattice(rng: np.random.Generator, length: int, cell_px: float) -> tuple[NDArray[np.int64], Plane]:
    """Return, for each pixel, the lattice point before it and the smoothed share of the way to the next."""
    position = np.arange(length) / cell_px + float(rng.random())
    point = np.floor(position)
    part = position - point
    return point.astype(np.int64), part * part * (3.0 - 2.0 * part)
