"""Small detectors, images and targets for the adapters' tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autokd.config import Backbone, TorchvisionDetector
from autokd.detectors import Detector, build_detector

ARCHITECTURES = ("fcos", "retinanet", "faster_rcnn")
NUM_CLASSES = 5
SIZE_PX = (96, 128)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_detector() -> Callable[..., Detector]:
    """Build a small detector; its statistics are moved off their initial values, so that errors show."""

    def make(architecture: str = "fcos", image_size_px: tuple[int, int] = SIZE_PX, **settings: Any) -> Detector:
        settings = {"backbone": Backbone(blocks=(1, 1, 1, 1), width=8), "fpn_channels": 32} | settings
        config = TorchvisionDetector(architecture=architecture, **settings)
        detector = build_detector(config, NUM_CLASSES, image_size_px)
        with torch.no_grad():
            for module in detector.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.2)
                    module.running_var.uniform_(0.5, 2.0)
                    module.weight.uniform_(0.5, 1.5)
        return detector

    return make


@pytest.fixture
def images_BCHW() -> Tensor:
    return torch.rand(3, 3, *SIZE_PX, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> list[dict[str, Tensor]]:
    """Two images with boxes, one without."""
    return [
        {
            "boxes": torch.tensor([[10.0, 12.0, 30.0, 40.0], [50.0, 20.0, 110.0, 80.0]]),
            "labels": torch.tensor([0, 4]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {"boxes": torch.tensor([[5.0, 50.0, 17.0, 61.0]]), "labels": torch.tensor([2])},
    ]
