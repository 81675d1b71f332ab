"""Images with their files of labels, as the converters of other formats find them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """One image of a split.

    Attributes:
        image: its file; in Pascal VOC's format the folder in which the file lies that the labels name.
        labels: its file of labels; None: it shows no object.
    """

    image: Path
    labels: Path | None


@dataclass(frozen=True)
class ObjectBox:
    """One object: the name of its class, and its corners x1, y1, x2, y2 in pixels."""

    name: str
    corners_px: tuple[float, float, float, float]


@dataclass(frozen=True)
class ReadImage:
    """One image with its objects, and (height, width) of the frame in pixels."""

    image: Path
    size: tuple[int, int]
    objects: tuple[ObjectBox, ...]


Splits = dict[str, list[LabeledImage]]
"""Images by the name of their split."""


def is_image(path: Path) -> bool:
    """Return whether a path ends like an image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES
