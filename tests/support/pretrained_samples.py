"""Files of torchvision's pretrained weights: the one that is there, and made ones in their layouts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

WEIGHTS = Path(os.environ.get("AUTOKD_TEST_WEIGHTS", Path(__file__).parents[3] / "shared" / "data" / "weights"))
MOBILENET_V2 = WEIGHTS / "mobilenet_v2-b0353104.pth"


def require_mobilenet_v2() -> Path:
    """Return torchvision's file of MobileNetV2, trained on ImageNet; the test is skipped where it is absent."""
    if not MOBILENET_V2.is_file():
        pytest.skip(f"torchvision's weights of MobileNetV2 are not at {MOBILENET_V2}; set AUTOKD_TEST_WEIGHTS")
    return MOBILENET_V2


def make_detector_file(builder: str, folder: Path, num_classes: int = 91, name: str | None = None) -> Path:
    """Write random weights in the layout of a builder, under the name of its COCO_V1, with scores that differ."""
    torch.manual_seed(1)
    model = get_model(builder, weights=None, weights_backbone=None, num_classes=num_classes)
    enliven(model)
    path = folder / (name or get_model_weights(builder)["COCO_V1"].url.rsplit("/", 1)[-1])
    torch.save(model.state_dict(), path)
    return path


def enliven(model: Any) -> None:
    """Move statistics and heads of random weights so that classes, boxes and scores differ."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_logits.bias", "cls_score.bias")):
                parameter.normal_(std=0.5)
            if name.endswith(("cls_logits.weight", "bbox_reg.weight", "bbox_pred.weight", "cls_score.weight")):
                parameter.normal_(std=0.02)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2.0)
