"""The losses' gradient reaches the taps that are given out: relative weights are measured there."""

from __future__ import annotations

import pytest
import torch

from autokd.config import TorchvisionDetector
from autokd.detectors import build_detector


@pytest.mark.parametrize("architecture", ["fcos", "retinanet", "faster_rcnn"])
def test_task_losses_depend_on_the_pyramid_that_is_given_out(architecture):
    torch.manual_seed(0)
    config = TorchvisionDetector(architecture=architecture, backbone={"width": 8}, fpn_channels=16)
    detector = build_detector(config, 3, (64, 64)).train()
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}] * 2
    outputs = detector(torch.rand(2, 3, 64, 64), targets)
    gradients = torch.autograd.grad(outputs.task_loss, list(outputs.pyramid.values()), allow_unused=True)
    assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0
