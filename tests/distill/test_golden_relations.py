"""Relations against NumPy written from their formulas, in float64, with loops where the code has none.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from autokd.distill import build_distiller
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.regions import Instances
from autokd.spec import TRANSFORMS, Weight
from autokd.spec.formula import formula_lines
from tests.support import distill_cases as cases

RANDOM = np.random.default_rng(37)
STUDENT, TEACHER = RANDOM.normal(size=(2, 3, 4, 5, 6))
MASK = RANDOM.random((3, 5, 6)) < 0.4
MASK[2] = False
EVERYWHERE = np.ones_like(MASK)
REGIONS = {"everywhere": None, "masked": MASK}


def relations(name: str, mask: np.ndarray | None, **params: float) -> FeaturePair:
    """The matrix of relations of both sides; also checks which of its entries count."""
    weights = None if mask is None else torch.from_numpy(mask.astype(np.float64))
    given = cases.piece(torch.from_numpy(STUDENT), torch.from_numpy(TEACHER), weights)
    return cases.operator("transform", name, **params)(given, cases.NO_INPUTS)


def check(changed: FeaturePair, formula, shape: tuple[int, ...]) -> None:
    """Both sides equal ``formula(x, row, column)``; None: the entry does not count."""
    assert changed.layout == "scalar_map"
    for found, x in zip(changed.values(), (STUDENT, TEACHER)):
        assert found.shape == (shape[0], 1, 1, shape[1])
        for row, column in np.ndindex(*shape):
            want = formula(x, row, column)
            counts = changed.weights_SHW is None or changed.weights_SHW[row, 0, column] == 1
            assert counts == (want is not None)
            if want is not None:
                np.testing.assert_allclose(found[row, 0, 0, column].item(), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("region", REGIONS)
def test_gram_channels_is_the_mean_product_of_two_channels_over_the_cells_that_count(region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]

    def product(x, row, column):
        sample, channel = divmod(row, 4)
        inside = mask[sample]
        return np.mean(x[sample, channel][inside] * x[sample, column][inside]) if inside.any() else None

    check(relations("gram_channels", REGIONS[region]), product, (12, 4))


@pytest.mark.parametrize("region", REGIONS)
def test_gram_samples_is_the_inner_product_of_two_samples(region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]

    def product(x, row, column):
        if not (mask[row].any() and mask[column].any()):
            return None
        return sum((x[row, c] * mask[row] * x[column, c] * mask[column]).sum() for c in range(4))

    check(relations("gram_samples", REGIONS[region]), product, (3, 3))


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(("side", "window"), [(16, 1), (3, 2), (2, 3)])
def test_gram_cells_is_the_mean_product_of_two_cells_after_averaging_over_windows(side, window, region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    height, width = -(-5 // window), -(-6 // window)

    def cell(x, sample, index):
        row, column = np.array(divmod(index, width)) * window
        part = np.s_[row : row + window, column : column + window]
        inside = mask[sample][part]
        return x[sample][:, part[0], part[1]][:, inside].mean(1) if inside.any() else None

    def product(x, row, column):
        sample, index = divmod(row, height * width)
        first, second = cell(x, sample, index), cell(x, sample, column)
        return None if first is None or second is None else (first * second).mean()

    check(relations("gram_cells", REGIONS[region], side=side), product, (3 * height * width, height * width))


def non_local(x, mask, block):
    """x_i + W mean_j <theta x_i, phi x_j> g x_j: FBKD's module, by dot products (Non-local, eqs. 1, 4, 6)."""
    theta, phi, g = np.split(block["embed.weight"].numpy()[..., 0], 3)
    theta_0, phi_0, g_0 = np.split(block["embed.bias"].numpy(), 3)
    out, out_0 = block["out.weight"].numpy()[..., 0], block["out.bias"].numpy()
    changed = np.empty_like(x)
    for sample, row, column in np.ndindex(3, 5, 6):
        here, y, count = x[sample, :, row, column], 0.0, 0
        for other in np.argwhere(mask[sample]):
            there = x[sample, :, other[0], other[1]]
            y = y + ((theta @ here + theta_0) @ (phi @ there + phi_0)) * (g @ there + g_0)
            count += 1
        changed[sample, :, row, column] = here + out @ (y / max(count, 1) * np.ones(len(g))) + out_0
    return changed


@pytest.mark.parametrize("region", REGIONS)
def test_non_local_adds_to_each_cell_what_the_cells_that_count_say_by_each_sides_own_maps(region):
    mask = EVERYWHERE if REGIONS[region] is None else REGIONS[region]
    transform = cases.operator("transform", "non_local", reduction=2).double()
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.copy_(torch.from_numpy(RANDOM.normal(size=parameter.shape)))
    weights = None if REGIONS[region] is None else torch.from_numpy(MASK.astype(np.float64))
    given = cases.piece(torch.from_numpy(STUDENT), torch.from_numpy(TEACHER), weights)
    changed = transform(given, cases.NO_INPUTS)
    for found, x, side in zip(changed.values(), (STUDENT, TEACHER), (transform.student, transform.teacher)):
        np.testing.assert_allclose(found.detach().numpy(), non_local(x, mask, side[0].state_dict()), rtol=1e-9)


