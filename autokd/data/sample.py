"""One image as the network sees it with its boxes, and the batch that samples make.

Legend: B images, C = 3 channels (RGB), H x W pixels of the network's input, n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import Tensor

from autokd.data.geometry import BoxMap, Size, clip_boxes
from autokd.data.views import IDENTITY, View
from autokd.targets import CheckedTargets, labels_above


class Target(TypedDict):
    """Ground truth of one image."""

    boxes: Tensor
    """(n, 4) float32, xyxy in pixels of the network's input."""
    labels: Tensor
    """(n,) int64, positions in the classes."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image in one view."""

    pixels_CHW: Tensor
    """uint8. It may be the data set's own memory of the image, so nothing may write to it."""
    target: Target
    """Boxes and labels of the view that can be trained on; crowd regions are left out."""
    index: int
    """Position of the image in its split."""
    image_id: int
    """Id of the image in the JSON."""
    original_size: Size
    """(height, width) in pixels of the frame that COCO results refer to."""
    input_from_original: BoxMap
    """Map from pixels of the original image to pixels of the network's input."""
    view: View = IDENTITY
    """View that ``pixels_CHW``, ``target`` and ``input_from_original`` belong to."""

    @property
    def image(self) -> Tensor:
        """The image as (3, H, W) float32 in [0, 1]."""
        return self.pixels_CHW.float().div_(255)

    def to_original(self, boxes_xyxy_px: Tensor) -> Tensor:
        """Return boxes of the network's input in the original image, clipped to it.

        Args:
            boxes_xyxy_px: (n, 4) pixels of the network's input.

        Returns:
            (n, 4) float64, xyxy in pixels of the original image.
        """
        return original_boxes(boxes_xyxy_px, self.input_from_original, self.original_size)


def original_boxes(boxes_xyxy_px: Any, input_from_original: BoxMap, original_size: Size) -> Tensor:
    """Return boxes of the network's input in the original image, clipped to it.

    Args:
        boxes_xyxy_px: (n, 4) pixels of the network's input; a tensor, or anything that NumPy reads.
        input_from_original: map from pixels of the original image to pixels of the input.
        original_size: (height, width) of the original image in pixels.

    Returns:
        (n, 4) float64, xyxy in pixels of the original image.
    """
    boxes = boxes_xyxy_px.detach().cpu().numpy() if isinstance(boxes_xyxy_px, Tensor) else boxes_xyxy_px
    return torch.from_numpy(clip_boxes(input_from_original.inverse().apply(boxes), original_size))


@dataclass(frozen=True, eq=False)
class HostBatch:
    """A batch in the host's memory: two tensors, so that a GPU gets it by two copies whatever the number of boxes."""

    pixels_BCHW: Tensor
    """uint8, a quarter of the bytes of float32; or float32 from 0 to 255."""
    packed: Tensor
    """(5 n,) float32: the boxes of all images one after the other, 4 n numbers, then their labels."""
    num_boxes: tuple[int, ...]
    """Boxes of each image; they sum to n."""
    num_classes: int | None = None
    """Least number of classes with which boxes and labels are right; None if they are wrong with any."""

    def pin_memory(self) -> HostBatch:
        """Return the batch in pinned memory; torch's DataLoader asks for it by this name."""
        return replace(self, pixels_BCHW=self.pixels_BCHW.pin_memory(), packed=self.packed.pin_memory())

    def to(self, device: torch.device | str) -> tuple[Tensor, list[Target]]:
        """Copy to a device; from pinned memory without waiting for the copy.

        Args:
            device: device of the batch.

        Returns:
            Images of shape (B, 3, H, W), float32 in [0, 1], and the target of each: ``CheckedTargets`` if boxes and
            labels are right.
        """
        pixels_BCHW = self.pixels_BCHW.to(device, non_blocking=True)
        packed = self.packed.to(device, non_blocking=True)
        total = sum(self.num_boxes)
        boxes = packed[: 4 * total].view(total, 4).split(self.num_boxes)
        labels = packed[4 * total :].long().split(self.num_boxes)
        targets: list[Target] = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]
        if self.num_classes is not None:
            targets = CheckedTargets(targets, self.num_classes)
        # Where they are float32 already, the host's own numbers must stay.
        return pixels_BCHW.float() / 255, targets


def stack_samples(samples: Sequence[Sample], *, pinned: bool = False) -> HostBatch:
    """Stack samples in the host's memory.

    Args:
        samples: B images of one size.
        pinned: whether in pinned memory, from which a GPU copies beside its computing. Pixels that a card has decoded
            are there already.

    Returns:
        The pixels in one tensor, all boxes and labels in another.
    """
    boxes = torch.cat([sample.target["boxes"] for sample in samples])
    labels = torch.cat([sample.target["labels"] for sample in samples])
    pixels_BCHW = torch.stack([sample.pixels_CHW for sample in samples])
    # float32 holds every label exactly: they are below 2^24.
    packed = torch.cat([boxes.flatten(), labels.float()])
    if pinned:
        packed = packed.pin_memory()
        pixels_BCHW = pixels_BCHW if pixels_BCHW.is_cuda else pixels_BCHW.pin_memory()
    num_boxes = tuple(len(sample.target["labels"]) for sample in samples)
    return HostBatch(pixels_BCHW, packed, num_boxes, labels_above(boxes, labels))


def collate(samples: Sequence[Sample], device: torch.device | str = "cpu") -> tuple[Tensor, list[Target]]:
    """Stack samples into a batch on a device.

    Args:
        samples: B images of one size.
        device: device of the batch.

    Returns:
        Images of shape (B, 3, H, W), float32 in [0, 1], and the target of each.
    """
    return stack_samples(samples).to(device)
