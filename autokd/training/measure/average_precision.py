"""COCO's average precision by pycocotools, without its printing.

Boxes are compared in pixels of the original images, so that results at different input sizes can be compared.

Legend: T IoU thresholds, R recalls, K classes.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autokd.data import DetectionDataset, collate
from autokd.detectors import Detector
from autokd.files import write_text_atomically
from autokd.training.loader import chunks

MAX_DETECTIONS = 100
"""Number of detections of an image that COCO counts: those with the highest scores."""


@dataclass(frozen=True)
class AveragePrecision:
    """AP of detections on one split, from 0 to 1.

    Attributes:
        map_50_95: mean over classes and IoU thresholds .5, .55, ... .95.
        map_50: mean over classes at IoU .5.
        per_class: AP of each class over the same thresholds. Classes without an instance are left out here and in the
            means.
        detections: COCO results, {image_id, category_id, bbox: xywh in pixels of the original image, score}.
    """

    map_50_95: float
    map_50: float
    per_class: Mapping[str, float]
    detections: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def worst_class(self) -> float:
        """The lowest AP of a class; 0 if no class has an instance."""
        return min(self.per_class.values(), default=0.0)

    def save_detections(self, path: Path) -> None:
        """Write the detections as COCO's JSON, whole or not at all."""
        write_text_atomically(path, json.dumps(list(self.detections)))


class PrecisionMeter:
    """Measures detectors on one split; the annotations are read once."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._dataset = dataset

    @cached_property
    def _ground_truth(self) -> Any:
        return self._dataset.ground_truth()

    def measure(
        self,
        detector: Detector,
        *,
        batch_size: int,
        device: torch.device,
        indices: Sequence[int] | None = None,
        deadline: float | None = None,
    ) -> AveragePrecision:
        """Run a detector and return its AP; its mode is as before afterwards.

        Args:
            detector: the detector, on ``device``.
            batch_size: images of a forward pass.
            device: device of the images.
            indices: images to measure on; None: all of the split.
            deadline: a value of ``time.monotonic`` in seconds.

        Raises:
            TimeoutError: if the deadline has passed.
        """
        found = detect_split(
            detector, self._dataset, batch_size=batch_size, device=device, indices=indices, deadline=deadline
        )
        return self.score(found, indices)

    def score(self, detections: Sequence[Mapping[str, Any]], indices: Sequence[int] | None = None) -> AveragePrecision:
        """Return the AP of detections.

        Args:
            detections: COCO results, with boxes in pixels of the original images.
            indices: images of the split to measure on; None: all of them.
        """
        from pycocotools.cocoeval import COCOeval

        dataset = self._dataset
        image_ids = [dataset.image_ids[index] for index in (range(dataset.num_images) if indices is None else indices)]
        # pycocotools' ``loadRes`` fails on an empty list.
        if not detections:
            return AveragePrecision(0.0, 0.0, self._nothing_found(image_ids))
        with contextlib.redirect_stdout(io.StringIO()):
            found = self._ground_truth.loadRes([dict(detection) for detection in detections])
            evaluation = COCOeval(self._ground_truth, found, "bbox")
            evaluation.params.imgIds = image_ids
            evaluation.params.catIds = list(dataset.category_ids)
            evaluation.params.maxDets = [MAX_DETECTIONS]
            # Only the range of all sizes: those of small, medium and large objects would cost as much again each.
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.evaluate()
            evaluation.accumulate()
        # (T, R, K, areas, numbers of detections); -1 for classes without an instance.
        precision_TRK = evaluation.eval["precision"][:, :, :, 0, 0]
        per_class = {name: _mean(precision_TRK[:, :, label]) for label, name in enumerate(dataset.classes)}
        return AveragePrecision(
            _mean(precision_TRK, default=0.0),
            _mean(precision_TRK[0], default=0.0),
            {name: value for name, value in per_class.items() if not np.isnan(value)},
            tuple(dict(detection) for detection in detections),
        )

    def _nothing_found(self, image_ids: Sequence[int]) -> dict[str, float]:
        """Return AP 0 for each class with an instance in these images."""
        images = set(image_ids)
        present = {
            annotation["category_id"]
            for annotation in self._ground_truth.dataset.get("annotations", [])
            if annotation["image_id"] in images and not annotation["iscrowd"]
        }
        pairs = zip(self._dataset.classes, self._dataset.category_ids)
        return {name: 0.0 for name, category in pairs if category in present}


def _mean(precision: np.ndarray, default: float = float("nan")) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else default


@torch.no_grad()
def detect_split(
    detector: Detector,
    dataset: DetectionDataset,
    *,
    batch_size: int,
    device: torch.device,
    indices: Sequence[int] | None = None,
    deadline: float | None = None,
) -> list[dict[str, Any]]:
    """Run a detector and return COCO results, with boxes in pixels of the original images.

    Args:
        detector: the detector, on ``device``; its mode is as before afterwards.
        dataset: the split.
        batch_size: images of a forward pass.
        device: device of the images.
        indices: images to look at; None: all of the split.
        deadline: a value of ``time.monotonic`` in seconds.

    Raises:
        TimeoutError: if the deadline has passed.
    """
    was_training = detector.training
    detector.eval()
    results: list[dict[str, Any]] = []
    wanted = range(dataset.num_images) if indices is None else indices
    try:
        for chunk in chunks(wanted, batch_size):
            samples = [dataset.load(index) for index in chunk]
            images_BCHW, _ = collate(samples, device)
            for index, found in zip(chunk, detector.detect(images_BCHW)):
                results += coco_results(dataset, index, found)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("out of time while measuring AP.")
    finally:
        detector.train(was_training)
    return results


def coco_results(dataset: DetectionDataset, index: int, found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return the COCO results of one image: its ``MAX_DETECTIONS`` best detections.

    Args:
        dataset: the split.
        index: index of the image.
        found: boxes (n, 4) in pixels of the network's input, scores (n,) and labels (n,).
    """
    # Stable, so that equal scores keep the detector's order on every machine.
    order = found["scores"].argsort(descending=True, stable=True)[:MAX_DETECTIONS]
    return dataset.to_coco_results(index, {name: found[name][order] for name in ("boxes", "scores", "labels")})
