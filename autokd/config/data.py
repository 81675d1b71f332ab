"""The section ``data``: a generated set, or any in COCO's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from autokd.config.section import Section, SizePx


class ShapesData(Section):
    """The generated set: textured shapes on textured ground, written once as COCO files."""

    format: Literal["shapes"]
    """Six kinds of shapes on textured ground, 8 to 64 px, partly hidden."""
    image_size_px: SizePx = (96, 96)
    """Height and width of the images."""
    num_train: PositiveInt = 600
    """Images to train on."""
    num_val: PositiveInt = 500
    """Images to choose on."""
    num_test: PositiveInt = 500
    """Images to report on."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Equal seeds give equal images, bit for bit."""


class CocoData(Section):
    """Any COCO-format detection set."""

    format: Literal["coco"] = "coco"
    """The ordinary format; may be left out."""
    root: Path
    """Folder of the set."""
    images: Path = Path("images")
    """Folder of the images, from ``root``."""
    train: Path
    """Annotation file of the training images, from ``root``."""
    val: Path
    """Annotation file on which everything is chosen."""
    test: Path | None = None
    """Annotation file on which the end is reported; null: on val, and the report says so."""
    image_size_px: SizePx = (480, 640)
    """Height and width that each image is scaled into, its aspect ratio kept, padded right and below."""


Data = Annotated[ShapesData | CocoData, Field(discriminator="format")]
