"""torchvision as a framework: FCOS, RetinaNet and Faster R-CNN by name, and torchvision's own builders of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from autokd.config import TorchvisionDetector
from autokd.detectors.candidates import PredictionLayout, grid_cells
from autokd.detectors.contract import Detector
from autokd.detectors.framework import Framework
from autokd.detectors.inference_graph import InferenceGraph
from autokd.detectors.torchvision.adapter import TorchvisionAdapter
from autokd.detectors.torchvision.backbone import load_body
from autokd.detectors.torchvision.classes import HeadClasses
from autokd.detectors.torchvision.dense import DenseDetector, FcosDetector, RetinaNetDetector
from autokd.detectors.torchvision.inference_graph import DenseGraph, FasterRcnnGraph
from autokd.detectors.torchvision.initial_weights import backbone_weights, detector_weights, head_rows
from autokd.detectors.torchvision.layout import choose_layout, family_of
from autokd.detectors.torchvision.norms import norm_of, num_trainable_stages
from autokd.detectors.torchvision.plain import new_model
from autokd.detectors.torchvision.two_stage import FasterRcnnDetector
from autokd.detectors.weights import load_weights
from autokd.files import content_digest
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
        """See ``Framework.build``."""
        family = family_of(section.architecture)
        names = tuple(classes) if classes is not None else None
        known = HeadClasses(num_classes, names, section.classes, has_background=family == "faster_rcnn")
        file = detector_weights(section)
        rows = head_rows(section, file, known)
        num_rows = num_classes + known.has_background if rows is None else rows.num_rows
        model = new_model(section, num_rows, image_size_px)
        layout = choose_layout(section.architecture, image_size_px)
        detector = ADAPTERS[family](model, section, known, layout)
        if rows is not None and isinstance(detector, FasterRcnnDetector):
            detector.rows = rows.of_classes
        if file is not None:
            load_weights(detector, file, new_head=section.new_head)
        elif (file := backbone_weights(section)) is not None:
            load_body(detector.body, file)
        return detector

    def taps(self, section: TorchvisionDetector) -> tuple[str, ...]:
        """See ``Framework.taps``."""
        return TWO_STAGE_TAPS if family_of(section.architecture) == "faster_rcnn" else DENSE_TAPS

    def structure(self, section: TorchvisionDetector) -> str:
        """See ``Framework.structure``; a file of backbone weights counts by its content."""
        text = section.model_dump_json(exclude={"checkpoint", "train", "weights_dir"})
        file = section.backbone.weights_file
        if file is None:
            return text
        found = json.loads(text)
        found["backbone"]["weights"] = content_digest(file)
        return json.dumps(found)

    def contents(self, section: TorchvisionDetector) -> Mapping[str, str]:
        """See ``Framework.contents``."""
        file = section.backbone.weights_file
        return {} if file is None else {"backbone.weights": content_digest(file)}

    def training_notes(self, section: TorchvisionDetector) -> tuple[str, ...]:
        """See ``Framework.training_notes``: where a pretrained student starts."""
        weights = section.weights or section.checkpoint or section.backbone.weights
        if weights is None:
            return ()
        whose = "backbone" if section.backbone.weights else "detector"
        return (
            f"the student's {whose} starts from {weights}; {num_trainable_stages(section)} of the backbone's 5 parts "
            f"are trained, its norms are {norm_of(section)}",
        )

    def detector_family(self, section: TorchvisionDetector) -> DetectorFamily:
        """See ``Framework.detector_family``."""
        return FAMILIES[family_of(section.architecture)]

    def inference_graph(
        self, section: TorchvisionDetector, detector: Detector, image_size_px: tuple[int, int]
    ) -> InferenceGraph:
        """See ``Framework.inference_graph``."""
        if isinstance(detector, FasterRcnnDetector):
            return FasterRcnnGraph(detector, image_size_px)
        assert isinstance(detector, DenseDetector)
        return DenseGraph(detector, image_size_px)

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
