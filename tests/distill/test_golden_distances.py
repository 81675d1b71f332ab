"""Distances beyond the first ones against NumPy written from their formulas, in float64, with loops.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support import distill_cases as cases

RANDOM = np.random.default_rng(17)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
WEIGHTS = RANDOM.random((3, 5, 6)) * (RANDOM.random((3, 5, 6)) < 0.5)
WEIGHTS[2] = 0
REGIONS = {"everywhere": None, "weighted": WEIGHTS}


def features_of(student, teacher, weights, layout="map"):
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


def smooth_l1_sum(student, teacher, weights, beta=0.5):
    """MLKD's release: smooth_l1_loss(reduction='sum') / N."""

    def huber(x):
        return x**2 / (2 * beta) if abs(x) < beta else abs(x) - beta / 2

    total, count = sum_of(huber, student, teacher, weights)
    return total / count


def pearson_channels(student, teacher, weights):
    """DIST, eq. 8: one minus the correlation of a cell's vector, averaged over the cells."""
    total = 0.0
    for sample, row, column in np.ndindex(weights.shape):
        r = np.corrcoef(student[sample, :, row, column], teacher[sample, :, row, column])[0, 1]
        total += weights[sample, row, column] * (1 - r)
    return total / weights.sum()


def cross_correlation(student, teacher, weights):
    """One minus the (weighted) correlation over cells, averaged over channels and samples that have cells."""
    found = []
    for sample, channel in np.ndindex(student.shape[:2]):
        if weights[sample].any():
            covariance = np.cov(
                student[sample, channel].ravel(), teacher[sample, channel].ravel(), aweights=weights[sample].ravel()
            )
            found.append(1 - covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return np.mean(found)


MAP_FORMULAS = {
    "l1_sum": (l1_sum, {}),
    "l2_sum": (l2_sum, {}),
    "l2_norm": (l2_norm, {}),
    "smooth_l1_sum": (smooth_l1_sum, {"beta": 0.5}),
    "pearson_channels": (pearson_channels, {}),
    "cross_correlation": (cross_correlation, {}),
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", MAP_FORMULAS)
def test_distance_between_maps_equals_its_formula(name, region):
    formula, params = MAP_FORMULAS[name]
    weights = REGIONS[region]
    found = cases.operator("distance", name, **params)(features_of(STUDENT, TEACHER, weights), cases.NO_INPUTS)
    want = formula(STUDENT, TEACHER, np.ones((3, 5, 6)) if weights is None else weights)
    np.testing.assert_allclose(found.item(), want, rtol=1e-9)


def test_patches_of_a_sample_count_together_in_a_sum():
    whole = features_of(STUDENT, TEACHER, None)
    patches = cases.operator("transform", "local_patches", grid=2)(whole, cases.NO_INPUTS)
    for name in ("l1_sum", "l2_sum", "l2_norm"):
        distance = cases.operator("distance", name)
        np.testing.assert_allclose(
            distance(patches, cases.NO_INPUTS).item(), MAP_FORMULAS[name][0](STUDENT, TEACHER, np.ones((3, 5, 6)))
        )


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def kl(p, q):
    return (p * np.log(p / q)).sum()


DIVERGENCES = {
    "kl_reverse": lambda s, t: kl(s, t),
    "js": lambda s, t: (kl(s, (s + t) / 2) + kl(t, (s + t) / 2)) / 2,
    "cauchy_schwarz": lambda s, t: -np.log((s @ t) / (np.linalg.norm(s) * np.linalg.norm(t))),
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_over_cells_is_averaged_over_channels_and_samples_that_have_cells(name, region):
    weights = None if REGIONS[region] is None else (REGIONS[region] > 0).astype(float)
    inside = np.ones((3, 5, 6), bool) if weights is None else weights > 0
    found = []
    for sample, channel in np.ndindex(3, 4):
        if inside[sample].any():
            sides = (softmax(x[sample, channel][inside[sample]] / 0.5) for x in (STUDENT, TEACHER))
            found.append(DIVERGENCES[name](*sides))
    softened = cases.operator("transform", "softmax_cells", temperature=0.5)(
        features_of(STUDENT, TEACHER, weights), cases.NO_INPUTS
    )
    value = cases.operator("distance", name)(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(value.item(), 0.25 * np.mean(found), rtol=1e-9)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_over_channels_is_averaged_over_the_cells_by_weight(name, region):
    weights = np.ones((3, 5, 6)) if REGIONS[region] is None else REGIONS[region]
    total = 0.0
    for sample, row, column in np.ndindex(3, 5, 6):
        sides = (softmax(x[sample, :, row, column] / 3) for x in (STUDENT, TEACHER))
        total += weights[sample, row, column] * DIVERGENCES[name](*sides)
    softened = cases.operator("transform", "softmax_channels", temperature=3)(
        features_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_INPUTS
    )
    value = cases.operator("distance", name)(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(value.item(), 9 * total / weights.sum(), rtol=1e-9)


def test_jensen_shannon_of_distributions_that_share_nothing_is_log_2():
    far = torch.tensor([[[[1e4, 0.0]]]]), torch.tensor([[[[0.0, 1e4]]]])
    softened = cases.operator("transform", "softmax_cells")(cases.piece(*far), cases.NO_INPUTS)
    value = cases.operator("distance", "js")(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(value.item(), np.log(2), rtol=1e-6)


@pytest.mark.parametrize("name", ["pearson", "pearson_channels"])
def test_correlation_of_softmaxed_logits_compares_probabilities(name):
    """DIST, eqs. 8 and 9: correlation within a candidate over classes, and of a class over all candidates."""
    logits = [x.reshape(3, 4, 1, 30) for x in (STUDENT, TEACHER)]
    softened = cases.operator("transform", "softmax_channels")(features_of(*logits, None, "logits"), cases.NO_INPUTS)
    assert softened.labels_SHW is not None
    rows_s, rows_t = (np.array([softmax(v) for v in x.transpose(0, 2, 3, 1).reshape(-1, 4)]) for x in logits)
    pairs = zip(rows_s, rows_t) if name == "pearson_channels" else zip(rows_s.T, rows_t.T)
    want = np.mean([1 - np.corrcoef(s, t)[0, 1] for s, t in pairs])
    value = cases.operator("distance", name)(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(value.item(), want, rtol=1e-9)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("per_member", [0, 1])
@pytest.mark.parametrize("divisor", [0, 1, 2])
@pytest.mark.parametrize("members", ["cells", "channels"])
def test_kl_divides_by_members_and_by_weights_count_or_nothing(members, divisor, per_member, region):
    """tau^2 sum_i w_i KL_i (/ number of members) / (sum_i w_i, number of i with w_i > 0, or 1)."""
    weights = np.ones((3, 5, 6)) if REGIONS[region] is None else REGIONS[region]
    found = []  # (weight, KL, members) of each distribution
    if members == "channels":
        for sample, row, column in zip(*np.nonzero(weights)):
            p, q = (softmax(x[sample, :, row, column] / 3) for x in (TEACHER, STUDENT))
            found.append((weights[sample, row, column], kl(p, q), 4))
    else:
        for sample, channel in np.ndindex(3, 4):
            inside = weights[sample] > 0
            if inside.any():
                p, q = (softmax(x[sample, channel][inside] / 3) for x in (TEACHER, STUDENT))
                found.append((1.0, kl(p, q), inside.sum()))
    total = sum(w * gap / (count if per_member else 1) for w, gap, count in found)
    want = 9 * total / (sum(w for w, _, _ in found), len(found), 1)[divisor]
    softened = cases.operator("transform", f"softmax_{members}", temperature=3)(
        features_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_INPUTS
    )
    distance = cases.operator("distance", "kl", per_member=per_member, divisor=divisor)
    np.testing.assert_allclose(distance(softened, cases.NO_INPUTS).item(), want, rtol=1e-9)


GOLDEN = {*MAP_FORMULAS, *DIVERGENCES}
