"""The section ``data``: a generated data set, or any in COCO's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from autokd.config.section import Section, SizePx


class ShapesData(Section):
    """A generated data set of textured shapes on textured ground, written once as COCO files."""

    format: Literal["shapes"]
    """Generated images: six classes of shapes, 8 to 64 px, partly occluded, on textured ground."""
    image_size_px: SizePx = (96, 96)
    """Height and width of the images, in pixels."""
    num_train: PositiveInt = 600
    """Number of training images."""
    num_val: PositiveInt = 500
    """Number of validation images, on which candidates and the winner are selected."""
    num_test: PositiveInt = 500
    """Number of test images, on which results are reported."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generator; equal seeds give bitwise equal images."""


class CocoData(Section):
    """A detection data set in COCO's format."""

    format: Literal["coco"] = "coco"
    """COCO's annotation format. The key may be left out."""
    root: Path
    """Folder of the data set."""
    images: Path = Path("images")
    """Folder of the images, relative to ``root``."""
    train: Path
    """Annotation file of the training images, relative to ``root``."""
    val: Path
    """Annotation file of the validation images, relative to ``root``. Candidates and the winner are chosen on them."""
    test: Path | None = None
    """Annotation file of the test images, relative to ``root``, on which results are reported. null: results are
    reported on the validation images, with a note."""
    image_size_px: SizePx = (480, 640)
    """Height and width of the network's input, in pixels. Images are scaled into it with their aspect ratio kept, and
    padded at the right and the bottom."""


Data = Annotated[ShapesData | CocoData, Field(discriminator="format")]
