"""Operators of released code (DetKDS, FBKD) against NumPy written from their formulas, in float64, with loops.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support import distill_cases as cases
from tests.support.numpy_formulas import conv3, scale_mask, softmax

RANDOM = np.random.default_rng(31)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
MASK = RANDOM.random((3, 5, 6)) < 0.4
MASK[2] = False
EVERYWHERE = np.ones_like(MASK)
REGIONS = {"everywhere": None, "masked": MASK}
BOXES = [[[4, 4, 44, 30], [10, 6, 28, 28], [60, 30, 120, 90]], [], [[0, 0, 128, 96]]]


def features_of(mask):
    weights = None if mask is None else torch.from_numpy(mask.astype(np.float64))
    return cases.piece(torch.from_numpy(STUDENT), torch.from_numpy(TEACHER), weights, "map")


def inside(region):
    return EVERYWHERE if REGIONS[region] is None else REGIONS[region]


def randomized(name, **params):
    """The step in float64 with every parameter drawn anew, and its parameters by name as NumPy arrays."""
    step = cases.operator("transform", name, **params).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return step, {key.rpartition(".")[2]: value.numpy() for key, value in step.state_dict().items()}


# ------------------------------------------------------------------------------------------- DetKDS


@pytest.mark.parametrize("region", REGIONS)
def test_channel_attention_may_be_the_root_of_the_softmax(region):
    """DetKDS's released code: x sqrt(C softmax_c(mean_s |x| / T))."""
    step = cases.operator("transform", "channel_attention", temperature=0.5, exponent=0.5)
    changed = step(features_of(REGIONS[region]), cases.NO_INPUTS)
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        for sample, x in enumerate(given):
            cells = [np.abs(channel[inside(region)[sample]]) for channel in x]
            energy = np.array([values.mean() if values.size else 0.0 for values in cells])
            factor = np.sqrt(len(energy) * softmax(energy / 0.5))
            np.testing.assert_allclose(found[sample].numpy(), x * factor[:, None, None], rtol=1e-12)


