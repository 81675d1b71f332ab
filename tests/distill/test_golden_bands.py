"""Haar bands, standardization over classes and masks by attention against NumPy written from their formulas.

Legend: S samples, C channels, H x W cells, A candidates, K classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autokd.spec import Step
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import conv3

GOLDEN = {"haar_band", "standardize_classes"}

RANDOM = np.random.default_rng(31)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
MASK = RANDOM.random((3, 5, 6)) < 0.5
MASK[2] = False
EVERYWHERE = np.ones_like(MASK)
REGIONS = {"everywhere": None, "masked": MASK}
LOW, HIGH = 1, 2


def features_of(student, teacher, mask=None, layout="map"):
    weights = None if mask is None else torch.from_numpy(mask.astype(np.float64))
    return cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), weights, layout)


def banded(student, teacher, levels, band, mask=None):
    changed = cases.operator("transform", "haar_band", levels=levels, band=band)(
        features_of(student, teacher, mask), cases.NO_INPUTS
    )
    return [side.numpy() for side in changed.values()]


# ------------------------------------------------------------------------------------------- bands


def haar_matrix(size, levels):
    """The orthonormal Haar analysis of one axis, (size, size): the ``size / 2^levels`` averages are the first rows."""
    matrix = np.eye(size)
    length = size
    for _ in range(levels):
        step = np.zeros((length, length))
        for i in range(length // 2):
            step[i, 2 * i : 2 * i + 2] = 1 / np.sqrt(2), 1 / np.sqrt(2)
            step[length // 2 + i, 2 * i : 2 * i + 2] = 1 / np.sqrt(2), -1 / np.sqrt(2)
        whole = np.eye(size)
        whole[:length, :length] = step
        matrix = whole @ matrix
        length //= 2
    return matrix


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_haar_band_is_the_inverse_transform_of_a_band_of_orthonormal_coefficients(levels):
    """Analysis by matrices, one band set to 0, synthesis; the energy is that of the band's coefficients."""
    rows, columns = haar_matrix(8, levels), haar_matrix(16, levels)
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-12)
    maps = RANDOM.normal(size=(2, 2, 3, 8, 16))
    low, high = (banded(*maps, levels, band) for band in (LOW, HIGH))
    for given, found_low, found_high in zip(maps, low, high):
        coefficients = rows @ given @ columns.T
        kept = np.zeros_like(coefficients)
        kept[..., : 8 >> levels, : 16 >> levels] = coefficients[..., : 8 >> levels, : 16 >> levels]
        np.testing.assert_allclose(found_low, rows.T @ kept @ columns, atol=1e-12)
        np.testing.assert_allclose(found_high, rows.T @ (coefficients - kept) @ columns, atol=1e-12)
        np.testing.assert_allclose((found_low**2).sum(), (kept**2).sum(), rtol=1e-12)
        np.testing.assert_allclose((found_low**2).sum() + (found_high**2).sum(), (given**2).sum(), rtol=1e-12)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("levels", [1, 2])
def test_haar_band_takes_the_mean_of_each_blocks_cells_at_odd_edges_and_in_regions(levels, region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    low, high = (banded(STUDENT, TEACHER, levels, band, REGIONS[region]) for band in (LOW, HIGH))
    for given, found_low, found_high in zip((STUDENT, TEACHER), low, high):
        for sample, channel, row, column in np.argwhere(np.broadcast_to(mask[:, None], given.shape)):
            top, left = (place >> levels << levels for place in (row, column))
            block = np.s_[top : top + 2**levels, left : left + 2**levels]
            want = given[sample, channel][block][mask[sample][block]].mean()
            at = sample, channel, row, column
            np.testing.assert_allclose(found_low[at], want, rtol=1e-12)
            np.testing.assert_allclose(found_high[at], given[at] - want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("band", [LOW, HIGH])
@pytest.mark.parametrize("levels", [1, 3])
def test_the_gradient_of_a_band_equals_finite_differences(levels, band, region):
    step = cases.operator("transform", "haar_band", levels=levels, band=band)
    features = features_of(STUDENT, TEACHER, REGIONS[region])
    student = torch.from_numpy(STUDENT).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: step.change(x, features), student)


def test_the_high_band_of_a_constant_map_is_exactly_zero():
    constant = torch.full((2, 3, 8, 8), 0.1)
    changed = cases.operator("transform", "haar_band", levels=3)(cases.piece(constant, constant), cases.NO_INPUTS)
    assert not changed.student_SCHW.any()


# ---------------------------------------------------------------------------------- logits


def test_standardize_classes_is_the_z_score_of_each_row_of_logits():
    """Logit standardization's released code: (x - mean) / (1e-7 + std), unbiased, over the classes."""
    logits = 3 * RANDOM.normal(size=(2, 2, 5, 1, 7)) + 4
    changed = cases.operator("transform", "standardize_classes")(features_of(*logits, layout="logits"), cases.NO_INPUTS)
    assert changed.layout == "logits"
    for found, given in zip(changed.values(), logits):
        for sample, candidate in np.ndindex(2, 7):
            row = given[sample, :, 0, candidate]
            want = (row - row.mean()) / (1e-7 + row.std(ddof=1))
            np.testing.assert_allclose(found[sample, :, 0, candidate].numpy(), want, rtol=1e-12)


def test_standardize_classes_of_equal_logits_is_zero_without_gradient():
    logits = torch.full((1, 4, 1, 2), 3.3)
    logits[0, 0, 0, 1] = 5.0
    logits.requires_grad_()
    changed = cases.operator("transform", "standardize_classes")(
        cases.piece(logits, logits.detach(), layout="logits"), cases.NO_INPUTS
    ).student_SCHW
    assert not changed[..., 0].any()
    assert changed[..., 1].all()
    (found,) = torch.autograd.grad(changed.square().sum() + changed.sum(), logits)
    assert not found[..., 0].any()
    assert found.isfinite().all()


# ----------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("region", REGIONS)
def test_masked_generation_by_attention_drops_the_cells_where_the_teachers_is_greatest(region):
    """AMD's guide, mean_c |t|, sorted; MGD's generator on what is left."""
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    step = cases.operator("transform", "masked_generation", drop=0.4, mask=2).double()
    features = features_of(STUDENT, TEACHER, REGIONS[region])
    changed = step(features, cases.inputs_of(cases.outputs(), cases.outputs(seed=1)))
    of = {key: value.numpy() for key, value in step.state_dict().items()}
    parts = [of[f"generators.0.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")]
    for sample in range(3):
        kept = mask[sample].copy()
        attention = np.where(kept, np.abs(TEACHER[sample]).mean(0), -np.inf)
        for cell in np.argsort(-attention, axis=None)[: round(0.4 * kept.sum())]:
            kept[np.unravel_index(cell, kept.shape)] = False
        left = STUDENT[sample] * kept
        want = conv3(np.maximum(conv3(left, *parts[:2]), 0), *parts[2:])
        np.testing.assert_allclose(changed.student_SCHW[sample].detach().numpy(), want, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(changed.teacher_SCHW.numpy(), TEACHER)


def test_a_mask_at_its_default_stays_out_of_the_canonical_form():
    written = Step.of("masked_generation", drop=0.65, mask=1)
    assert written.checked("transform") == Step.of("masked_generation", drop=0.65)
    assert Step.of("masked_generation", mask=2).checked("transform").params == (("drop", 0.65), ("mask", 2))
    assert Step.of("masked_generation", drop=0.65).settings("transform")["mask"] == 1
