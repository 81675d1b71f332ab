"""Images without boxes of a training's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from autokd.config import Recipe, ShapesData
from autokd.config.data import Data
from autokd.data import DetectionDataset
from autokd.data.unlabeled import UnlabeledImages
from autokd.detector_outputs import DetectorOutputs
from autokd.training.loader import Batch
from autokd.training.seeds import stream_seed


@dataclass(frozen=True, eq=False)
class UnlabeledBatches:
    """Images without boxes of each step, and the teacher that runs on them.

    The images of a step depend on the training's seed and the number of the step alone, so that a resumed training
    sees those that an uninterrupted one sees.

    Attributes:
        images: the images.
        teacher: returns the teacher's taps of a batch; it runs beside the student, for nothing of these is cached.
        num_images: images of a step.
        share: factor of their loss, images without boxes for each image with boxes: each counts as much as another.
        flip_probability: as of the recipe.
        device: device of the batches.
    """

    images: UnlabeledImages
    teacher: Callable[[Batch], DetectorOutputs | tuple[DetectorOutputs, ...]]
    num_images: int
    share: float
    flip_probability: float
    device: torch.device

    def batch(self, seed: int, step: int) -> Batch:
        """Return the images of a step.

        Args:
            seed: the training's seed.
            step: 0-based number of the step.

        Raises:
            DataError: if an image is broken.
        """
        pixels = self.images.batch(self.num_images, stream_seed(seed, "unlabeled", step), self.flip_probability)
        return Batch(((-1, 0),) * self.num_images, pixels.to(self.device), [])


def unlabeled_images(data: Data, like: DetectionDataset) -> UnlabeledImages | None:
    """Return the images without boxes of a configuration; None if it names none.

    Args:
        data: the section ``data``.
        like: the split whose network input they get.
    """
    if isinstance(data, ShapesData) or data.unlabeled is None:
        return None
    return UnlabeledImages(data.root / data.unlabeled, like.image_size_px, like.deep_shift)


def unlabeled_batches(
    data: Data,
    recipe: Recipe,
    images: UnlabeledImages,
    teacher: Callable[[Batch], DetectorOutputs | tuple[DetectorOutputs, ...]],
    device: torch.device,
) -> UnlabeledBatches:
    """Return the images without boxes of a recipe's steps: ``data.unlabeled_ratio`` of the batch size, at least 1.

    Args:
        data: the section ``data``, which names the images.
        recipe: the recipe.
        images: the images.
        teacher: returns the teacher's taps of a batch that was never seen.
        device: device of the batches.
    """
    assert not isinstance(data, ShapesData), "generated sets have no images without boxes"
    num_images = max(1, round(data.unlabeled_ratio * recipe.batch_size))
    share = num_images / recipe.batch_size
    return UnlabeledBatches(images, teacher, num_images, share, recipe.flip_probability, device)