def test_non_local_starts_as_the_identity_and_learns_on_both_sides_without_reaching_the_teacher():
    student, teacher = cases.outputs(4), cases.outputs(4, seed=1)
    distiller = build_distiller(
        cases.spec_of("feature_map", ["non_local"], "l2", Weight("absolute", 1.0)), student, teacher, num_classes=3
    )
    plain = build_distiller(
        cases.spec_of("feature_map", [], "l2", Weight("absolute", 1.0)), student, teacher, num_classes=3
    )
    total = distiller(student, teacher).total
    assert total.item() == pytest.approx(plain(student, teacher).total.item(), rel=1e-6)
    total.backward()
    out_gradients = [p.grad.abs().sum() for name, p in distiller.named_parameters() if name.endswith("out.weight")]
    assert len(out_gradients) == 2 * len(student.pyramid)
    assert min(out_gradients) > 0
    assert all(map_BCHW.grad is None for map_BCHW in teacher.pyramid.values())


# ---------------------------------------------------------------------------- regions and their classes

NUM_REGIONS = 8
THERE = np.array([1, 1, 1, 0, 1, 1, 0, 1], dtype=bool)
LABELS = np.array([0, 1, 0, -1, 0, 1, -1, 2])
IMAGES = np.array([0, 0, 0, 0, 1, 1, 1, 1])
VECTORS = RANDOM.normal(size=(2, NUM_REGIONS, 3, 2, 2))
VECTORS[:, 5] = VECTORS[:, 1]  # two boxes at one place


def regions(there=THERE, labels=LABELS, values=VECTORS) -> FeaturePair:
    student, teacher = (torch.tensor(side, requires_grad=i == 0) for i, side in enumerate(values))
    weights = torch.from_numpy(there.astype(values.dtype))[:, None, None].expand(-1, 2, 2)
    instances = Instances(*(torch.from_numpy(x) for x in (np.zeros((len(there), 4)), labels, IMAGES, there)))
    return replace(cases.piece(student, teacher, weights, "regions"), instances=instances)


def changed_regions(name: str, given: FeaturePair | None = None, **params: float) -> FeaturePair:
    changed = cases.operator("transform", name, **params)(given or regions(), cases.NO_INPUTS)
    assert changed.layout == "scalar_map"
    assert changed.instances is None
    return changed


def sides(changed: FeaturePair):
    return zip((side.detach().numpy() for side in changed.values()), VECTORS.reshape(2, NUM_REGIONS, -1))


def test_pair_distances_are_divided_by_the_mean_over_pairs_of_regions_that_are_there():
    changed = changed_regions("pair_distances")
    pairs = list(permutations(np.flatnonzero(THERE), 2))
    assert sorted(map(tuple, np.argwhere(changed.weights_SHW[:, 0].numpy()))) == sorted(pairs)
    for found, v in sides(changed):
        mean = np.mean([np.sqrt(((v[i] - v[j]) ** 2).sum()) for i, j in pairs])
        for i, j in pairs:
            want = np.sqrt(((v[i] - v[j]) ** 2).sum()) / mean
            np.testing.assert_allclose(found[i, 0, 0, j], want, rtol=1e-9)


@pytest.mark.parametrize(("most", "chosen"), [(16, [0, 4, 1, 5, 2, 7]), (4, [0, 4, 1, 5]), (3, [0, 4, 1])])
def test_triplet_angles_are_cosines_at_the_regions_that_the_images_give_in_turns(most, chosen):
    changed = changed_regions("triplet_angles", most=most)
    triplets = list(permutations(range(len(chosen)), 3))  # j, i, k
    assert sorted(map(tuple, np.argwhere(changed.weights_SHW.numpy()))) == sorted(triplets)
    for found, v in sides(changed):
        assert len(found) == min(most, NUM_REGIONS)
        for j, i, k in triplets:
            first, second = v[chosen[i]] - v[chosen[j]], v[chosen[k]] - v[chosen[j]]
            lengths = np.sqrt((first**2).sum()) * np.sqrt((second**2).sum())
            want = (first * second).sum() / lengths if lengths else 0.0
            np.testing.assert_allclose(found[j, 0, i, k], want, rtol=1e-9, atol=1e-12)


