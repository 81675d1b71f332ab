"""Hugging Face transformers as a framework. Importing this module imports no transformers: the first model does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from autokd.config import TransformersDetector
from autokd.detectors.candidates import PredictionLayout
from autokd.detectors.contract import Detector
from autokd.detectors.framework import Framework
from autokd.detectors.inference_graph import InferenceGraph
from autokd.detectors.transformers.adapter import TransformersAdapter
from autokd.detectors.transformers.build import build_transformers_detector
from autokd.detectors.transformers.export import export_student
from autokd.detectors.transformers.inference_graph import TransformersGraph
from autokd.detectors.transformers.model_config import config_of, structure_text
from autokd.detectors.transformers.outputs import taps_of_type
from autokd.files import content_digest


class TransformersFramework(Framework[TransformersDetector]):
    """Builds ``TransformersDetector`` sections; no code of a model's folder or of the hub is run."""

    def build(
        self,
        section: TransformersDetector,
        num_classes: int,
        image_size_px: tuple[int, int],
        classes: Sequence[str] | None,
    ) -> Detector:
        """See ``Framework.build``."""
        return build_transformers_detector(section, num_classes, image_size_px, classes)

    def taps(self, section: TransformersDetector) -> tuple[str, ...]:
        """See ``Framework.taps``."""
        return taps_of_type(config_of(section).model_type)

    def layout(
        self, section: TransformersDetector, image_size_px: tuple[int, int], seen_size_px: tuple[int, int]
    ) -> PredictionLayout:
        """See ``Framework.layout``: queries, which have no place of their own."""
        return PredictionLayout(())

    def structure(self, section: TransformersDetector) -> str:
        """See ``Framework.structure``: the model's configuration, and the weights from which it starts."""
        found = {"model": structure_text(section), "new_head": section.new_head, "weights": self._weights(section)}
        return json.dumps(found, sort_keys=True)

    def contents(self, section: TransformersDetector) -> Mapping[str, str]:
        """See ``Framework.contents``: configuration and weights of the model that ``name`` names."""
        return {} if section.name is None else {"name": self.structure(section)}

    def check_image_size(
        self,
        section: TransformersDetector,
        num_classes: int,
        image_size_px: tuple[int, int],
        classes: Sequence[str] | None,
    ) -> None:
        """See ``Framework.check_image_size``: smaller images may have too few cells for the queries."""
        build_transformers_detector(section, num_classes, None, classes).check_cells(image_size_px)

    def training_notes(self, section: TransformersDetector) -> tuple[str, ...]:
        """See ``Framework.training_notes``."""
        start = "random weights" if section.name is None else f"the weights of {section.name}"
        return (
            f"the student starts from {start}; images are scaled with their aspect ratio kept and padded right and "
            "below, whatever size its image processor names: docs/transformers.md",
        )

    def export(
        self,
        section: TransformersDetector,
        load_detector: Callable[[], Detector],
        classes: Sequence[str],
        image_size_px: tuple[int, int],
        folder: Path,
        *,
        pad_rgb: tuple[int, int, int],
        original_sizes: Iterable[tuple[int, int]],
        has_two_frames: bool = False,
    ) -> tuple[Path, ...]:
        """Write the folder ``student``, which ``from_pretrained`` loads."""
        detector = load_detector()
        assert isinstance(detector, TransformersAdapter)
        return export_student(detector, classes, image_size_px, folder, pad_rgb=pad_rgb, has_two_frames=has_two_frames)

    def inference_graph(
        self, section: TransformersDetector, detector: Detector, image_size_px: tuple[int, int]
    ) -> InferenceGraph:
        """See ``Framework.inference_graph``."""
        assert isinstance(detector, TransformersAdapter)
        return TransformersGraph(detector)

    @staticmethod
    def _weights(section: TransformersDetector) -> str:
        """Return what identifies the weights behind a name: the content of a folder, or a revision on the hub."""
        if section.folder is None:
            return f"{section.name}@{section.revision}" if section.name else ""
        return " ".join(content_digest(path) for path in sorted(section.folder.glob("*.safetensors")))
