"""Every detector that comes with AutoKD passes the public suite, whatever its framework."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from torch import nn

from autokd.config import Backbone, TorchvisionDetector
from autokd.testing.frameworks import DetectorCase, DetectorConformance
from tests.support import mmdet_cases


def _torchvision_head(detector: Any) -> nn.Module:
    return detector.model.rpn.head if hasattr(detector.model, "rpn") else detector.model.head


def _mmdet_head(detector: Any) -> nn.Module:
    return detector.model.rpn_head if hasattr(detector.model, "rpn_head") else detector.model.bbox_head


TORCHVISION = [
    DetectorCase(
        architecture,
        TorchvisionDetector(architecture=architecture, backbone=Backbone(width=8), fpn_channels=32),
        head_of=_torchvision_head,
    )
    for architecture in ("fcos", "retinanet", "faster_rcnn")
]
MMDET = [
    DetectorCase(
        name,
        mmdet_cases.section(name),
        head_of=_mmdet_head,
        # MMDetection leaves their boxes reaching beyond the image; AP must be that of its own inference.
        clips_boxes=name not in ("tood", "yolox"),
        # Beside denoising queries, which are made of targets, attention is computed in another order.
        box_tolerance=(1e-3, 1e-2) if name == "dino" else None,
    )
    for name in mmdet_cases.ARCHITECTURES
]


class TestTorchvision(DetectorConformance):
    @pytest.fixture(params=TORCHVISION, ids=str)
    def case(self, request: pytest.FixtureRequest) -> DetectorCase:
        return request.param


# MMDetection warns of its own deprecated calls at every step.
@pytest.mark.filterwarnings("ignore:::mmdet", "ignore:::mmcv", "ignore:::mmengine", "ignore:::torch.functional")
@pytest.mark.skipif(importlib.util.find_spec("mmengine") is None, reason="needs MMDetection")
class TestMmdet(DetectorConformance):
    @pytest.fixture(params=MMDET, ids=str)
    def case(self, request: pytest.FixtureRequest) -> DetectorCase:
        return request.param
