"""Operators from the founding papers against NumPy written from their formulas, in float64.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from autokd.distill.operators import BuildContext, make_operator
from autokd.distill.sources.predictions import calibrated
from autokd.distill.transforms.memory import centers
from autokd.distill.weighting.disparity import disparity_weights
from autokd.spec import Step
from tests.support import distill_cases as cases

RANDOM = np.random.default_rng(43)
STUDENT, TEACHER = RANDOM.normal(size=(2, 4, 3, 2, 2))


def softmax(x: np.ndarray) -> np.ndarray:
    shares = np.exp(x - x.max())
    return shares / shares.sum()


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    return float((teacher * np.log(teacher / student)).sum())


# ----------------------------------------------------------------------------------------- affinity


def similarities(x_SCHW: np.ndarray) -> np.ndarray:
    directions = x_SCHW / np.linalg.norm(x_SCHW, axis=1, keepdims=True)
    found = np.zeros((len(x_SCHW), len(x_SCHW)))
    for i, j in np.ndindex(found.shape):
        found[i, j] = np.mean([directions[i, :, r, c] @ directions[j, :, r, c] for r, c in np.ndindex(2, 2)])
    return found


@pytest.mark.parametrize("num_present", [4, 3])
def test_kl_of_affinities_is_the_mean_over_rows_and_columns_of_the_matrix_of_similarities(num_present):
    temperature, divergences = 0.3, []
    of_teacher, of_student = (similarities(x[:num_present]) / temperature for x in (TEACHER, STUDENT))
    for matrices in ((of_teacher, of_student), (of_teacher.T, of_student.T)):
        for i in range(num_present):
            others = [j for j in range(num_present) if j != i]
            divergences.append(divergence(*(softmax(matrix[i][others]) for matrix in matrices)))
    present = torch.arange(4)[:, None, None].expand(4, 2, 2) < num_present
    given = cases.piece(torch.from_numpy(STUDENT), torch.from_numpy(TEACHER), present.double(), "regions")
    changed = cases.operator("transform", "affinity", temperature=temperature)(given, cases.NO_INPUTS)
    found = cases.operator("distance", "kl")(changed, cases.NO_INPUTS)
    np.testing.assert_allclose(found.item(), temperature**2 * np.mean(divergences), rtol=1e-9)


# ------------------------------------------------------------------------- foreground to background


def source_pairs(name, student, teacher, targets=cases.TARGETS, **params):
    inputs = cases.inputs_of(student, teacher, targets)
    context = BuildContext(inputs.pairs, cases.NUM_CLASSES, student, teacher)
    return make_operator("source", Step.of(name, **params), context)(inputs)


def inside_boxes(boxes, height: int, width: int, stride: int) -> list[bool]:
    """Whether each cell's center lies in a box, in reading order; the boxes here are larger than a cell."""
    centers_px = [((c + 0.5) * stride, (r + 0.5) * stride) for r, c in np.ndindex(height, width)]
    return [any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in boxes.tolist()) for x, y in centers_px]


def chosen(members: list[int], most: int) -> list[int]:
    if len(members) <= most:
        return members
    return [members[int((place + 0.5) / most * len(members))] for place in range(most)]


@pytest.mark.parametrize("most", [5, 200])
def test_foreground_to_background_is_the_cosine_of_chosen_cells_inside_boxes_and_outside(most):
    student, teacher = (cases.outputs(seed=seed, dtype=torch.float64) for seed in (0, 1))
    pair = source_pairs("foreground_to_background", student, teacher, cells=most)[0]
    weights = pair.weights_SHW[:, 0].unflatten(0, (2, -1))
    for outputs, found_S11Q in ((student, pair.student_SCHW), (teacher, pair.teacher_SCHW)):
        for image, target in enumerate(cases.TARGETS):
            x_CN = outputs.pyramid["p3"][image].detach().flatten(1).numpy()
            inside = inside_boxes(target["boxes"], 12, 16, 8)
            rows, columns = (chosen([i for i, is_in in enumerate(inside) if is_in is part], most)
                             for part in (True, False))  # fmt: skip
            directions_CN = x_CN / np.linalg.norm(x_CN, axis=0)
            want = directions_CN[:, rows].T @ directions_CN[:, columns]
            found = found_S11Q.detach()[:, 0, 0].unflatten(0, (2, -1))[image, : len(rows), : len(columns)]
            np.testing.assert_allclose(found.numpy(), want, rtol=1e-9, atol=1e-12)
            assert weights[image].sum() == weights[image, : len(rows), : len(columns)].sum() == len(rows) * len(columns)


