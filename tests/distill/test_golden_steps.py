"""Transformations beyond the first ones against NumPy written from their formulas, in float64, with loops.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import distill_cases as cases
import numpy as np
import pytest
import torch

RANDOM = np.random.default_rng(27)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
MASK = RANDOM.random((3, 5, 6)) < 0.4
MASK[2] = False
EVERYWHERE = np.ones_like(MASK)
REGIONS = {"everywhere": None, "masked": MASK}


def knowledge_of(student, teacher, mask, layout="map"):
    weights = None if mask is None else torch.from_numpy(mask.astype(np.float64))
    return cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), weights, layout)


def channel_mean(x, power):
    """AT, section 3.1: the mean over channels of |x|^p, here as a map of one channel."""
    return np.stack([np.mean([np.abs(c) ** power for c in sample], axis=0)[None] for sample in x])


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("power", [1, 2])
def test_channel_mean_equals_its_formula(power, region):
    changed = cases.operator("transform", "channel_mean", power=power)(
        knowledge_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_BATCH
    )
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        np.testing.assert_allclose(found.numpy(), channel_mean(given, power), rtol=1e-12)
    assert (changed.weights_SHW is None) == (region == "everywhere")


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("power", [1, 2])
def test_cell_mean_equals_its_formula_and_weighs_the_channels_of_a_sample_alike(power, region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    changed = cases.operator("transform", "cell_mean", power=power)(
        knowledge_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_BATCH
    )
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        assert found.shape == (3, 1, 1, 4)
        for sample, channel in np.ndindex(3, 4):
            inside = np.abs(given[sample, channel][mask[sample]]) ** power
            want = inside.mean() if inside.size else 0.0
            np.testing.assert_allclose(found[sample, 0, 0, channel].item(), want, rtol=1e-12)
    if REGIONS[region] is not None:
        assert changed.weights_SHW[:, 0].tolist() == [[1.0] * 4, [1.0] * 4, [0.0] * 4]


@pytest.mark.parametrize("region", REGIONS)
def test_l2_cells_of_a_scalar_map_is_the_unit_vector_over_the_cells(region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    changed = cases.operator("transform", "l2_cells")(
        knowledge_of(STUDENT[:, :1], TEACHER[:, :1], REGIONS[region], "scalar_map"), cases.NO_BATCH
    )
    assert changed.layout == "scalar_map"
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        for sample in range(2):
            values = given[sample, 0][mask[sample]]
            want = values / np.sqrt((values**2).sum())
            np.testing.assert_allclose(found[sample, 0].numpy()[mask[sample]], want, rtol=1e-12)


GOLDEN = {"channel_mean", "cell_mean"}
