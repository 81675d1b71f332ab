"""Distances beyond the first ones against NumPy written from their formulas, in float64, with loops.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import distill_cases as cases
import numpy as np
import pytest
import torch

RANDOM = np.random.default_rng(17)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
WEIGHTS = RANDOM.random((3, 5, 6)) * (RANDOM.random((3, 5, 6)) < 0.5)
WEIGHTS[2] = 0
REGIONS = {"everywhere": None, "weighted": WEIGHTS}


def knowledge_of(student, teacher, weights, layout="map"):
    given = None if weights is None else torch.from_numpy(weights)
    return cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), given, layout)


def sum_of(f, student, teacher, weights):
    """The sum over everything, and how many samples count."""
    total = 0.0
    for sample, channel, row, column in np.ndindex(student.shape):
        place = (sample, channel, row, column)
        total += weights[sample, row, column] * f(student[place] - teacher[place])
    return total, sum(weights[sample].any() for sample in range(len(student)))


def l1_sum(student, teacher, weights):
    """FGD's attention loss (eq. 8, L1Loss(reduction='sum') / B)."""
    total, count = sum_of(abs, student, teacher, weights)
    return total / count


def l2_sum(student, teacher, weights):
    """FGD's and MGD's feature loss (MSELoss(reduction='sum') / B)."""
    total, count = sum_of(np.square, student, teacher, weights)
    return total / count


def l2_norm(student, teacher, weights):
    """FBKD: the 2-norm of the weighted difference of the whole batch."""
    return np.sqrt(sum_of(np.square, student, teacher, weights)[0])


MAP_FORMULAS = {"l1_sum": (l1_sum, {}), "l2_sum": (l2_sum, {}), "l2_norm": (l2_norm, {})}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", MAP_FORMULAS)
def test_distance_between_maps_equals_its_formula(name, region):
    formula, params = MAP_FORMULAS[name]
    weights = REGIONS[region]
    found = cases.operator("distance", name, **params)(knowledge_of(STUDENT, TEACHER, weights), cases.NO_BATCH)
    want = formula(STUDENT, TEACHER, np.ones((3, 5, 6)) if weights is None else weights)
    np.testing.assert_allclose(found.item(), want, rtol=1e-9)


GOLDEN = {*MAP_FORMULAS}