# ------------------------------------------------------------------------------------ memory recall


def test_memory_recall_mixes_exemplars_by_the_softmax_of_distances_and_leaves_the_teacher():
    recall = cases.operator("transform", "memory_recall", channels=3, exemplars=5, temperature=0.7).double()
    memory = recall.exemplars[0].detach().numpy()
    given = cases.piece(torch.from_numpy(STUDENT), torch.from_numpy(TEACHER))
    changed = recall(given, cases.NO_INPUTS)
    for sample, row, column in np.ndindex(4, 2, 2):
        distances = ((memory - STUDENT[sample, :, row, column]) ** 2).sum(1)
        want = softmax(-distances / (0.7 * 3)) @ memory
        np.testing.assert_allclose(changed.student_SCHW[sample, :, row, column].detach(), want, rtol=1e-9)
    assert changed.teacher_SCHW is given.teacher_SCHW


class Training:
    """The inputs of a step of training, for operators that ask for nothing else."""

    is_training = True


def test_the_memory_begins_as_means_of_the_teachers_vectors_that_count_and_a_checkpoint_keeps_it():
    offsets = 10.0 * np.eye(3)[:, None]
    rows = (offsets + RANDOM.normal(size=(3, 4, 3))).reshape(12, 3)[RANDOM.permutation(12)]
    teacher = np.concatenate([rows, np.full((4, 3), 99.0)]).T.reshape(1, 3, 4, 4)
    weights = torch.arange(16).view(1, 4, 4) < 12
    recall = cases.operator("transform", "memory_recall", channels=3, exemplars=3).double()
    given = cases.piece(torch.zeros(1, 3, 4, 4, dtype=torch.float64), torch.from_numpy(teacher), weights.double())
    recall(given, Training)
    want = sorted(rows[rows.argmax(1) == cluster].mean(0).tolist() for cluster in range(3))
    np.testing.assert_allclose(sorted(recall.exemplars[0].tolist()), want, rtol=1e-9)
    np.testing.assert_allclose(recall.variance_L[0].item(), rows.var(0).mean(), rtol=1e-9)

    resumed = cases.operator("transform", "memory_recall", channels=3, exemplars=3).double()
    resumed.load_state_dict(recall.state_dict())
    resumed(cases.piece(given.student_SCHW, given.teacher_SCHW + 1), Training)
    assert torch.equal(resumed.exemplars[0], recall.exemplars[0]), "it began anew"


def test_a_memory_waits_for_a_batch_with_cells_that_count_and_takes_fewer_vectors_than_it_has_places():
    recall = cases.operator("transform", "memory_recall", channels=3, exemplars=4).double()
    before = recall.exemplars[0].detach().clone()
    sides = torch.from_numpy(STUDENT), torch.from_numpy(TEACHER)
    recall(cases.piece(*sides, torch.zeros(4, 2, 2, dtype=torch.float64)), Training)
    assert torch.equal(recall.exemplars[0], before)
    constant = torch.full_like(sides[1], 0.25) + 1e-8 * sides[1]  # up to rounding: its exemplars would stay equal
    recall(cases.piece(sides[0], constant), Training)
    assert torch.equal(recall.exemplars[0], before)
    recall(cases.piece(*sides), Training)
    assert not torch.equal(recall.exemplars[0], before)
    rows = torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    assert sorted(map(tuple, centers(rows, 4).tolist()))[0] == (1.0, 0.0)
    assert set(map(tuple, centers(rows, 4).tolist())) == {(1.0, 0.0), (5.0, 0.0)}


# ------------------------------------------------------------------------------------ spatial match


