"""COCO's average precision by faster-coco-eval, whose matching is compiled and equals pycocotools'.

Boxes are compared in pixels of the original images, so that results at different input sizes can be compared.

Legend: N detections, T IoU thresholds, R recalls, K classes, A ranges of area.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from autokd.data import DetectionDataset
from autokd.detectors import Detector
from autokd.files import write_text_atomically
from autokd.metrics import SIZES, Size
from autokd.training.loader import Loader, identity_plan

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
        per_size: mean AP over classes of small, medium and large objects. Sizes without an instance are left out; empty
            if sizes were not asked for.
        detections: COCO results, {image_id, category_id, bbox: xywh in pixels of the original image, score}.
    """

    map_50_95: float
    map_50: float
    per_class: Mapping[str, float]
    per_size: Mapping[Size, float] = field(default_factory=dict)
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
        from faster_coco_eval import COCO

        return COCO(self._dataset.ground_truth().dataset)

    def measure(
        self,
        detector: Detector,
        *,
        batch_size: int,
        device: torch.device,
        indices: Sequence[int] | None = None,
        by_size: bool = False,
        deadline: float | None = None,
    ) -> AveragePrecision:
        """Run a detector and return its AP; its mode is as before afterwards.

        Args:
            detector: the detector, on ``device``.
            batch_size: images of a forward pass.
            device: device of the images.
            indices: images to measure on; None: all of the split.
            by_size: whether to measure AP of small, medium and large objects too.
            deadline: a value of ``time.monotonic`` in seconds.

        Raises:
            TimeoutError: if the deadline has passed.
        """
        found = detect_split(
            detector, self._dataset, batch_size=batch_size, device=device, indices=indices, deadline=deadline
        )
        return self.score(found, indices, by_size=by_size)

    def score(
        self,
        detections: Sequence[Mapping[str, Any]],
        indices: Sequence[int] | None = None,
        *,
        by_size: bool = False,
    ) -> AveragePrecision:
        """Return the AP of detections.

        Args:
            detections: COCO results, with boxes in pixels of the original images.
            indices: images of the split to measure on; None: all of them.
            by_size: whether to measure AP of small, medium and large objects too, which costs about half as much again.
        """
        from faster_coco_eval import COCOeval_faster

        dataset = self._dataset
        evaluation = COCOeval_faster(self._ground_truth, self._found(detections), "bbox")
        settings = evaluation.params
        wanted = range(dataset.num_images) if indices is None else indices
        settings.imgIds = [dataset.image_ids[index] for index in wanted]
        settings.catIds = list(dataset.category_ids)
        settings.maxDets = [MAX_DETECTIONS]
        num_ranges = 1 + len(SIZES) if by_size else 1  # objects of every size come first
        settings.areaRng, settings.areaRngLbl = settings.areaRng[:num_ranges], settings.areaRngLbl[:num_ranges]
        evaluation.evaluate()
        evaluation.accumulate()
        # (T, R, K, A, numbers of detections); -1 for classes without an instance.
        precision_TRKA = evaluation.eval["precision"][..., 0]
        precision_TRK = precision_TRKA[..., 0]
        per_class = {name: _mean(precision_TRK[:, :, label]) for label, name in enumerate(dataset.classes)}
        per_size = {size: _mean(precision_TRKA[..., place]) for place, size in enumerate(SIZES, 1) if by_size}
        return AveragePrecision(
            _mean(precision_TRK, default=0.0),
            _mean(precision_TRK[0], default=0.0),
            _known(per_class),
            _known(per_size),
            tuple(dict(detection) for detection in detections),
        )

    def _found(self, detections: Sequence[Mapping[str, Any]]) -> Any:
        """Return detections as the evaluator's object.

        ``COCO.loadRes`` gives the same in twice the time: it makes a polygon of every box and copies every image.
        """
        from faster_coco_eval import COCO

        rows = [
            {
                "id": number,  # from 1 on: the evaluator takes 0 for "not matched"
                "image_id": each["image_id"],
                "category_id": each["category_id"],
                "bbox": each["bbox"],
                "score": each["score"],
                "area": each["bbox"][2] * each["bbox"][3],
                "iscrowd": 0,
            }
            for number, each in enumerate(detections, 1)
        ]
        truth = self._ground_truth.dataset
        found = COCO()
        found.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": rows}
        found.createIndex()
        return found


Name = TypeVar("Name", bound=str)


def _known(values: Mapping[Name, float]) -> dict[Name, float]:
    return {name: value for name, value in values.items() if not np.isnan(value)}


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
    loader = Loader(dataset, identity_plan(dataset), batch_size, device, choose=lambda seed: wanted)
    try:
        for batch in loader.in_order():
            for (index, _), found in zip(batch.pairs, detector.detect(batch.images_BCHW)):
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
