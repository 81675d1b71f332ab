"""FCOS and RetinaNet: one head over every cell of every level.

Legend: B images, A candidate boxes of an image over all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from autokd.detectors.base import Detections, Detector, Frame


class DenseDetector(Detector):
    """A single-stage detector: class logits and boxes for each anchor, levels concatenated fine to coarse."""

    @property
    def _anchor_generator(self) -> Any:
        return self.model.anchor_generator

    def _predict(self, pyramid: Mapping[str, Tensor]) -> dict[str, Any]:
        return self.model.head(list(pyramid.values()))

    def _class_logits(self, raw: dict[str, Any]) -> Tensor:
        return raw["cls_logits"]

    def _detections(self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame) -> list[Detections]:
        by_level = {name: list(value.split(frame.num_anchors_by_level, dim=1)) for name, value in raw.items()}
        anchors = [list(frame.anchors_A4.split(frame.num_anchors_by_level))] * frame.num_images
        return self.model.postprocess_detections(by_level, anchors, frame.image_sizes)


class FcosDetector(DenseDetector):
    """FCOS, arXiv:1904.01355: distances to the four sides and a centre-ness for each cell."""

    def _boxes(self, raw: dict[str, Any], frame: Frame) -> Tensor:
        return self.model.box_coder.decode(raw["bbox_regression"], frame.anchors_A4)

    def _losses(
        self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        return self.model.compute_loss(targets, raw, frame.anchors, frame.num_anchors_by_level)


class RetinaNetDetector(DenseDetector):
    """RetinaNet, arXiv:1708.02002: focal loss over nine anchors a cell."""

    def _boxes(self, raw: dict[str, Any], frame: Frame) -> Tensor:
        boxes = self.model.box_coder.decode(raw["bbox_regression"], frame.anchors)
        return boxes.view(frame.num_images, -1, 4)

    def _losses(
        self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        return self.model.compute_loss(targets, raw, frame.anchors)