def matched(x_CHW, mask_HW, embeddings, shifts, reach, side):
    """(C, side, side), by loops over places and cells."""
    channels, height, width = x_CHW.shape
    out = np.zeros((channels, side, side))
    for i, j in np.ndindex(side, side):
        place = np.array([i + 0.5, j + 0.5]) + shifts[i * side + j]
        inside = [(r, c) for r, c in np.ndindex(height, width) if mask_HW[r, c]]
        logits = []
        for r, c in inside:
            cell = np.array([(r + 0.5) / height, (c + 0.5) / width]) * side
            logits.append(embeddings[i * side + j] @ x_CHW[:, r, c] / np.sqrt(channels)
                          - ((place - cell) ** 2).sum() / (2 * reach**2))  # fmt: skip
        shares = softmax(np.array(logits))
        out[:, i, j] = sum(share * x_CHW[:, r, c] for share, (r, c) in zip(shares, inside))
    return out


def test_spatial_match_reads_both_sides_at_one_grid_and_moves_the_students_places():
    student, teacher = RANDOM.normal(size=(2, 2, 3, 4, 5))
    mask = np.ones((2, 4, 5))
    mask[0, :, 3:] = 0
    match = cases.operator("transform", "spatial_match", channels=3, side=2).double()
    with torch.no_grad():
        match.embeddings[0].copy_(torch.from_numpy(RANDOM.normal(size=(4, 3))))
        match.shifts[0].copy_(torch.from_numpy(RANDOM.normal(size=(4, 2))))
        match.log_reaches[0].fill_(float(np.log(0.8)))
    changed = match(cases.piece(*map(torch.from_numpy, (student, teacher, mask))), cases.NO_INPUTS)
    embeddings, shifts = (part[0].detach().numpy() for part in (match.embeddings, match.shifts))
    for sample in range(2):
        for found, x, moves in ((changed.student_SCHW, student, shifts), (changed.teacher_SCHW, teacher, 0 * shifts)):
            want = matched(x[sample], mask[sample], embeddings, moves, 0.8, 2)
            np.testing.assert_allclose(found[sample].detach().numpy(), want, rtol=1e-9)
    assert not changed.teacher_SCHW.requires_grad
    changed.student_SCHW.sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in match.parameters())


def test_a_shifted_map_is_matched_when_the_places_have_learned_the_shift():
    teacher = RANDOM.normal(size=(1, 3, 12, 12))
    student = np.roll(teacher, 2, axis=3)
    match = cases.operator("transform", "spatial_match", channels=3, side=6).double()
    pair = cases.piece(torch.from_numpy(student), torch.from_numpy(teacher))
    inner = (..., slice(1, 4), slice(1, 4))

    def distance():
        changed = match(pair, cases.NO_INPUTS)
        return (changed.student_SCHW - changed.teacher_SCHW)[inner].abs().max().item()

    assert distance() > 0.1
    with torch.no_grad():
        match.shifts[0][:, 1] = 1.0  # two cells are one place
    assert distance() < 1e-2


# ------------------------------------------------------------------------------------- superpixels


