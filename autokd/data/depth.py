"""Images of more than 8 bits a channel, and how they are reduced to 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autokd.errors import DataError

DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Pillow's modes of more than 8 bits a channel."""
FULL_DEPTH_SHIFT = 8
"""Bits by which values that fill 16 bits are reduced."""


def shift_of_depth(peak: int) -> int:
    """Return the bits by which values up to ``peak`` are reduced to 8 bits: 0 to 8.

    Cameras and microscopes store 10 or 12 bits in 16. Reduced by 8 bits, they would keep 4 or 16 gray levels.

    Args:
        peak: greatest value in all images of the set.
    """
    return min(FULL_DEPTH_SHIFT, max(0, peak.bit_length() - 8))


def deep_values(image: Image.Image, path: Path) -> NDArray[Any]:
    """Return the values of an image of more than 8 bits a channel, int64.

    Args:
        image: the image.
        path: its file, for the error.

    Raises:
        DataError: if a value is beyond 16 bits.
    """
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise unsupported_pixels(path, "32-bit integer")
    return values.astype(np.int64)


def unsupported_pixels(path: Path, what: str) -> DataError:
    """Return the error for pixels that have no known range."""
    return DataError(f"{path}: {what} pixels have no known range. Convert the file to 8 or 16 bits a channel.")
