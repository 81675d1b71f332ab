"""From a configuration to a detector, and from a detector to the line that describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autokd.config import Detector as DetectorConfig
from autokd.detectors.contract import Detector
from autokd.detectors.torchvision.adapter import TorchvisionAdapter
from autokd.detectors.torchvision.checkpoint import load_weights
from autokd.detectors.torchvision.dense import FcosDetector, RetinaNetDetector
from autokd.detectors.torchvision.layout import choose_layout
from autokd.detectors.torchvision.plain import plain_torchvision_model
from autokd.detectors.torchvision.two_stage import FasterRcnnDetector
from autokd.errors import DetectorError

ADAPTERS: dict[str, type[TorchvisionAdapter]] = {
    "fcos": FcosDetector,
    "retinanet": RetinaNetDetector,
    "faster_rcnn": FasterRcnnDetector,
}


def build_detector(
    config: DetectorConfig, num_classes: int, image_size_px: tuple[int, int], classes: Sequence[str] | None = None
) -> Detector:
    """Build the detector of a section ``teacher`` or ``student``; weights come from its ``checkpoint``, if any.

    num_classes: object classes, without a background. image_size_px: (height, width) of the network's input,
    which decides levels and anchors; other sizes may be fed later. classes: their names, by which a checkpoint of
    MMDetection is matched to the data set; None: its labels are taken to be the data set's. Random weights come from
    torch's global generator: seed it for equal detectors. DetectorError for a bad number of classes or checkpoint.
    """
    if num_classes < 1:
        raise DetectorError(f"num_classes is {num_classes}; a detector needs at least one object class.")
    if config.framework == "mmdet":
        from autokd.detectors.mmdet import build_mmdet_detector

        return build_mmdet_detector(config, num_classes, image_size_px, classes)
    model = plain_torchvision_model(config, num_classes, image_size_px)
    layout = choose_layout(config.architecture, image_size_px)
    detector = ADAPTERS[config.architecture](model, config.architecture, num_classes, layout)
    if config.checkpoint is not None:
        load_weights(detector, config.checkpoint)
    return detector


@dataclass(frozen=True, slots=True)
class Description:
    """A detector in numbers; ``str`` gives one line."""

    architecture: str
    num_parameters: int
    num_classes: int
    strides: dict[str, int]
    channels: int
    pad_multiple_px: int

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(self.strides)

    def __str__(self) -> str:
        levels = ", ".join(f"{level} (stride {stride})" for level, stride in self.strides.items())
        return (
            f"{self.architecture}: {self.num_parameters / 1e6:.2f} M parameters, {self.num_classes} classes, "
            f"{self.channels} channels on {levels}"
        )


def describe(detector: Detector) -> Description:
    """Parameters, levels, strides and channels of a detector."""
    return Description(
        architecture=detector.architecture,
        num_parameters=sum(parameter.numel() for parameter in detector.parameters()),
        num_classes=detector.num_classes,
        strides=detector.strides,
        channels=detector.channels,
        pad_multiple_px=detector.pad_multiple_px,
    )