def cut(x_CHW, mask_HW, side, compactness):
    """(H, W): the superpixel of each cell, by loops; -1 for cells that do not count."""
    height, width = mask_HW.shape
    cells = [cell for cell in np.ndindex(height, width) if mask_HW[cell]]
    vectors = {cell: x_CHW[:, cell[0], cell[1]] for cell in cells}
    places = {(r, c): np.array([r, c]) / side for r, c in cells}
    center = np.mean(list(vectors.values()), 0)
    variance = np.mean([((vector - center) ** 2).sum() for vector in vectors.values()])
    label = {(r, c): r // side * 1000 + c // side for r, c in cells}
    for _ in range(5):
        groups = {g: [cell for cell in cells if label[cell] == g] for g in sorted(set(label.values()))}
        means = {g: [np.mean([of[cell] for cell in group], 0) for of in (vectors, places)]
                 for g, group in groups.items()}  # fmt: skip
        label = {
            cell: min(means, key=lambda g: ((vectors[cell] - means[g][0]) ** 2).sum() / variance
                      + compactness * ((places[cell] - means[g][1]) ** 2).sum())
            for cell in cells
        }  # fmt: skip
    found = np.full((height, width), -1)
    for cell in cells:
        found[cell] = label[cell]
    return found


@pytest.mark.parametrize("compactness", [0.05, 2.0])
def test_superpixels_give_each_cell_the_mean_over_its_cluster_of_the_teachers_cells(compactness):
    student, teacher = RANDOM.normal(size=(2, 2, 3, 6, 7))
    mask = np.ones((2, 6, 7))
    mask[0, :, 5:] = 0
    transform = cases.operator("transform", "superpixels", side=2, compactness=compactness)
    changed = transform(cases.piece(*map(torch.from_numpy, (student, teacher, mask))), cases.NO_INPUTS)
    for sample in range(2):
        label = cut(teacher[sample], mask[sample], 2, compactness)
        assert len(set(label[label >= 0])) > 1
        for found, x in ((changed.student_SCHW, student), (changed.teacher_SCHW, teacher)):
            for cell in zip(*np.nonzero(label >= 0)):
                want = x[sample][:, label == label[cell]].mean(1)
                np.testing.assert_allclose(found[sample][:, cell[0], cell[1]], want, rtol=1e-9, atol=1e-12)


def test_superpixels_follow_the_borders_of_the_teachers_map():
    teacher = np.zeros((1, 3, 8, 8))
    teacher[:, 0, :, 5:] = 6.0  # the border lies within the second column of seeds
    student = RANDOM.normal(size=teacher.shape)
    transform = cases.operator("transform", "superpixels", side=4, compactness=0.01)
    changed = transform(cases.piece(torch.from_numpy(student), torch.from_numpy(teacher)), cases.NO_INPUTS)
    np.testing.assert_allclose(changed.teacher_SCHW, teacher, atol=1e-12)


# ------------------------------------------------------------------------------- weights of regions


def disparity_shares(student_SX, teacher_SX, sign):
    """n softmax(sign * disparity), by loops."""
    disparities = []
    for s, t in zip(student_SX, teacher_SX):
        codes = zip(s, t, teacher_SX.var(0))
        disparities.append(np.mean([(a - b) ** 2 / (2 * variance) for a, b, variance in codes]))
    return len(disparities) * softmax(sign * np.array(disparities))


@pytest.mark.parametrize(("prefers", "sign"), [(1, -1), (2, 1)])
def test_regions_count_by_the_divergence_of_their_gaussian_codes(prefers, sign):
    student, teacher = (cases.outputs(seed=seed, dtype=torch.float64) for seed in (0, 1))
    plain, pair = (source_pairs("instance", student, teacher, cases.OF_ALL_CLASSES, size=2, region_weights=weights)[0]
                   for weights in (0, prefers))  # fmt: skip
    is_there = pair.instances.present_S.numpy()
    codes = [x.detach().numpy().mean((2, 3))[is_there] for x in (plain.student_SCHW, plain.teacher_SCHW)]
    want = np.zeros(len(is_there))
    want[is_there] = disparity_shares(*codes, sign)
    assert want[is_there].min() > 1e-3
    for row, column in np.ndindex(2, 2):
        np.testing.assert_allclose(pair.weights_SHW[:, row, column], want, rtol=1e-6)
    np.testing.assert_array_equal(pair.student_SCHW.detach(), plain.student_SCHW.detach())


def test_regions_where_both_sides_agree_count_equally_and_weights_have_no_gradient():
    student = torch.from_numpy(STUDENT[:, :, 0, 0]).requires_grad_()
    counts = torch.tensor([1, 1, 0, 1])
    np.testing.assert_allclose(disparity_weights(student, student.detach(), counts, 1), counts, rtol=1e-9)
    assert not disparity_weights(student, student.detach() + 1, counts, 2).requires_grad
    assert disparity_weights(student, 2 * student.detach(), torch.zeros(4), 1).abs().sum() == 0
    far = torch.tensor([[0.0], [0.0], [900.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    assert (disparity_weights(*far, torch.ones(3), 1) >= 1e-3).all(), "a region is lost"


@pytest.mark.parametrize("name", ["semantic_guided", "positive_logits"])
def test_other_regions_and_candidates_count_by_disparity_too(name):
    student, teacher = (cases.outputs(seed=seed) for seed in (0, 1))
    pair = source_pairs(name, student, teacher, region_weights=1)[0]
    sides = [x.detach().numpy() for x in (pair.student_SCHW, pair.teacher_SCHW)]
    if name == "semantic_guided":
        codes, found = [x.mean((2, 3)) for x in sides], pair.weights_SHW[:, 0, 0].numpy()
        counts = pair.instances.present_S.numpy()
    else:
        codes = [x[:, :, 0].transpose(0, 2, 1).reshape(-1, x.shape[1]) for x in sides]
        found, counts = pair.weights_SHW.flatten().numpy(), pair.labels_SHW.flatten().numpy() >= 0
    assert counts.sum() > 1
    want = np.maximum(disparity_shares(*(code[counts] for code in codes), -1), 1e-3)
    np.testing.assert_allclose(found[counts], want, rtol=1e-4)
    assert not found[~counts].any()


def test_calibrated_logits_are_softened_ground_truth_where_the_teacher_misses_the_class():
    logits = torch.tensor([[[2.0, -1.0, 0.5], [-2.0, 1.0, 0.0], [-3.0, -3.0, 0.1]]], dtype=torch.float64)
    found = calibrated(logits, torch.tensor([[0, 0, -1]]), 0.5)
    other = np.log(0.05 / 0.95)
    np.testing.assert_allclose(found[0, 1], [np.log(0.9 / 0.1), other, other], rtol=1e-9)
    assert torch.equal(found[0, ::2], logits[0, ::2]), "a sure one, and one without an object"
    assert torch.equal(calibrated(logits[..., :1], torch.tensor([[0, 0, -1]]), 1e-6), logits[..., :1])

    student, teacher = (cases.outputs(seed=seed) for seed in (0, 1))
    plain, changed = (source_pairs("positive_logits", student, teacher, calibrated=least)[0] for least in (0.0, 0.5))
    want = calibrated(plain.teacher_SCHW[:, :, 0].transpose(1, 2), plain.labels_SHW[:, 0], 0.5)
    assert torch.equal(changed.teacher_SCHW[:, :, 0].transpose(1, 2), want)
    assert not torch.equal(changed.teacher_SCHW, plain.teacher_SCHW)
    assert torch.equal(changed.student_SCHW, plain.student_SCHW)


def test_balanced_regions_give_objects_false_positives_and_background_their_sums():
    targets = cases.boxes([[16, 16, 48, 48]])
    student, teacher = (cases.outputs(num_images=1, seed=seed) for seed in (0, 1))
    logits, boxes = torch.full((1, 5, 3), -9.0), torch.zeros(1, 5, 4)
    boxes[0] = torch.tensor([[64, 16, 96, 32], [17, 17, 48, 48], [0, 64, 16, 80], [40, 40, 72, 56], [96, 64, 128, 96]])
    logits[0, :4, 1] = torch.tensor([2.0, 3.0, -2.0, 1.0])  # false, right, too unsure, false and partly on the object
    student = replace(student, class_logits=logits, boxes=boxes)
    pair = source_pairs("balanced_regions", student, teacher, targets, false_positives=2.0, background=0.25,
                        least_score=0.3)[0]  # fmt: skip
    want = np.zeros((12, 16))
    scores = 1 / (1 + np.exp([-2.0, -1.0]))
    for (rows, columns), score in zip(((slice(2, 4), slice(8, 12)), (slice(5, 7), slice(5, 9))), scores):
        want[rows, columns] = 2.0 * score / 8
    want[want == 0] = 0.25 / (12 * 16 - 16 - 8 - 7)
    want[2:6, 2:6] = 1 / 16
    np.testing.assert_allclose(pair.weights_SHW[0], want, rtol=1e-6)
    np.testing.assert_array_equal(pair.student_SCHW.detach(), student.pyramid["p3"].detach())


GOLDEN = {"affinity", "foreground_to_background", "memory_recall", "spatial_match", "superpixels", "balanced_regions"}
