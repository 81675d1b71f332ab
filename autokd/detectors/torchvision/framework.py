"""torchvision as a framework: FCOS, RetinaNet and Faster R-CNN by name, without files beside a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from autokd.config import TorchvisionDetector
from autokd.detectors.candidates import PredictionLayout, grid_cells
from autokd.detectors.contract import Detector
from autokd.detectors.framework import Framework
from autokd.detectors.torchvision.adapter import TorchvisionAdapter
from autokd.detectors.torchvision.dense import FcosDetector, RetinaNetDetector
from autokd.detectors.torchvision.layout import choose_layout
from autokd.detectors.torchvision.plain import plain_torchvision_model
from autokd.detectors.torchvision.two_stage import FasterRcnnDetector
from autokd.detectors.weights import load_weights
from autokd.spec.families import DetectorFamily

ADAPTERS: dict[str, type[TorchvisionAdapter]] = {
    "fcos": FcosDetector,
    "retinanet": RetinaNetDetector,
    "faster_rcnn": FasterRcnnDetector,
}
FAMILIES: dict[str, DetectorFamily] = {
    "fcos": "anchor_free",
    "retinanet": "anchor_based",
    "faster_rcnn": "two_stage",
}
DENSE_TAPS = ("fpn", "class_logits", "boxes", "proposals", "head_maps", "head")
"""No head of torchvision predicts distributions of edges."""
TWO_STAGE_TAPS = ("fpn", "proposals")
"""Class logits and boxes of a two-stage head belong to sampled proposals, a set that no other model shares."""


class TorchvisionFramework(Framework[TorchvisionDetector]):
    """Builds ``TorchvisionDetector`` sections. Its models take images of any size."""

    def build(
        self,
        section: TorchvisionDetector,
        num_classes: int,
        image_size_px: tuple[int, int],
        classes: Sequence[str] | None,
    ) -> Detector:
        """See ``Framework.build``; a checkpoint's classes are taken to be the data set's."""
        model = plain_torchvision_model(section, num_classes, image_size_px)
        layout = choose_layout(section.architecture, image_size_px)
        detector = ADAPTERS[section.architecture](model, section.architecture, num_classes, layout)
        if section.checkpoint is not None:
            load_weights(detector, section.checkpoint)
        return detector

    def taps(self, section: TorchvisionDetector) -> tuple[str, ...]:
        """See ``Framework.taps``."""
        return TWO_STAGE_TAPS if section.architecture == "faster_rcnn" else DENSE_TAPS

    def detector_family(self, section: TorchvisionDetector) -> DetectorFamily:
        """See ``Framework.detector_family``."""
        return FAMILIES[section.architecture]

    def layout(
        self, section: TorchvisionDetector, image_size_px: tuple[int, int], seen_size_px: tuple[int, int]
    ) -> PredictionLayout | None:
        """See ``Framework.layout``: levels and anchors follow from the size for which the detector is built."""
        if "class_logits" not in self.taps(section):
            return None
        layout = choose_layout(section.architecture, image_size_px)
        strides = list(layout.strides.values())
        anchors: tuple[tuple[float, float], ...] = ()
        if layout.num_anchors_per_cell > 1:
            sizes = [size / strides[0] for size in layout.anchor_sizes_px[0]]
            anchors = tuple((size / ratio**0.5, size * ratio**0.5) for ratio in layout.aspect_ratios for size in sizes)
        cells = grid_cells(strides, seen_size_px, layout.pad_multiple_px)
        return PredictionLayout(cells, layout.num_anchors_per_cell, anchors)
