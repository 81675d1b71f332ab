"""From a configuration to a detector, and from a detector to the line that describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autokd.config import DetectorSection
from autokd.detectors.contract import Detector
from autokd.detectors.framework import framework_of
from autokd.errors import DetectorError


def build_detector(
    config: DetectorSection, num_classes: int, image_size_px: tuple[int, int], classes: Sequence[str] | None = None
) -> Detector:
    """Build the detector of a section ``teacher`` or ``student``; weights come from its ``checkpoint``, if any.

    Args:
        config: the section.
        num_classes: object classes, without a background.
        image_size_px: (height, width) of the network's input, which decides levels and anchors; other sizes may be
            fed later.
        classes: the data set's names, by which the classes of a checkpoint of MMDetection are found; None: its labels
            are taken to be the data set's.

    Returns:
        A detector in training mode, on the CPU. Random weights come from torch's global generator: seed it for equal
        detectors.

    Raises:
        DetectorError: for a bad number of classes, or a config or checkpoint that cannot be used.
    """
    if num_classes < 1:
        raise DetectorError(f"num_classes is {num_classes}; a detector needs at least one object class.")
    return framework_of(config).build(config, num_classes, image_size_px, classes)


@dataclass(frozen=True, slots=True)
class Description:
    """A detector in numbers; ``str`` gives one line.

    Args:
        architecture: its name.
        num_parameters: numbers in all its parameters.
        num_classes: object classes, without a background.
        strides: level name -> pixels of the network's input per cell, fine to coarse.
        channels: channels of the pyramid's finest level.
        pad_multiple_px: both sides of the padded input are multiples of this.
    """

    architecture: str
    num_parameters: int
    num_classes: int
    strides: dict[str, int]
    channels: int
    pad_multiple_px: int

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the pyramid's levels, fine to coarse."""
        return tuple(self.strides)

    def __str__(self) -> str:
        levels = ", ".join(f"{level} (stride {stride})" for level, stride in self.strides.items())
        return (
            f"{self.architecture}: {self.num_parameters / 1e6:.2f} M parameters, {self.num_classes} classes, "
            f"{self.channels} channels on {levels}"
        )


def describe(detector: Detector) -> Description:
    """Return parameters, levels, strides and channels of a detector.

    Args:
        detector: of any framework.
    """
    return Description(
        architecture=detector.architecture,
        num_parameters=sum(parameter.numel() for parameter in detector.parameters()),
        num_classes=detector.num_classes,
        strides=detector.strides,
        channels=detector.channels,
        pad_multiple_px=detector.pad_multiple_px,
    )
