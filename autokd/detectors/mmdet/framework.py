"""MMDetection as a framework. Importing this module does not import mmdet: the first config that is read does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autokd.config import MmdetDetector
from autokd.detectors.candidates import PredictionLayout
from autokd.detectors.contract import Detector
from autokd.detectors.framework import ConfigRecipe, Framework
from autokd.detectors.inference_graph import InferenceGraph
from autokd.detectors.mmdet.adapter import MmdetAdapter
from autokd.detectors.mmdet.build import build_mmdet_detector
from autokd.detectors.mmdet.capabilities import mmdet_detector_family, mmdet_prediction_layout, mmdet_taps
from autokd.detectors.mmdet.config_file import config_text
from autokd.detectors.mmdet.export import export_student
from autokd.detectors.mmdet.inference_graph import inference_graph_of
from autokd.detectors.mmdet.recipe import recipe_of_config
from autokd.detectors.mmdet.train_pipeline import MmdetTrainPipeline, read_train_pipeline
from autokd.spec.families import DetectorFamily


class MmdetFramework(Framework[MmdetDetector]):
    """Builds ``MmdetDetector`` sections from the user's own configs; whatever reads such a config runs it."""

    def build(
        self, section: MmdetDetector, num_classes: int, image_size_px: tuple[int, int], classes: Sequence[str] | None
    ) -> Detector:
        """See ``Framework.build``; the first detector of its kind is tried on an image of ``image_size_px``."""
        return build_mmdet_detector(section, num_classes, image_size_px, classes)

    def taps(self, section: MmdetDetector) -> tuple[str, ...]:
        """See ``Framework.taps``."""
        return mmdet_taps(section)

    def detector_family(self, section: MmdetDetector) -> DetectorFamily | None:
        """See ``Framework.detector_family``: a config says it by the classes of its model and of its head."""
        return mmdet_detector_family(section)

    def layout(
        self, section: MmdetDetector, image_size_px: tuple[int, int], seen_size_px: tuple[int, int]
    ) -> PredictionLayout | None:
        """See ``Framework.layout``: a config says its levels and anchors, whatever size it is built for."""
        return mmdet_prediction_layout(section, seen_size_px)

    def structure(self, section: MmdetDetector) -> str:
        """See ``Framework.structure``: the model as the config describes it once it has run."""
        return config_text(section)

    def contents(self, section: MmdetDetector) -> Mapping[str, str]:
        """See ``Framework.contents``: the config with its bases and options."""
        return {"config": config_text(section)}

    def check_image_size(
        self, section: MmdetDetector, num_classes: int, image_size_px: tuple[int, int], classes: Sequence[str] | None
    ) -> None:
        """See ``Framework.check_image_size``: building tries losses, taps and detections of one image."""
        build_mmdet_detector(section, num_classes, image_size_px, classes)

    def recipe(self, section: MmdetDetector, given: Mapping[str, Any]) -> ConfigRecipe:
        """See ``Framework.recipe``."""
        return recipe_of_config(section, given)

    def train_pipeline(self, section: MmdetDetector, num_epochs: int) -> MmdetTrainPipeline:
        """See ``Framework.train_pipeline``."""
        return read_train_pipeline(section, num_epochs)

    def training_notes(self, section: MmdetDetector) -> tuple[str, ...]:
        """See ``Framework.training_notes``."""
        return (
            f"trainings take the model of {section.config}; optimizer, schedule and augmentation are those of 'proxy' "
            "and 'full'. 'full: {from_student_config: true}' takes optimizer and schedule of the config too, 'full: "
            "{pipeline: student_config}' its train pipeline, and DistilledDetector all of it: docs/mmdetection.md",
        )

    def inference_graph(
        self, section: MmdetDetector, detector: Detector, image_size_px: tuple[int, int]
    ) -> InferenceGraph:
        """See ``Framework.inference_graph``."""
        assert isinstance(detector, MmdetAdapter)
        return inference_graph_of(detector)

    def export(
        self,
        section: MmdetDetector,
        load_detector: Callable[[], Detector],
        classes: Sequence[str],
        image_size_px: tuple[int, int],
        folder: Path,
        *,
        pad_rgb: tuple[int, int, int],
        original_sizes: Iterable[tuple[int, int]],
        has_two_frames: bool = False,
    ) -> tuple[Path, ...]:
        """Write ``student.py`` and ``student.pth`` for ``mmdet.apis.init_detector``."""
        detector = load_detector()
        assert isinstance(detector, MmdetAdapter)
        return export_student(
            detector,
            section,
            classes,
            image_size_px,
            folder,
            pad_rgb=pad_rgb,
            original_sizes=original_sizes,
            has_two_frames=has_two_frames,
        )
