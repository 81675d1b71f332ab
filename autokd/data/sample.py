"""One image as the network sees it, and its boxes; and how samples become a batch.

Legend: B images, C = 3 channels (RGB), H x W pixels of the network's input, n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from autokd.data.geometry import BoxMap, Size, clip_boxes
from autokd.data.views import IDENTITY, View


class Target(TypedDict):
    """Ground truth of one image: ``boxes`` (n, 4) float32 xyxy pixels of the input, ``labels`` (n,) int64."""

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """One image in one view. ``pixels_CHW`` is uint8 and may be the cache's own memory: do not write to it."""

    pixels_CHW: Tensor
    target: Target
    index: int
    image_id: int
    original_size: Size
    input_from_original: BoxMap
    view: View = IDENTITY

    @property
    def image(self) -> Tensor:
        """(3, H, W) float32 in [0, 1]."""
        return self.pixels_CHW.float().div_(255)

    def to_original(self, boxes_xyxy_px: Tensor) -> Tensor:
        """Map (n, 4) boxes of the network's input to the original image, clipped to it; float64."""
        return original_boxes(boxes_xyxy_px, self.input_from_original, self.original_size)


def original_boxes(boxes_xyxy_px: Any, input_from_original: BoxMap, original_size: Size) -> Tensor:
    """(n, 4) boxes of the input -> (n, 4) float64 boxes of the original image, clipped to it."""
    boxes = boxes_xyxy_px.detach().cpu().numpy() if isinstance(boxes_xyxy_px, Tensor) else boxes_xyxy_px
    return torch.from_numpy(clip_boxes(input_from_original.inverse().apply(boxes), original_size))


def collate(samples: Sequence[Sample], device: torch.device | str = "cpu") -> tuple[Tensor, list[Target]]:
    """Stack samples into (B, 3, H, W) float32 in [0, 1] and their targets, on ``device``.

    Pixels travel to the device as uint8, a quarter of the bytes.
    """
    pixels_BCHW = torch.stack([sample.pixels_CHW for sample in samples]).to(device)
    targets: list[Target] = [
        {"boxes": sample.target["boxes"].to(device), "labels": sample.target["labels"].to(device)} for sample in samples
    ]
    return pixels_BCHW.float().div_(255), targets