def test_within_class_is_the_distance_of_a_region_to_the_mean_of_its_class():
    changed = changed_regions("within_class")
    assert changed.weights_SHW.flatten().tolist() == [1, 1, 1, 0, 1, 1, 0, 0], "the only one of class 2 is its center"
    for found, v in sides(changed):
        for i in np.flatnonzero(changed.weights_SHW[0, 0]):
            center = np.mean([v[j] for j in range(NUM_REGIONS) if THERE[j] and LABELS[j] == LABELS[i]], axis=0)
            want = np.sqrt(((v[i] - center) ** 2).sum())
            np.testing.assert_allclose(found[0, 0, 0, i], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("is_shown", [[True, True, True], [True, False, True]])
def test_between_class_is_the_distance_of_the_means_of_two_classes_that_the_batch_shows(is_shown):
    there = THERE & np.array([label >= 0 and is_shown[label] for label in LABELS])
    changed = changed_regions("between_class", regions(there))
    pairs = list(permutations(np.flatnonzero(is_shown), 2))
    assert sorted(map(tuple, np.argwhere(changed.weights_SHW[:, 0].numpy()))) == sorted(pairs)
    for found, v in sides(changed):
        centers = [np.mean([v[j] for j in range(NUM_REGIONS) if there[j] and LABELS[j] == k] or [v[0] * 0], axis=0)
                   for k in range(3)]  # fmt: skip
        for k, other in pairs:
            want = np.sqrt(((centers[k] - centers[other]) ** 2).sum())
            np.testing.assert_allclose(found[k, 0, 0, other], want, rtol=1e-9)


BETWEEN_REGIONS = ["pair_distances", "triplet_angles", "within_class", "between_class"]


@pytest.mark.parametrize("num_there", [0, 1])
@pytest.mark.parametrize("name", BETWEEN_REGIONS)
def test_one_region_or_none_has_no_relation_and_a_gradient_of_zero(name, num_there):
    given = regions(np.arange(NUM_REGIONS) < num_there)
    changed = changed_regions(name, given)
    assert not changed.weights_SHW.any()
    value = cases.operator("distance", "l2")(changed, cases.NO_INPUTS)
    assert value == 0
    (gradient,) = torch.autograd.grad(value, given.student_SCHW)
    assert not gradient.any()


@pytest.mark.parametrize("name", BETWEEN_REGIONS)
def test_a_batch_without_boxes_gives_cells_of_weight_0_that_later_steps_can_look_at(name):
    empty = torch.zeros(0, 3, 2, 2, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    given = cases.piece(empty, empty.detach(), torch.zeros(0, 2, 2), "regions")
    given = replace(given, instances=Instances(torch.zeros(0, 4), none, none, none.bool()))
    changed = changed_regions(name, given)
    assert changed.student_SCHW.shape[1] == 1
    assert min(changed.student_SCHW.shape[2:]) > 0
    assert not changed.weights_SHW.any()
    assert changed.student_SCHW.requires_grad


@pytest.mark.parametrize("name", BETWEEN_REGIONS)
def test_relations_of_equal_regions_have_a_finite_gradient(name):
    given = regions(values=np.ones_like(VECTORS))
    changed = changed_regions(name, given)
    (gradient,) = torch.autograd.grad(changed.student_SCHW.sum(), given.student_SCHW)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["pair_distances", "triplet_angles"])
def test_rkd_does_not_see_a_teacher_whose_space_is_scaled_turned_and_shifted(name):
    v = VECTORS.reshape(2, NUM_REGIONS, -1)
    turn, _ = np.linalg.qr(RANDOM.normal(size=(12, 12)))
    like = (3.7 * v[0] @ turn + RANDOM.normal(size=12)).reshape(VECTORS[0].shape)
    changed = changed_regions(name, regions(values=np.stack([VECTORS[0], like])))
    counts = changed.weights_SHW[:, None] > 0
    assert counts.any()
    torch.testing.assert_close(changed.student_SCHW[counts], changed.teacher_SCHW[counts])


def test_pair_distances_of_nearby_vectors_far_from_zero_keep_their_precision_in_float32():
    values = (1e3 + 1e-2 * VECTORS).astype(np.float32)
    found, want = (
        changed_regions("pair_distances", regions(values=values.astype(dtype))) for dtype in (np.float32, np.float64)
    )
    assert found.student_SCHW.dtype == torch.float32
    torch.testing.assert_close(found.student_SCHW.double(), want.student_SCHW, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gram_channels", "gram_samples", "gram_cells", *BETWEEN_REGIONS])
def test_the_gradient_of_relations_is_their_slope(name):
    given = regions()
    transform = cases.operator("transform", name)

    def numbers(x: torch.Tensor) -> torch.Tensor:
        changed = transform(replace(given, student_SCHW=x), cases.NO_INPUTS)
        return changed.student_SCHW * changed.weights_SHW[:, None]

    distinct = torch.from_numpy(RANDOM.normal(size=VECTORS[0].shape)).requires_grad_()
    assert torch.autograd.gradcheck(numbers, distinct)


def test_a_large_map_is_averaged_to_at_most_16_cells_per_side_before_cells_are_compared():
    x = torch.randn(1, 2, 80, 80)
    changed = cases.operator("transform", "gram_cells")(cases.piece(x, x), cases.NO_INPUTS)
    assert changed.student_SCHW.shape == (256, 1, 1, 256)


@pytest.mark.parametrize("name", sorted(row.name for row in TRANSFORMS.values() if row.group == "relation"))
def test_every_relation_can_be_written_as_a_formula(name):
    source = "instance" if name in BETWEEN_REGIONS else "feature_map"
    lines = formula_lines(cases.spec_of(source, [name], "l2", Weight("absolute", 1.0)).canonical())
    assert any(name in line and "--" in line for line in lines)


GOLDEN = {"gram_channels", "gram_samples", "gram_cells", "non_local", *BETWEEN_REGIONS}