def test_the_root_of_a_softmax_that_vanishes_has_a_finite_gradient():
    x = torch.tensor([0.0, 400.0])[None, :, None, None].repeat(1, 1, 2, 2).requires_grad_()
    step = cases.operator("transform", "channel_attention", temperature=0.5, exponent=0.5)
    changed = step(cases.piece(x, x.detach(), None, "map"), cases.NO_INPUTS)
    (gradient,) = torch.autograd.grad(changed.student_SCHW.sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("window", [2, 4])
def test_max_pool_may_fill_windows_at_the_edge_with_zeros(window):
    given = -np.abs(STUDENT)  # of negative numbers, so that a zero is seen
    weights = cases.piece(torch.from_numpy(given), torch.from_numpy(-given), None, "map")
    changed = cases.operator("transform", "max_pool", window=window, zero_edge=1)(weights, cases.NO_INPUTS)
    for found, x in zip(changed.values(), (given, -given)):
        padded = np.pad(x, ((0, 0), (0, 0), (0, -5 % window), (0, -6 % window)))
        rows, columns = padded.shape[2] // window, padded.shape[3] // window
        for row, column in np.ndindex(rows, columns):
            cells = padded[:, :, row * window : (row + 1) * window, column * window : (column + 1) * window]
            np.testing.assert_array_equal(found[:, :, row, column].numpy(), cells.max((2, 3)))


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("side", [2, 4])
def test_cell_patches_hold_each_cell_once_and_zeros_that_count(side, region):
    changed = cases.operator("transform", "cell_patches", side=side)(features_of(REGIONS[region]), cases.NO_INPUTS)
    rows, columns = -(-5 // side), -(-6 // side)
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        masked = given * inside(region)[:, None]
        assert found.shape == (3 * rows * columns, 4, side, side)
        for sample, row, column in np.ndindex(3, rows, columns):
            want = np.zeros((4, side, side))
            part = masked[sample, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            want[:, : part.shape[1], : part.shape[2]] = part
            np.testing.assert_array_equal(found[(sample * rows + row) * columns + column].numpy(), want)
    assert changed.weights_SHW is None


@pytest.mark.parametrize("name", ["foreground_map", "background_map"])
def test_maps_of_fore_and_background_are_scaled_by_the_number_of_cells(name):
    levels = {"p3": ((12, 16), 8), "p4": ((6, 8), 16)}
    sides = [cases.outputs(num_images=3, seed=seed, levels=levels) for seed in (0, 1)]
    found = cases.operator("source", name)(cases.inputs_of(*sides, cases.boxes(*BOXES)))
    for piece, (level, (grid, stride)) in zip(found, levels.items()):
        for side, value in zip(sides, piece.values()):
            for image, boxes in enumerate(BOXES):
                both, foreground = (scale_mask(boxes, grid, stride, background) for background in (1.0, 0.0))
                factor = foreground if name == "foreground_map" else both - foreground
                want = side.pyramid[level][image].detach().double().numpy() * factor
                np.testing.assert_allclose(value[image].detach().double().numpy(), want, rtol=2e-6, atol=1e-9)
        assert piece.weights_SHW is None


# --------------------------------------------------------------------------------------------- FBKD


@pytest.mark.parametrize(
    "name", ["student_projection", "adapted_attention", "adapted_channel_mean", "adapted_cell_mean"]
)
def test_adaptation_layers_start_as_if_they_were_not_there(name):
    plain = {
        "student_projection": None,
        "adapted_attention": "shared_attention",
        "adapted_channel_mean": "channel_mean",
        "adapted_cell_mean": "cell_mean",
    }[name]
    features = features_of(MASK)
    want = cases.operator("transform", plain)(features, cases.NO_INPUTS) if plain else features
    found = cases.operator("transform", name).double()(features, cases.NO_INPUTS)
    factor = (
        MASK[:, None] if name == "adapted_channel_mean" else 1.0
    )  # its convolution sees no cell that does not count
    np.testing.assert_allclose(found.student_SCHW.detach().numpy(), want.student_SCHW.numpy() * factor, rtol=1e-12)
    np.testing.assert_array_equal(found.teacher_SCHW.numpy(), want.teacher_SCHW.numpy())
    assert found.layout == want.layout


def projected(x_CHW, of):
    return np.einsum("dc,chw->dhw", of["weight"][:, :, 0, 0], x_CHW) + of["bias"][:, None, None]


def test_student_projection_is_a_linear_map_of_the_channels_of_each_cell():
    step, of = randomized("student_projection")
    changed = step(features_of(None), cases.NO_INPUTS)
    for found, x in zip(changed.student_SCHW.detach().numpy(), STUDENT):
        np.testing.assert_allclose(found, projected(x, of), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(changed.teacher_SCHW.numpy(), TEACHER)


@pytest.mark.parametrize("region", REGIONS)
def test_adapted_attention_is_of_the_maps_before_the_projection(region):
    step, of = randomized("adapted_attention", temperature=0.3)
    changed = step(features_of(REGIONS[region]), cases.NO_INPUTS)
    for sample, (s, t) in enumerate(zip(STUDENT, TEACHER)):
        counts = inside(region)[sample]
        if not counts.any():
            continue
        cells = (np.abs(s) + np.abs(t)).mean(0)[counts]
        channels = (np.abs(s) + np.abs(t))[:, counts].mean(1)
        factor = np.sqrt(len(cells) * softmax(cells / 0.3)) * np.sqrt(len(s) * softmax(channels / 0.3))[:, None]
        found_s, found_t = (x[sample].detach().numpy()[:, counts] for x in changed.values())
        np.testing.assert_allclose(found_s, projected(s, of)[:, counts] * factor, rtol=1e-9)
        np.testing.assert_allclose(found_t, t[:, counts] * factor, rtol=1e-9)


@pytest.mark.parametrize("region", REGIONS)
def test_adapted_channel_mean_convolves_the_students_cells_that_count(region):
    step, of = randomized("adapted_channel_mean")
    changed = step(features_of(REGIONS[region]), cases.NO_INPUTS)
    for sample, (s, t) in enumerate(zip(STUDENT, TEACHER)):
        want = conv3(np.abs(s).mean(0)[None] * inside(region)[sample], of["weight"], of["bias"])
        np.testing.assert_allclose(changed.student_SCHW[sample].detach().numpy(), want, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(changed.teacher_SCHW[sample, 0].numpy(), np.abs(t).mean(0), rtol=1e-12)


@pytest.mark.parametrize("region", REGIONS)
def test_adapted_cell_mean_is_a_linear_map_of_the_students_channel_means(region):
    step, of = randomized("adapted_cell_mean")
    changed = step(features_of(REGIONS[region]), cases.NO_INPUTS)
    for sample, (s, t) in enumerate(zip(STUDENT, TEACHER)):
        counts = inside(region)[sample]
        means = [np.abs(x)[:, counts].mean(1) if counts.any() else np.zeros(4) for x in (s, t)]
        want = of["weight"] @ means[0] + of["bias"]
        np.testing.assert_allclose(changed.student_SCHW[sample, 0, 0].detach().numpy(), want, rtol=1e-10)
        np.testing.assert_allclose(changed.teacher_SCHW[sample, 0, 0].numpy(), means[1], rtol=1e-12)


GOLDEN = {
    "foreground_map",
    "background_map",
    "cell_patches",
    "student_projection",
    "adapted_attention",
    "adapted_channel_mean",
    "adapted_cell_mean",
}
