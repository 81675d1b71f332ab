"""Maps are laid out channels-last wherever torch is sound for that."""

from __future__ import annotations

import pytest
import torch

from autokd.config import Backbone, TorchvisionDetector
from autokd.detectors import build_detector
from autokd.detectors.memory_format import memory_format_of


def _built(width, fpn_channels=32):
    return build_detector(TorchvisionDetector(backbone=Backbone(width=width), fpn_channels=fpn_channels), 3, (64, 64))


@pytest.mark.parametrize(
    ("width", "fpn_channels", "expected"),
    [(16, 32, torch.channels_last), (8, 32, torch.contiguous_format), (16, 8, torch.contiguous_format)],
)
def test_one_narrow_convolution_is_enough_for_contiguous_maps_on_a_cpu(width, fpn_channels, expected):
    detector = _built(width, fpn_channels)
    assert detector.memory_format == expected
    level_BCHW = detector.eval()(torch.rand(2, 3, 64, 64), taps=("fpn",)).pyramid["p3"]
    assert level_BCHW.is_contiguous(memory_format=expected)
    assert memory_format_of(detector.model, torch.device("cuda")) == torch.channels_last


def test_a_detector_that_is_moved_chooses_again():
    detector = _built(8)
    detector.memory_format = torch.channels_last  # as on a GPU, from which it comes
    detector.model.to(memory_format=torch.channels_last)
    assert detector.to("cpu").memory_format == torch.contiguous_format
    assert all(weight.is_contiguous() for weight in detector.parameters())
