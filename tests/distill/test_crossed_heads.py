"""Crossed predictions of real heads: aligned before the activation that the teacher's part of the head begins with.

The expected logits are computed from the student's layers, NumPy statistics and the teacher's last layers alone.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autokd.config import TorchvisionDetector
from autokd.detector_outputs import TAPS
from autokd.detectors import build_detector
from autokd.distill import build_distiller
from autokd.presets import load_preset
from tests.support.numpy_formulas import aligned

NUM_CLASSES = 3


def make_pair(architecture: str):
    """Student and teacher with heads of two blocks, whose maps at the cut lie far apart, and their outputs."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        section = TorchvisionDetector(architecture=architecture, head_convs=2, fpn_channels=16)
        detector = build_detector(section, NUM_CLASSES, (96, 128)).eval()
        with torch.no_grad():
            for parameter in detector.model.head.parameters():
                parameter += 0.05 * torch.randn(parameter.shape)
        found.append(detector)
    images_BCHW = torch.rand(2, 3, 96, 128)
    return found, [detector(images_BCHW, taps=TAPS) for detector in found]


def layers_of(branch: nn.Module) -> list[nn.Module]:
    return [layer for layer in branch.conv.modules() if not list(layer.children())]


def before_last_activation(branch: nn.Module, map_BCHW: Tensor) -> Tensor:
    layers = layers_of(branch)
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    for layer in layers[: last - 1]:
        map_BCHW = layer(map_BCHW)
    return map_BCHW


def expected_logits(student, teacher, outputs) -> Tensor:
    """(B, A, K): the aligned maps through ReLU, the teacher's last block and its class convolution."""
    branches = [detector.model.head.classification_head for detector in (student, teacher)]
    layers = layers_of(branches[1])
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    rows = []
    for level in outputs[1].pyramid:
        s, t = (
            before_last_activation(branch, each.pyramid[level]).detach().double().numpy()
            for branch, each in zip(branches, outputs)
        )
        map_BCHW = torch.from_numpy(np.maximum(aligned(s, t), 0)).float()
        for layer in layers[last:]:
            map_BCHW = layer(map_BCHW)
        logits_BMHW = branches[1].cls_logits(map_BCHW)
        rows.append(logits_BMHW.permute(0, 2, 3, 1).reshape(len(logits_BMHW), -1, NUM_CLASSES))
    return torch.cat(rows, 1)


@pytest.mark.parametrize(("architecture", "family"), [("retinanet", "anchor_based"), ("fcos", "anchor_free")])
def test_maps_are_aligned_before_the_activation(architecture, family):
    (student, teacher), outputs = make_pair(architecture)
    distiller = build_distiller(load_preset("crosskd", family), *outputs, num_classes=NUM_CLASSES)
    entered: list[Tensor] = []
    last = [
        layer for layer in outputs[1].head.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    for layer in last:
        layer.register_forward_pre_hook(lambda _, given: entered.append(given[0].detach()))
    crossed_BAK: list[Tensor] = []
    finish = outputs[1].head.finish
    outputs[1].head.finish = lambda *given: (crossed_BAK.append(finish(*given)[0]), finish(*given))[1]  # type: ignore[method-assign]
    targets = [{"boxes": torch.tensor([[8.0, 8, 60, 60]]), "labels": torch.tensor([0])}] * 2
    total = distiller(*outputs, targets).total
    want = expected_logits(student, teacher, outputs)
    torch.testing.assert_close(crossed_BAK[0].detach(), want.detach(), rtol=1e-3, atol=1e-3)
    first = entered[0]
    assert (first >= 0).all(), "the teacher's last block sees what an activation gives"
    assert total > 0
    total.backward()
    conv = next(layer for layer in layers_of(student.model.head.classification_head) if isinstance(layer, nn.Conv2d))
    assert (conv.weight.grad.flatten(1).abs().sum(1) > 0).all(), "no channel is dead at the cut"
