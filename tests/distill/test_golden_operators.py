"""Every operator against NumPy written from its published formula, in float64, with loops where the code has none.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from autokd.distill.geometry.roi_align import roi_align
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS
from tests.support import distill_cases as cases

RANDOM = np.random.default_rng(7)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
MASK = RANDOM.random((3, 5, 6)) < 0.4
MASK[2] = False
EVERYWHERE = np.ones_like(MASK)
REGIONS = {"everywhere": None, "masked": MASK}


def cells(x_SCHW: np.ndarray, mask_SHW: np.ndarray | None, sample: int, channel: int) -> np.ndarray:
    """The values of one channel of one sample in the region."""
    mask = EVERYWHERE if mask_SHW is None else mask_SHW
    return x_SCHW[sample, channel][mask[sample]]


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def features_of(student, teacher, mask, layout="map"):
    weights = None if mask is None else torch.from_numpy(mask.astype(np.float64))
    return cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), weights, layout)


# --------------------------------------------------------------------------------------- transforms


def spatial_attention(x, mask, temperature=0.5):
    out = np.zeros_like(x)
    for sample in range(len(x)):
        inside = mask[sample]
        if inside.any():
            attention = softmax(np.abs(x[sample]).mean(0)[inside] / temperature)
            out[sample][:, inside] = x[sample][:, inside] * inside.sum() * attention
    return out


def channel_attention(x, mask, temperature=0.5):
    out = np.zeros_like(x)
    for sample in range(len(x)):
        if mask[sample].any():
            energy = np.array([np.abs(channel[mask[sample]]).mean() for channel in x[sample]])
            out[sample] = x[sample] * (len(energy) * softmax(energy / temperature))[:, None, None]
    return out


def standardize(x, mask):
    out = np.zeros_like(x)
    for channel in range(x.shape[1]):
        values = x[:, channel][mask]
        out[:, channel] = (x[:, channel] - values.mean()) / (values.std(ddof=1) + 1e-6)
    return out


def l2_channels(x, mask):
    return x / np.sqrt((x**2).sum(1, keepdims=True))


def l2_cells(x, mask):
    out = np.zeros_like(x)
    for sample in range(len(x)):
        for channel in range(x.shape[1]):
            length = np.sqrt((x[sample, channel][mask[sample]] ** 2).sum())
            out[sample, channel] = x[sample, channel] / length if length else 0
    return out


def softmax_cells(x, mask, temperature=1.0):
    out = np.zeros_like(x)
    for sample in range(len(x)):
        for channel in range(x.shape[1]):
            if mask[sample].any():
                out[sample, channel][mask[sample]] = softmax(x[sample, channel][mask[sample]] / temperature)
    return out


def softmax_channels(x, mask, temperature=1.0):
    out = np.zeros_like(x)
    for sample, row, column in np.ndindex(len(x), *x.shape[2:]):
        out[sample, :, row, column] = softmax(x[sample, :, row, column] / temperature)
    return out


def max_pool(x, window=2):
    height, width = -(-x.shape[2] // window), -(-x.shape[3] // window)
    out = np.empty((*x.shape[:2], height, width))
    for row, column in np.ndindex(height, width):
        part = x[:, :, row * window : (row + 1) * window, column * window : (column + 1) * window]
        out[:, :, row, column] = part.max((2, 3))
    return out


POINTWISE = {
    "spatial_attention": (spatial_attention, {"temperature": 0.8}),
    "channel_attention": (channel_attention, {"temperature": 0.3}),
    "standardize": (standardize, {}),
    "l2_channels": (l2_channels, {}),
    "l2_cells": (l2_cells, {}),
    "softmax_cells": (softmax_cells, {"temperature": 2.0}),
    "softmax_channels": (softmax_channels, {"temperature": 0.5}),
}
RESHAPING = {"max_pool", "local_patches"}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", POINTWISE)
def test_transform_equals_its_formula(name, region):
    expected, params = POINTWISE[name]
    mask = REGIONS[region]
    changed = cases.operator("transform", name, **params)(features_of(STUDENT, TEACHER, mask), cases.NO_INPUTS)
    inside = EVERYWHERE if mask is None else mask
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        want = expected(given, inside, **params)
        for sample in range(len(given)):
            np.testing.assert_allclose(
                found[sample].numpy()[:, inside[sample]], want[sample][:, inside[sample]], rtol=1e-9
            )
    assert changed.temperature == (params["temperature"] if name.startswith("softmax") else 1.0)


@pytest.mark.parametrize("window", [2, 3, 8])
def test_max_pool_equals_the_greatest_of_each_window_with_odd_edges_kept(window):
    changed = cases.operator("transform", "max_pool", window=window)(
        features_of(STUDENT, TEACHER, None), cases.NO_INPUTS
    )
    np.testing.assert_array_equal(changed.student_SCHW.numpy(), max_pool(STUDENT, window))
    np.testing.assert_array_equal(changed.teacher_SCHW.numpy(), max_pool(TEACHER, window))


def test_local_patches_of_a_map_that_divides_are_its_quarters_in_reading_order():
    x = STUDENT[:, :, :4]
    changed = cases.operator("transform", "local_patches", grid=2)(features_of(x, x, None), cases.NO_INPUTS)
    quarters = [x[b, :, r : r + 2, c : c + 3] for b in range(3) for r in (0, 2) for c in (0, 3)]
    np.testing.assert_array_equal(changed.student_SCHW.numpy(), np.stack(quarters))
    assert changed.weights_SHW is None


def test_local_patches_of_an_odd_map_hold_every_cell_exactly_once():
    x = np.arange(5 * 7, dtype=float).reshape(1, 1, 5, 7)
    changed = cases.operator("transform", "local_patches", grid=3)(features_of(x, x, None), cases.NO_INPUTS)
    assert changed.student_SCHW.shape == (9, 1, 2, 3)
    counted = changed.student_SCHW[:, 0][changed.weights_SHW > 0]
    assert sorted(counted.tolist()) == list(range(35))


# ---------------------------------------------------------------------------------------- distances


def mean_of(f, student, teacher, mask):
    found = []
    for sample, channel in np.ndindex(*student.shape[:2]):
        found += [f(d) for d in cells(student, mask, sample, channel) - cells(teacher, mask, sample, channel)]
    return np.mean(found)


def huber(difference, beta):
    size = abs(difference)
    return size**2 / (2 * beta) if size < beta else size - beta / 2


def cosine(student, teacher, mask):
    found = []
    for sample, row, column in zip(*np.nonzero(mask)):
        s, t = student[sample, :, row, column], teacher[sample, :, row, column]
        found.append(1 - s @ t / (np.linalg.norm(s) * np.linalg.norm(t)))
    return np.mean(found)


def pearson(student, teacher, mask):
    channels = range(student.shape[1])
    return np.mean([1 - np.corrcoef(student[:, c][mask], teacher[:, c][mask])[0, 1] for c in channels])


DISTANCE_FORMULAS = {
    "l1": (lambda s, t, m: mean_of(abs, s, t, m), {}),
    "l2": (lambda s, t, m: mean_of(np.square, s, t, m), {}),
    "smooth_l1": (lambda s, t, m: mean_of(lambda d: huber(d, 0.7), s, t, m), {"beta": 0.7}),
    "cosine": (cosine, {}),
    "pearson": (pearson, {}),
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", DISTANCE_FORMULAS)
def test_distance_between_maps_equals_its_formula(name, region):
    formula, params = DISTANCE_FORMULAS[name]
    mask = REGIONS[region]
    found = cases.operator("distance", name, **params)(features_of(STUDENT, TEACHER, mask), cases.NO_INPUTS)
    want = formula(STUDENT, TEACHER, EVERYWHERE if mask is None else mask)
    np.testing.assert_allclose(found.item(), want, rtol=1e-9)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("transform", ["softmax_cells", "softmax_channels"])
@pytest.mark.parametrize("name", ["l1", "l2", "smooth_l1"])
def test_distance_between_distributions_compares_probabilities(name, transform, region):
    formula, params = DISTANCE_FORMULAS[name]
    mask = REGIONS[region]
    softened = cases.operator("transform", transform, temperature=0.5)(
        features_of(STUDENT, TEACHER, mask), cases.NO_INPUTS
    )
    inside = EVERYWHERE if mask is None else mask
    probabilities = [POINTWISE[transform][0](x, inside, 0.5) for x in (STUDENT, TEACHER)]
    found = cases.operator("distance", name, **params)(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(found.item(), formula(*probabilities, inside), rtol=1e-9)


def test_cosine_of_distributions_compares_probabilities():
    softened = cases.operator("transform", "softmax_channels")(features_of(STUDENT, TEACHER, MASK), cases.NO_INPUTS)
    probabilities = [softmax_channels(x, MASK) for x in (STUDENT, TEACHER)]
    found = cases.operator("distance", "cosine")(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(found.item(), cosine(*probabilities, MASK), rtol=1e-9)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_over_cells_is_averaged_over_channels_and_samples_that_have_cells(temperature, region):
    inside = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    divergences = []
    for sample in range(3):
        for channel in range(4):
            if inside[sample].any():
                p, q = (softmax(x[sample, channel][inside[sample]] / temperature) for x in (TEACHER, STUDENT))
                divergences.append((p * np.log(p / q)).sum())
    softened = cases.operator("transform", "softmax_cells", temperature=temperature)(
        features_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_INPUTS
    )
    found = cases.operator("distance", "kl")(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(found.item(), temperature**2 * np.mean(divergences), rtol=1e-9)


@pytest.mark.parametrize("region", REGIONS)
def test_kl_over_channels_is_averaged_over_the_cells_of_the_region(region):
    inside = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    divergences = []
    for sample, row, column in zip(*np.nonzero(inside)):
        p, q = (softmax(x[sample, :, row, column] / 3) for x in (TEACHER, STUDENT))
        divergences.append((p * np.log(p / q)).sum())
    softened = cases.operator("transform", "softmax_channels", temperature=3)(
        features_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_INPUTS
    )
    found = cases.operator("distance", "kl")(softened, cases.NO_INPUTS)
    np.testing.assert_allclose(found.item(), 9 * np.mean(divergences), rtol=1e-9)


# ------------------------------------------------------------------------------------------ sources


@pytest.mark.parametrize("size", [1, 4, 7])
def test_roi_align_equals_torchvisions_kernel_and_its_gradient(size):
    generator = torch.Generator().manual_seed(3)
    map_BCHW = torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    boxes_BM4 = torch.tensor(
        [[[3, 4, 30, 20], [0, 0, 72, 56], [5, 5, 5, 5]], [[60.5, 50, 72, 56], [0, 0, 8, 8], [100, 100, 130, 150]]],
        dtype=torch.float64,
    )
    image_R1 = torch.arange(2, dtype=torch.float64).repeat_interleave(3)[:, None]
    rois_R5 = torch.cat([image_R1, boxes_BM4.flatten(0, 1)], dim=1)
    want = torchvision.ops.roi_align(map_BCHW, rois_R5, size, 1 / 8, sampling_ratio=2, aligned=True)
    found = roi_align(map_BCHW, boxes_BM4, stride=8, size=size)
    torch.testing.assert_close(found, want)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    want_gradient, found_gradient = (torch.autograd.grad((x * weights).sum(), map_BCHW)[0] for x in (want, found))
    torch.testing.assert_close(found_gradient, want_gradient)


GOLDEN = {*POINTWISE, *RESHAPING, *DISTANCE_FORMULAS, "kl", "feature_map", "foreground", "background", "instance"}
"""Rows whose values are checked here; the masks are in test_regions. Each test_golden_*.py has such a set."""


def test_every_row_of_the_vocabulary_has_a_golden_value():
    checked: set[str] = set()
    for path in Path(__file__).parent.glob("test_golden_*.py"):
        checked |= importlib.import_module(f"tests.distill.{path.stem}").GOLDEN
    assert checked == {*SOURCES, *TRANSFORMS, *DISTANCES}
