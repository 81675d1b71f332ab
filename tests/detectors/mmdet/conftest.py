"""Small MMDetection models for the adapters' tests; images and targets are those of the torchvision adapters."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch

from tests.support.mmdet_cases import ARCHITECTURES, NUM_CLASSES, section

# Not ``mmdet``: without the library, this folder answers to that name. ``pip install 'autokd[mmdet]'`` brings both.
collect_ignore_glob = [] if importlib.util.find_spec("mmengine") else ["test_*.py"]


@pytest.fixture(params=ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make() -> Callable:
    """Build a small adapter; its statistics are moved off their initial values, so that errors show."""
    from autokd.detectors.mmdet import build_mmdet_detector

    def build(name: str, num_classes: int = NUM_CLASSES, classes=None, **settings):
        detector = build_mmdet_detector(section(name, **settings), num_classes, (96, 128), classes)
        with torch.no_grad():
            for module in detector.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.2)
                    module.running_var.uniform_(0.5, 2.0)
        return detector

    return build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """MMDetection warns of its own deprecated calls at every step."""
    for item in items:
        if item.path.parent.name == "mmdet":
            for library in ("mmdet", "mmcv", "mmengine", "torch.functional"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:::{library}"))
