"""Transformations beyond the first ones against NumPy written from their formulas, in float64, with loops.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support import distill_cases as cases
from tests.support.numpy_formulas import context_block, conv3, scale_mask, softmax

RANDOM = np.random.default_rng(27)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
MASK = RANDOM.random((3, 5, 6)) < 0.4
MASK[2] = False
EVERYWHERE = np.ones_like(MASK)
REGIONS = {"everywhere": None, "masked": MASK}


def features_of(student, teacher, mask, layout="map"):
    weights = None if mask is None else torch.from_numpy(mask.astype(np.float64))
    return cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), weights, layout)


def channel_mean(x, power):
    """AT, section 3.1: the mean over channels of |x|^p, here as a map of one channel."""
    return np.stack([np.mean([np.abs(c) ** power for c in sample], axis=0)[None] for sample in x])


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("power", [1, 2])
def test_channel_mean_equals_its_formula(power, region):
    changed = cases.operator("transform", "channel_mean", power=power)(
        features_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_INPUTS
    )
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        np.testing.assert_allclose(found.numpy(), channel_mean(given, power), rtol=1e-12)
    assert (changed.weights_SHW is None) == (region == "everywhere")


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("power", [1, 2])
def test_cell_mean_equals_its_formula_and_weighs_the_channels_of_a_sample_alike(power, region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    changed = cases.operator("transform", "cell_mean", power=power)(
        features_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_INPUTS
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
        features_of(STUDENT[:, :1], TEACHER[:, :1], REGIONS[region], "scalar_map"), cases.NO_INPUTS
    )
    assert changed.layout == "scalar_map"
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        for sample in range(2):
            values = given[sample, 0][mask[sample]]
            want = values / np.sqrt((values**2).sum())
            np.testing.assert_allclose(found[sample, 0].numpy()[mask[sample]], want, rtol=1e-12)


# ------------------------------------------------------------- each side by itself, over the region's cells


def by_channel(f):
    """Apply ``f`` to the cells of the region, channel by channel of each sample."""

    def whole(x, mask, **params):
        out = np.zeros_like(x)
        for sample, channel in np.ndindex(x.shape[:2]):
            inside = mask[sample]
            if inside.any():
                out[sample, channel][inside] = f(x[sample, channel][inside], **params)
        return out

    return whole


def l2_samples(x, mask):
    out = np.zeros_like(x)
    for channel, row, column in np.ndindex(x.shape[1:]):
        there = mask[:, row, column]
        values = x[there, channel, row, column]
        out[there, channel, row, column] = values / np.sqrt((values**2).sum())
    return out


def sample_attention(x, mask, temperature):
    there = [sample for sample in range(len(x)) if mask[sample].any()]
    energies = np.array([np.abs(x[sample][:, mask[sample]]).mean() for sample in there])
    out = np.zeros_like(x)
    for sample, share in zip(there, softmax(energies / temperature)):
        out[sample] = x[sample] * len(there) * share
    return out


ONE_SIDED = {
    "min_max": (by_channel(lambda v: (v - v.min()) / (v.max() - v.min()) if len(v) > 1 else 0 * v), {}),
    "power": (by_channel(lambda v, exponent: np.sign(v) * np.abs(v) ** exponent), {"exponent": 3}),
    "root": (by_channel(lambda v, degree: np.sign(v) * np.abs(v) ** (1 / degree)), {"degree": 3}),
    "log": (by_channel(lambda v: np.sign(v) * np.log(1 + np.abs(v))), {}),
    "sigmoid": (by_channel(lambda v, temperature: 1 / (1 + np.exp(-v / temperature))), {"temperature": 2.0}),
    "spatial_softmax": (by_channel(lambda v, temperature: len(v) * softmax(v / temperature)), {"temperature": 0.4}),
    "l2_samples": (l2_samples, {}),
    "sample_attention": (sample_attention, {"temperature": 0.1}),
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", ONE_SIDED)
def test_transform_equals_its_formula(name, region):
    expected, params = ONE_SIDED[name]
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    changed = cases.operator("transform", name, **params)(
        features_of(STUDENT, TEACHER, REGIONS[region]), cases.NO_INPUTS
    )
    for found, given in zip(changed.values(), (STUDENT, TEACHER)):
        want = expected(given, mask, **params)
        for sample in range(3):
            np.testing.assert_allclose(
                found[sample].numpy()[:, mask[sample]], want[sample][:, mask[sample]], rtol=1e-9, atol=1e-12
            )


def test_root_is_a_straight_line_near_zero_where_its_slope_would_be_infinite():
    x = torch.tensor([[[[0.0, 5e-7, -5e-7, 1e-6, 4e-6]]]], dtype=torch.float64, requires_grad=True)
    changed = cases.operator("transform", "root", degree=2)(cases.piece(x, x.detach()), cases.NO_INPUTS).student_SCHW
    np.testing.assert_allclose(changed.flatten().tolist(), [0.0, 5e-4, -5e-4, 1e-3, 2e-3])
    (slope,) = torch.autograd.grad(changed.sum(), x)
    np.testing.assert_allclose(slope[0, 0, 0, :3].tolist(), [1e3] * 3)


def test_l2_samples_of_a_single_image_is_its_sign_without_gradient():
    x = torch.tensor([[[[3.0, -2.0]]]], requires_grad=True)
    changed = cases.operator("transform", "l2_samples")(cases.piece(x, x.detach()), cases.NO_INPUTS).student_SCHW
    assert changed.flatten().tolist() == [1.0, -1.0]
    assert torch.autograd.grad(changed.sum(), x)[0].abs().sum() == 0


# --------------------------------------------------------------------------------- both sides together


def energies(x, mask):
    return np.abs(x).mean(0)[mask], np.array([np.abs(channel[mask]).mean() for channel in x])


def weighting(of_cells, of_channels, mask):
    """(C, H, W): sqrt(N softmax of cells * C softmax of channels), inside the mask."""
    out = np.zeros((len(of_channels), *mask.shape))
    cells = np.sqrt(len(of_cells) * softmax(of_cells))
    for channel, share in enumerate(len(of_channels) * softmax(of_channels)):
        out[channel][mask] = np.sqrt(share) * cells
    return out


def teacher_attention(student, teacher, mask):
    """FGD, section 3.1: both attentions from the teacher, temperature 0.5."""
    return weighting(*(energy / 0.5 for energy in energies(teacher, mask)), mask)


def shared_attention(student, teacher, mask):
    """FBKD, section 3.1: the energies of both added, temperature 0.1."""
    added = [s + t for s, t in zip(energies(student, mask), energies(teacher, mask))]
    return weighting(*(energy / 0.1 for energy in added), mask)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("formula", [teacher_attention, shared_attention])
def test_attention_that_is_shared_weighs_both_sides_alike(formula, region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    features = features_of(STUDENT, TEACHER, REGIONS[region])
    changed = cases.operator("transform", formula.__name__)(features, cases.NO_INPUTS)
    for sample in range(3):
        if mask[sample].any():
            factor = formula(STUDENT[sample], TEACHER[sample], mask[sample])
            for found, given in zip(changed.values(), (STUDENT, TEACHER)):
                np.testing.assert_allclose(
                    found[sample].numpy()[:, mask[sample]], (given[sample] * factor)[:, mask[sample]], rtol=1e-9
                )


def test_no_gradient_passes_through_shared_attention():
    student = torch.from_numpy(STUDENT).requires_grad_()
    changed = cases.operator("transform", "shared_attention")(
        cases.piece(student, torch.from_numpy(TEACHER)), cases.NO_INPUTS
    )
    (found,) = torch.autograd.grad(changed.student_SCHW.sum(), student)
    factor = np.stack([shared_attention(*pair, EVERYWHERE[0]) for pair in zip(STUDENT, TEACHER)])
    np.testing.assert_allclose(found.numpy(), factor, rtol=1e-9)


def fresh_inputs():
    """A batch whose generator has drawn nothing yet."""
    return cases.inputs_of(cases.outputs(), cases.outputs(seed=1))


def kept_cells(drop):
    """The draw of step 0: (S, 1, H, W), uniform numbers not below ``drop``."""
    return (torch.rand(3, 1, 5, 6, generator=torch.Generator().manual_seed(0)) >= drop).numpy()


def test_random_mask_zeroes_the_same_cells_on_both_sides_from_the_batchs_generator():
    kept = kept_cells(0.7)
    assert 0 < kept.mean() < 0.5
    features = features_of(STUDENT, TEACHER, None)
    changed = cases.operator("transform", "random_mask", drop=0.7)(features, fresh_inputs())
    np.testing.assert_array_equal(changed.student_SCHW.numpy(), STUDENT * kept)
    np.testing.assert_array_equal(changed.teacher_SCHW.numpy(), TEACHER * kept)


# ------------------------------------------------------------------------------------- learned steps


def randomized(name, **params):
    """The step in float64 with every parameter drawn anew, and its parameters by name as NumPy arrays."""
    step = cases.operator("transform", name, **params).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return step, {key: value.numpy() for key, value in step.state_dict().items()}


def test_affine_scales_and_shifts_the_students_channels_and_starts_as_the_identity():
    features = features_of(STUDENT, TEACHER, None)
    started = cases.operator("transform", "affine")(features, cases.NO_INPUTS)
    np.testing.assert_array_equal(started.student_SCHW.detach().numpy(), STUDENT)
    step, of = randomized("affine")
    changed = step(features, cases.NO_INPUTS)
    scale, shift = np.exp(of["log_scales.0"]), of["shifts.0"]
    want = np.stack([[scale[c] * channel + shift[c] for c, channel in enumerate(sample)] for sample in STUDENT])
    np.testing.assert_allclose(changed.student_SCHW.detach().numpy(), want, rtol=1e-12)
    np.testing.assert_array_equal(changed.teacher_SCHW.numpy(), TEACHER)


@pytest.mark.parametrize("region", REGIONS)
def test_masked_generation_completes_the_student_from_the_cells_that_are_left(region):
    """MGD, section 3.1: mask, convolution, ReLU, convolution."""
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    step, of = randomized("masked_generation", drop=0.4)
    changed = step(features_of(STUDENT, TEACHER, REGIONS[region]), fresh_inputs())
    parts = [of[f"generators.0.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")]
    for sample, left in enumerate(STUDENT * kept_cells(0.4) * mask[:, None]):
        want = conv3(np.maximum(conv3(left, *parts[:2]), 0), *parts[2:])
        np.testing.assert_allclose(changed.student_SCHW[sample].detach().numpy(), want, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(changed.teacher_SCHW.numpy(), TEACHER)


@pytest.mark.parametrize("region", REGIONS)
def test_global_context_adds_what_each_sides_block_says_and_starts_as_the_identity(region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    features = features_of(STUDENT, TEACHER, REGIONS[region])
    started = cases.operator("transform", "global_context").double()(features, cases.NO_INPUTS)
    np.testing.assert_array_equal(started.student_SCHW.detach().numpy(), STUDENT)
    np.testing.assert_array_equal(started.teacher_SCHW.detach().numpy(), TEACHER)
    step, of = randomized("global_context")
    changed = step(features, cases.NO_INPUTS)
    for side, found, given in zip(("student", "teacher"), changed.values(), (STUDENT, TEACHER)):
        block = {key.removeprefix(f"{side}.0."): value for key, value in of.items() if key.startswith(side)}
        for sample in range(2):
            want = context_block(given[sample], mask[sample], block)
            np.testing.assert_allclose(found[sample].detach().numpy(), want, rtol=1e-9)


# ------------------------------------------------------------------------------------------- sources


BOXES = [[[4, 4, 44, 30], [10, 6, 28, 28], [60, 30, 120, 90]], [], [[0, 0, 128, 96]]]


@pytest.mark.parametrize("background", [0.5, 2.0])
def test_foreground_background_weighs_boxes_alike_on_every_level(background):
    levels = {"p3": ((12, 16), 8), "p4": ((6, 8), 16)}
    sides = (cases.outputs(num_images=3, seed=seed, levels=levels) for seed in (0, 1))
    inputs = cases.inputs_of(*sides, cases.boxes(*BOXES))
    for piece, stride in zip(cases.operator("source", "foreground_background", background=background)(inputs), (8, 16)):
        grid = tuple(piece.student_SCHW.shape[2:])
        want = np.stack([scale_mask(boxes, grid, stride, background) for boxes in BOXES])
        np.testing.assert_allclose(piece.weights_SHW.numpy(), want, rtol=1e-6)
        np.testing.assert_allclose(piece.weights_SHW[2].sum().item(), 1.0, rtol=1e-6)
        np.testing.assert_allclose(piece.weights_SHW[1].sum().item(), background, rtol=1e-6)
        assert piece.members_SHW.min() == 1


def test_foreground_background_keeps_its_weights_when_the_map_is_cut_into_patches():
    levels = {"p3": ((12, 16), 8)}
    sides = (cases.outputs(num_images=3, seed=seed, levels=levels) for seed in (0, 1))
    inputs = cases.inputs_of(*sides, cases.boxes(*BOXES))
    (piece,) = cases.operator("source", "foreground_background")(inputs)
    patches = cases.operator("transform", "local_patches", grid=2)(piece, inputs)
    laid = piece.weights_SHW.unflatten(1, (2, 6)).unflatten(3, (2, 8)).permute(0, 1, 3, 2, 4).flatten(0, 2)
    np.testing.assert_allclose(patches.weights_SHW.numpy(), laid.numpy())


GOLDEN = {
    "channel_mean",
    "cell_mean",
    *ONE_SIDED,
    "teacher_attention",
    "shared_attention",
    "random_mask",
    "affine",
    "masked_generation",
    "global_context",
    "foreground_background",
}
