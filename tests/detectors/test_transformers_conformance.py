"""The public suite over small models of transformers with random weights."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest
import torch

from autokd.detectors import Detector
from autokd.testing.frameworks import SIZE_PX, DetectorCase, DetectorConformance
from tests.support.transformers_cases import CONFIGS, STRIDES, section

pytest.importorskip("transformers")


FAST = ("rt_detr_v2",)
"""Models of the fast tests; the others are slow in sum alone."""


@cache
def _built(name: str, seed: int) -> Detector:
    return DetectorCase(name, section(name)).build()


class CopiedCase(DetectorCase):
    """A case that is built once a seed: building takes longer than most tests."""

    def build(self, size_px: tuple[int, int] = SIZE_PX) -> Detector:
        return deepcopy(_built(self.name, torch.initial_seed()))


def _case(name: str) -> DetectorCase:
    parts = {"yolos": lambda detector: detector.model.vit.layernorm}
    return CopiedCase(name, section(name), head_of=parts.get(name, lambda detector: detector.model.model.decoder))


class TestTransformersModels(DetectorConformance):
    @pytest.fixture(params=[_case(name) for name in FAST], ids=str)
    def case(self, request) -> DetectorCase:
        return request.param


@pytest.mark.slow
class TestFurtherTransformersModels(DetectorConformance):
    @pytest.fixture(params=[_case(name) for name in CONFIGS if name not in FAST], ids=str)
    def case(self, request) -> DetectorCase:
        return request.param


@pytest.mark.parametrize("name", FAST)
def test_equal_seeds_build_equal_weights(name):
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(DetectorCase(name, section(name)).build().plain_state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_pyramid_has_the_strides_of_the_encoder(name):
    torch.manual_seed(0)
    assert tuple(_built(name, 0).strides.values()) == STRIDES[name]
