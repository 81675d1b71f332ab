"""A teacher that runs beside the student, on whatever pixels the user's pipeline drew.

Legend: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from autokd.config import Detector, MmdetDetector
from autokd.detector_outputs import DetectorOutputs
from autokd.detectors import build_detector
from autokd.detectors.mmdet import MmdetAdapter
from autokd.errors import ConfigError, DetectorError


class LiveTeacher:
    """A teacher with frozen weights, called with a batch for its taps.

    Args:
        section: the teacher's section, as in AutoKD's config file; ``framework`` is mmdet if it is left out.
        num_classes: classes of the student's head.
        image_size_px: (height, width) of the images on which the teacher is tried.
        classes: names of the data set's classes; None: the teacher has them in the same order.
        taps: names of the taps to return.

    Raises:
        ConfigError: if the section is wrong.
        DetectorError: if there is no checkpoint, or the teacher cannot be built.
    """

    def __init__(
        self,
        section: Mapping[str, Any],
        num_classes: int,
        image_size_px: tuple[int, int],
        classes: Sequence[str] | None,
        taps: tuple[str, ...],
    ) -> None:
        config = _section(section)
        if not config.has_weights:
            raise DetectorError("model.teacher: has no checkpoint, and untrained teachers teach nothing. Name one.")
        if classes is not None and len(classes) != num_classes:
            raise DetectorError(
                f"model.classes: names {len(classes)} classes, the student's head has {num_classes}. Name each once."
            )
        self._classes = tuple(classes) if classes is not None else None
        self._taps = taps
        self.detector = build_detector(config, num_classes, image_size_px, classes).eval().requires_grad_(False)
        self._stated = self._classes_of_checkpoint(config)

    def __call__(self, pixels_BCHW: Tensor, sizes_px: Sequence[tuple[int, int]]) -> DetectorOutputs:
        """Return the taps of images.

        Args:
            pixels_BCHW: BGR, 0 to 255.
            sizes_px: (height, width) of each image from the upper left corner; beside it lies padding.
        """
        detector = self.detector
        # The runner moves the model, not its hidden teacher.
        if next(detector.parameters()).device != pixels_BCHW.device:
            detector.to(pixels_BCHW.device)
        with torch.no_grad():
            if isinstance(detector, MmdetAdapter):
                return detector.read_pixels(pixels_BCHW, sizes_px, self._taps)
            return detector(pixels_BCHW.flip(1) / 255, taps=self._taps)

    def __deepcopy__(self, memo: Any) -> LiveTeacher:
        return self  # averaged models copy the student and everything beside it; one teacher serves all copies

    def check_classes(self, dataset_meta: Mapping[str, Any] | None) -> None:
        """Compare the teacher's classes with the data set's, if the names of both are known.

        Raises:
            DetectorError: if they are others, or in another order.
        """
        found = (dataset_meta or {}).get("classes")
        expected = self._classes or self._stated
        if found is not None and expected is not None and tuple(found) != expected:
            raise DetectorError(
                f"model.teacher: its classes were taken to be {', '.join(expected)}, and the training data have "
                f"{', '.join(found)}. Give the names of the data set, in its order, as model.classes."
            )

    def _classes_of_checkpoint(self, config: Any) -> tuple[str, ...] | None:
        if not isinstance(config, MmdetDetector) or config.checkpoint is None or config.new_head:
            return None
        from autokd.detectors.mmdet import read_checkpoint

        return read_checkpoint(config.checkpoint).classes or config.classes


def _section(given: Mapping[str, Any]) -> Any:
    try:
        return TypeAdapter(Detector).validate_python({"framework": "mmdet"} | dict(given))
    except ValidationError as error:
        parts = [f"{'.'.join(map(str, part['loc'][1:])) or 'teacher'}: {part['msg']}" for part in error.errors()]
        raise ConfigError(f"model.teacher: {'; '.join(parts)}. See the keys in docs/config-file.md.") from None
