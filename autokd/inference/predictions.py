"""Boxes of a trained detector on frames, in pixels of the original images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch

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
        inputs = [frame.as_input(trained.image_size_px) for frame in batch]
        images_BCHW = torch.stack([one.image for one in inputs]).to(device)
        for frame, one, found in zip(batch, inputs, trained.detector.detect(images_BCHW)):
            kept = found["scores"] >= threshold
            boxes = one.to_original(found["boxes"][kept].cpu())
            yield Prediction(
                frame, one.original_size, boxes.tolist(), found["scores"][kept].tolist(), found["labels"][kept].tolist()
            )
