"""Boxes of a trained detector on frames, in pixels of the original images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from autokd.detectors import Detections, Detector
from autokd.inference.frames import Frame
from autokd.inference.trained import TrainedDetector


@dataclass(frozen=True, eq=False)
class Prediction:
    """The boxes found in one frame, best first.

    Args:
        frame: the frame.
        size_px: (height, width) of the image, upright.
        boxes_xyxy_px: (n, 4) pixels of the image, clipped to it.
        scores: (n,) in [0, 1].
        labels: (n,) from 0.
    """

    frame: Frame
    size_px: tuple[int, int]
    boxes_xyxy_px: list[list[float]]
    scores: list[float]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.scores)


def predictions(
    trained: TrainedDetector, frames: Iterable[Frame], *, batch_size: int = 8, threshold: float = 0.3
) -> Iterator[Prediction]:
    """Yield the boxes of each frame, in order.

    Args:
        trained: the detector.
        frames: the frames.
        batch_size: frames that the detector sees at once; a video's are decoded as they are needed.
        threshold: least score of a box.

    Raises:
        DataError: if an image is missing or broken.
    """
    device = next(trained.detector.parameters()).device
    iterator = iter(frames)
    while batch := list(islice(iterator, batch_size)):
        two = trained.card.has_two_frames
        inputs = [frame.as_input(trained.image_size_px, has_two_frames=two) for frame in batch]
        for frame, one, found in zip(batch, inputs, _detected(trained.detector, [one.image for one in inputs], device)):
            kept = found["scores"] >= threshold
            boxes = one.to_original(found["boxes"][kept].cpu())
            yield Prediction(
                frame, one.original_size, boxes.tolist(), found["scores"][kept].tolist(), found["labels"][kept].tolist()
            )


def _detected(detector: Detector, images: Sequence[Tensor], device: torch.device) -> list[Detections]:
    """Return the detections of images, in order; those of one size are seen together."""
    found: dict[int, Detections] = {}
    for size in dict.fromkeys(image_CHW.shape for image_CHW in images):
        indices = [index for index, image_CHW in enumerate(images) if image_CHW.shape == size]
        images_BCHW = torch.stack([images[index] for index in indices]).to(device)
        found |= dict(zip(indices, detector.detect(images_BCHW)))
    return [found[index] for index in range(len(images))]
