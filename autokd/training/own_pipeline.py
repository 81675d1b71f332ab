"""Batches through the train pipeline of the student's own framework, in place of the views of this project.

Legend: B images of a batch, C = 3 channels (RGB), H x W pixels of its largest image, rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from autokd.data import BoxMap, DetectionDataset, HostBatch, Sample, Target, stack_samples
from autokd.data.images import read_pixels
from autokd.data.views import PAD_RGB
from autokd.detectors import AugmentedImage, LabeledImage, TrainPipeline

_MULTIPLE_PX = 32
"""Sides of a batch are multiples of this, as strides up to it need; a detector may pad to more."""


@dataclass(frozen=True, eq=False)
class SplitImages:
    """The images of a split as a pipeline takes them: whole, with the boxes that are trained on."""

    dataset: DetectionDataset

    def __len__(self) -> int:
        return self.dataset.num_images

    def __getitem__(self, index: int) -> LabeledImage:
        dataset = self.dataset
        path, size = dataset.image_path(index), dataset.original_size(index)
        boxes, labels = dataset.split.trained_objects(index)
        read = partial(read_pixels, path, size, size, dataset.deep_shift)
        return LabeledImage(str(path), dataset.image_ids[index], size, boxes, labels, read)


def load_batch(
    pipeline: TrainPipeline, dataset: DetectionDataset, pairs: Sequence[tuple[int, int]], seed: int
) -> HostBatch:
    """Return a batch of a student's own pipeline, its images padded to one size at the right and at the bottom.

    Args:
        pipeline: the transforms.
        dataset: the split.
        pairs: (image index, number of the epoch) of each image.
        seed: the training's seed.
    """
    images = SplitImages(dataset)
    augmented = [pipeline(images, index, epoch, seed) for index, epoch in pairs]
    padded = _padded_alike([each.pixels_CHW for each in augmented])
    samples = [
        Sample(pixels_CHW, _target(each), index, dataset.image_ids[index], dataset.original_size(index), BoxMap())
        for pixels_CHW, each, (index, _) in zip(padded, augmented, pairs, strict=True)
    ]
    return stack_samples(samples)


def _target(augmented: AugmentedImage) -> Target:
    return {"boxes": augmented.boxes_xyxy_px, "labels": augmented.labels}


def _padded_alike(images: Sequence[Tensor]) -> list[Tensor]:
    """Return images with the size of the largest; all float32 if one is."""
    height, width = (-(-max(image.shape[axis] for image in images) // _MULTIPLE_PX) * _MULTIPLE_PX for axis in (1, 2))
    dtype = torch.uint8 if all(image.dtype == torch.uint8 for image in images) else torch.float32
    color = torch.tensor(PAD_RGB, dtype=dtype)[:, None, None]
    padded = []
    for image in images:
        canvas_CHW = color.repeat(1, height, width)
        canvas_CHW[:, : image.shape[1], : image.shape[2]] = image
        padded.append(canvas_CHW)
    return padded
