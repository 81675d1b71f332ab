"""The files from which a torchvision detector starts, and the classes that a two-stage head keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autokd.config import TorchvisionDetector
from autokd.detectors.torchvision.classes import HeadClasses
from autokd.detectors.torchvision.layout import family_of
from autokd.detectors.torchvision.pretrained import entry_of, obtain
from autokd.detectors.weights_file import read_state_dict

_CLASS_BIAS = "roi_heads.box_predictor.cls_score.bias"


@dataclass(frozen=True)
class HeadRows:
    """Rows of a two-stage head that keeps the classes of its pretrained weights.

    Attributes:
        num_rows: all of them, the background included.
        of_classes: row of each class of the data set.
    """

    num_rows: int
    of_classes: tuple[int, ...]


def detector_weights(section: TorchvisionDetector) -> Path | None:
    """Return the file of weights of the whole detector, downloaded if need be; None if the section names none.

    Raises:
        DetectorError: if torchvision's weights are neither here nor can be downloaded.
    """
    if section.weights is None:
        return section.checkpoint
    return obtain(entry_of(section.architecture, section.weights), section.weights_dir)


def backbone_weights(section: TorchvisionDetector) -> Path | None:
    """Return the file of weights of the backbone; as ``detector_weights``."""
    backbone = section.backbone
    if backbone.weights is None:
        return None
    if backbone.weights_file is not None:
        return backbone.weights_file
    return obtain(entry_of(backbone_name(section), backbone.weights), section.weights_dir)


def backbone_name(section: TorchvisionDetector) -> str:
    """Return torchvision's name of the backbone, also of one that a builder makes."""
    if section.is_builders:
        return "mobilenet_v3_large" if "mobilenet" in section.architecture else "resnet50"
    assert section.backbone.name is not None, "the section's validator asks for it"
    return section.backbone.name


def head_rows(section: TorchvisionDetector, file: Path | None, classes: HeadClasses) -> HeadRows | None:
    """Return the rows of a two-stage head whose weights have other classes than the data set; None for any other.

    Args:
        section: the configuration.
        file: its weights.
        classes: what is known of the classes.

    Raises:
        DetectorError: if the file cannot be read, or its classes cannot be matched.
    """
    if file is None or section.new_head or family_of(section.architecture) != "faster_rcnn":
        return None
    bias = next((value for name, value in read_state_dict(file).items() if name.endswith(_CLASS_BIAS)), None)
    if bias is None:  # another model's, which is refused when it is loaded
        return None
    rows = classes.rows(len(bias), str(file))
    is_plain = len(bias) == classes.num_classes + 1 and rows == tuple(range(1, classes.num_classes + 1))
    return None if is_plain else HeadRows(len(bias), rows)


def num_head_rows(section: TorchvisionDetector, num_classes: int, names: Sequence[str] | None) -> int:
    """Return the classes of a section's head; the background is one of them for two stages.

    Args:
        section: the configuration.
        num_classes: classes of the data set.
        names: their names, if they are known.

    Raises:
        DetectorError: as ``head_rows``.
    """
    if family_of(section.architecture) != "faster_rcnn":
        return num_classes
    classes = HeadClasses(num_classes, tuple(names) if names is not None else None, section.classes, True)
    rows = head_rows(section, detector_weights(section), classes)
    return num_classes + 1 if rows is None else rows.num_rows
