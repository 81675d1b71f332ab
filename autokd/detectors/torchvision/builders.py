"""Detectors as torchvision's own builders make them, for weights that were trained in these."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import get_model
from torchvision.models.detection._utils import overwrite_eps

from autokd.config import TorchvisionDetector
from autokd.detectors.torchvision.layout import family_of
from autokd.detectors.torchvision.norms import norm_of, replace_batch_norms
from autokd.detectors.torchvision.pretrained import entry_of, entry_of_file

SCORE_THRESHOLD = 0.05
"""Detections below it are dropped: that of the papers' COCO evaluations (torchvision's FCOS has 0.2)."""
_WITHOUT_EPSILON = ("retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn")
"""Builders that set the epsilon of frozen norms to 0 for their COCO_V1, which was trained so."""


def inference_settings(architecture: str) -> dict[str, Any]:
    """Return the arguments of a builder that COCO's evaluation needs.

    Args:
        architecture: name of the builder.
    """
    family = family_of(architecture)
    return {
        "fcos": {"score_thresh": SCORE_THRESHOLD},
        "retinanet": {"score_thresh": SCORE_THRESHOLD, "detections_per_img": 100},
        "faster_rcnn": {},
    }[family]


def build(section: TorchvisionDetector, num_rows: int, transform: dict[str, Any]) -> nn.Module:
    """Return the model of a builder, randomly initialized.

    Args:
        section: the configuration.
        num_rows: classes of the head; with the background for two stages, without one for dense heads.
        transform: sizes of images, and what else torchvision's transform takes.
    """
    name = section.architecture
    model: Any = get_model(
        name, weights=None, weights_backbone=None, num_classes=num_rows, **inference_settings(name), **transform
    )
    replace_batch_norms(model.backbone.body, norm_of(section))
    if has_no_epsilon(section):
        overwrite_eps(model, 0.0)
    plain: nn.Module = model
    return plain


def has_no_epsilon(section: TorchvisionDetector) -> bool:
    """Return whether the weights of a section are of frozen norms without epsilon.

    Args:
        section: the configuration.
    """
    if section.architecture not in _WITHOUT_EPSILON or norm_of(section) != "frozen":
        return False
    if section.weights is not None:
        entry = entry_of(section.architecture, section.weights)
    elif section.checkpoint is not None:
        entry = entry_of_file(section.architecture, section.checkpoint)
    else:
        return False
    return entry is not None and entry.name == "COCO_V1"
