"""A framework's own train pipeline: what it is given of an image, and what it returns.

Legend: n boxes of an image, C = 3 channels (RGB).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabeledImage:
    """One image of a split as it is.

    Attributes:
        path: its file.
        image_id: its id in the annotations.
        size_px: (height, width).
        boxes_xyxy_px: (n, 4) float64.
        labels: (n,) int64.
        read: returns its pixels, (3, height, width) uint8.
    """

    path: str
    image_id: int
    size_px: tuple[int, int]
    boxes_xyxy_px: NDArray[np.float64]
    labels: NDArray[np.int64]
    read: Callable[[], NDArray[np.uint8]]


class ImageSource(Protocol):
    """The images of a split."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> LabeledImage:
        """Return one image; its pixels are read when they are asked for."""
        ...


@dataclass(frozen=True, eq=False)
class AugmentedImage:
    """An image as a training sees it.

    Attributes:
        pixels_CHW: uint8, or float32 from 0 to 255; images of one split may differ in size.
        boxes_xyxy_px: (n, 4) float32.
        labels: (n,) int64.
    """

    pixels_CHW: Tensor
    boxes_xyxy_px: Tensor
    labels: Tensor


class TrainPipeline(Protocol):
    """The transforms of a student's own config, replayable: equal arguments give equal images."""

    @property
    def digest(self) -> str:
        """Digits that identify the transforms and their settings."""
        ...

    def __call__(self, images: ImageSource, index: int, epoch: int, seed: int) -> AugmentedImage:
        """Return an image as one epoch of a training sees it.

        Args:
            images: the split; mosaics and mixtures take others of its images.
            index: position of the image.
            epoch: number of the epoch, from 1; 0 for an image that shows what epochs will be like.
            seed: the training's seed.
        """
        ...
