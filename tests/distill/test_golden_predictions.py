"""Sources and distances of predictions against NumPy written from their formulas, in float64, with loops.

Legend: B images, A candidate boxes of an image, K classes, E bins of an edge, S samples, C channels, H x W cells.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from autokd.config import Backbone, TorchvisionDetector
from autokd.detector_outputs import TAPS, DetectorOutputs
from autokd.detectors import build_detector
from autokd.distill import build_distiller
from autokd.distill.operators import BuildContext, make_operator
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError
from autokd.spec import DistillerSpec, Step, Weight
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import (
    crossed,
    decoupled,
    expected_labels,
    generalized,
    intersection_over_union,
    labeled_targets,
    numbers,
    sigmoid,
    softmax,
)

GOLDEN = {
    "class_logits",
    "positive_logits",
    "localization",
    "localization_distribution",
    "crossed_logits",
    "crossed_boxes",
    "binary_cross_entropy",
    "binary_kl",
    "decoupled_kl",
    "iou",
    "giou",
}

RANDOM = np.random.default_rng(3)
STUDENT, TEACHER = 2 * RANDOM.normal(size=(2, 3, 4, 1, 9))
WEIGHTS = {"everywhere": None, "weighted": RANDOM.random((3, 1, 9)) * (RANDOM.random((3, 1, 9)) < 0.6)}
LABELS = RANDOM.integers(-1, 4, size=(3, 1, 9))


def every(weights):
    return np.ones((3, 1, 9)) if weights is None else weights


def value_of(name, student, teacher, weights, layout, labels=None, **params) -> float:
    given = None if weights is None else torch.from_numpy(weights)
    piece = cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), given, layout)
    if labels is not None:
        piece = replace(piece, labels_SHW=torch.from_numpy(labels))
    return cases.operator("distance", name, **params)(piece, cases.NO_INPUTS).item()


# ---------------------------------------------------------------------------------------- distances


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("focus", [1.0, 2.5])
def test_binary_cross_entropy_is_weighted_by_disagreement_and_divided_by_the_teachers_top_probabilities(focus, weights):
    total = count = 0.0
    for s, w in np.ndindex(3, 9):
        weight = every(WEIGHTS[weights])[s, 0, w]
        count += weight * max(sigmoid(t) for t in TEACHER[s, :, 0, w])
        for c in range(4):
            p, q = sigmoid(TEACHER[s, c, 0, w]), sigmoid(STUDENT[s, c, 0, w])
            total += weight * abs(p - q) ** focus * -(p * np.log(q) + (1 - p) * np.log(1 - q))
    assert count > 1
    found = value_of("binary_cross_entropy", STUDENT, TEACHER, WEIGHTS[weights], "binary", focus=focus)
    np.testing.assert_allclose(found, total / count, rtol=1e-9)


def test_binary_cross_entropy_of_a_teacher_that_sees_nothing_is_divided_by_one():
    student, teacher = STUDENT[:, :, :, :1], TEACHER[:, :, :, :1] - 20
    p, q = sigmoid(teacher), sigmoid(student)
    want = (abs(p - q) * -(p * np.log(q) + (1 - p) * np.log(1 - q))).sum()
    np.testing.assert_allclose(value_of("binary_cross_entropy", student, teacher, None, "binary"), want, rtol=1e-9)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_kl"])
def test_binary_distances_make_up_for_the_temperature_by_its_square(name):
    softened = [torch.from_numpy(x) / 3 for x in (STUDENT, TEACHER)]
    piece = cases.piece(*softened, None, "binary")
    plain, warm = (
        cases.operator("distance", name)(replace(piece, temperature=temperature), cases.NO_INPUTS)
        for temperature in (1.0, 3.0)
    )
    assert warm.item() == pytest.approx(9 * plain.item())


def test_disagreement_in_binary_cross_entropy_is_a_factor_and_has_no_gradient_of_its_own():
    student = torch.from_numpy(STUDENT).requires_grad_()
    piece = cases.piece(student, torch.from_numpy(TEACHER), None, "binary")
    value = cases.operator("distance", "binary_cross_entropy")(piece, cases.NO_INPUTS)
    (found,) = torch.autograd.grad(value, student)
    p, q = sigmoid(TEACHER), sigmoid(STUDENT)
    np.testing.assert_allclose(found.numpy(), abs(p - q) * (q - p) / p.max(1).sum(), rtol=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_binary_kl_is_the_divergence_of_each_yes_or_no_summed_over_classes(weights):
    given, total = every(WEIGHTS[weights]), 0.0
    for s, c, w in np.ndindex(3, 4, 9):
        p, q = sigmoid(TEACHER[s, c, 0, w]), sigmoid(STUDENT[s, c, 0, w])
        total += given[s, 0, w] * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    found = value_of("binary_kl", STUDENT, TEACHER, WEIGHTS[weights], "binary")
    np.testing.assert_allclose(found, total / given.sum(), rtol=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_decoupled_kl_weighs_target_and_rest_apart_over_candidates_with_a_label(weights):
    given, total, count = every(WEIGHTS[weights]), 0.0, 0.0
    for s, w in np.ndindex(3, 9):
        if LABELS[s, 0, w] >= 0:
            count += given[s, 0, w]
            pair = STUDENT[s, :, 0, w], TEACHER[s, :, 0, w]
            total += given[s, 0, w] * decoupled(*pair, LABELS[s, 0, w], alpha=0.7, beta=3.0, temperature=2.0)
    found = value_of(
        "decoupled_kl", STUDENT, TEACHER, WEIGHTS[weights], "logits", LABELS, alpha=0.7, beta=3.0, temperature=2.0
    )
    np.testing.assert_allclose(found, total / count, rtol=1e-9)


def test_decoupled_kl_takes_the_teachers_likeliest_class_where_there_are_no_labels():
    wants = [
        decoupled(STUDENT[s, :, 0, w], TEACHER[s, :, 0, w], TEACHER[s, :, 0, w].argmax(), 1, 8, 4)
        for s, w in np.ndindex(3, 9)
    ]
    piece = cases.piece(torch.from_numpy(STUDENT), torch.from_numpy(TEACHER), None, "logits")
    found = cases.operator("distance", "decoupled_kl")(replace(piece, labels_SHW=None), cases.NO_INPUTS)
    np.testing.assert_allclose(found.item(), np.mean(wants), rtol=1e-9)


def test_decoupled_kl_with_alpha_1_and_beta_1_minus_the_targets_probability_is_the_ordinary_kl():
    """DKD, eq. 6: KL = KL of target and rest + (1 - p_target) KL among the rest, for a single candidate."""
    student, teacher = STUDENT[:1, :, :, :1], TEACHER[:1, :, :, :1]
    p, q = softmax(teacher[0, :, 0, 0]), softmax(student[0, :, 0, 0])
    found = value_of("decoupled_kl", student, teacher, None, "logits", np.array([[[2]]]), alpha=1, beta=1 - p[2],
                     temperature=1)  # fmt: skip
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(), rtol=1e-9)


def test_decoupled_kl_without_labels_that_count_is_zero_and_connected():
    student = torch.from_numpy(STUDENT).requires_grad_()
    piece = cases.piece(student, torch.from_numpy(TEACHER), None, "logits")
    distance = cases.operator("distance", "decoupled_kl")
    value = distance(replace(piece, labels_SHW=torch.full((3, 1, 9), -1)), cases.NO_INPUTS)
    assert value == 0
    assert not torch.autograd.grad(value, student)[0].any()


BOX_FORMULAS = {"iou": lambda a, b: intersection_over_union(a, b)[0], "giou": generalized}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", BOX_FORMULAS)
def test_distance_between_boxes_equals_its_formula(name, weights):
    corner, sides = RANDOM.random((2, 3, 2, 1, 9)) * 10, RANDOM.random((2, 3, 2, 1, 9)) * 8 + 1
    student, teacher = np.concatenate([corner, corner + sides], axis=2)
    given, total = every(WEIGHTS[weights]), 0.0
    for s, w in np.ndindex(3, 9):
        total += given[s, 0, w] * (1 - BOX_FORMULAS[name](student[s, :, 0, w], teacher[s, :, 0, w]))
    found = value_of(name, student, teacher, WEIGHTS[weights], "boxes")
    np.testing.assert_allclose(found, total / given.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("student", "teacher", "iou", "giou"),
    [
        ([0, 0, 4, 4], [2, 0, 6, 4], 2 / 3, 2 / 3),
        ([0, 0, 2, 2], [4, 0, 6, 2], 1.0, 4 / 3),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0.0, 0.0),
        ([3, 3, 1, 1], [0, 0, 4, 4], 1.0, 1.0),
        ([0, 0, 0, 0], [1, 0, 3, 2], 1.0, 4 / 3),
    ],
)
def test_distances_between_boxes_by_hand_also_without_area(student, teacher, iou, giou):
    pair = [torch.tensor(box, dtype=torch.float64).view(1, 4, 1, 1) for box in (student, teacher)]
    pair[0].requires_grad_()
    for name, want in (("iou", iou), ("giou", giou)):
        value = cases.operator("distance", name)(cases.piece(*pair, None, "boxes"), cases.NO_INPUTS)
        assert value.item() == pytest.approx(want)
        assert torch.autograd.grad(value, pair[0])[0].isfinite().all()


# ------------------------------------------------------------------------------------------ sources


def source_of(name: str, student: DetectorOutputs, teacher: DetectorOutputs):
    context = BuildContext((), cases.NUM_CLASSES, student, teacher)
    return make_operator("source", Step.of(name), context)


def piece_of(name: str, student: DetectorOutputs, teacher: DetectorOutputs, targets):
    (piece,) = source_of(name, student, teacher)(TermInputs(student, teacher, targets, (), torch.nn.ModuleList()))
    return piece


PAIR = cases.outputs(seed=0), cases.outputs(seed=1)


def test_class_logits_are_all_candidates_of_both_sides():
    piece = piece_of("class_logits", *PAIR, None)
    for found, outputs in zip((piece.student_SCHW, piece.teacher_SCHW), PAIR):
        assert torch.equal(found[:, :, 0].transpose(1, 2), outputs.class_logits)
    assert piece.weights_SHW is None


def test_positive_logits_are_those_whose_teachers_box_overlaps_an_object_by_half():
    targets = labeled_targets(PAIR[1])
    want = expected_labels(PAIR[1], targets)
    assert set(want.flatten()) == {-1, 0, 1, 2}
    piece = piece_of("positive_logits", *PAIR, targets)
    for image in range(2):
        indices = np.nonzero(want[image] >= 0)[0]
        count = len(indices)
        labels, weights = piece.labels_SHW[image, 0], piece.weights_SHW[image, 0]
        assert labels.tolist() == [*want[image, indices], *[-1] * (len(labels) - count)]
        assert weights.tolist() == [1] * count + [0] * (len(weights) - count)
        for found, outputs in zip((piece.student_SCHW, piece.teacher_SCHW), PAIR):
            assert torch.equal(found[image, :, 0, :count].T, outputs.class_logits[image, indices])


def test_localization_weighs_the_boxes_by_the_teachers_top_probability():
    piece = piece_of("localization", *PAIR, None)
    (logits_BAK,) = numbers(PAIR[1].class_logits)
    np.testing.assert_allclose(piece.weights_SHW[:, 0].numpy(), sigmoid(logits_BAK).max(-1), rtol=1e-6)
    for found, outputs in zip((piece.student_SCHW, piece.teacher_SCHW), PAIR):
        assert torch.equal(found[:, :, 0].transpose(1, 2), outputs.boxes)


def test_edges_are_cells_whose_channels_are_bins_weighted_on_positive_candidates_alone():
    targets = labeled_targets(PAIR[1])
    piece = piece_of("localization_distribution", *PAIR, targets)
    edges_s, edges_t, logits_BAK = numbers(PAIR[0].edge_logits, PAIR[1].edge_logits, PAIR[1].class_logits)
    labels = expected_labels(PAIR[1], targets)
    student, teacher, weights = numbers(piece.student_SCHW, piece.teacher_SCHW, piece.weights_SHW)
    for b in range(2):
        cell = 0
        for a in np.nonzero(labels[b] >= 0)[0]:
            for edge in range(4):
                np.testing.assert_array_equal(student[b, :, 0, cell], edges_s[b, a, edge])
                np.testing.assert_array_equal(teacher[b, :, 0, cell], edges_t[b, a, edge])
                assert weights[b, 0, cell] == pytest.approx(sigmoid(logits_BAK[b, a].max()), rel=1e-6)
                cell += 1
        assert cell > 4
        assert not weights[b, 0, cell:].any()


def test_crossed_predictions_are_those_of_the_teachers_head_for_the_students_aligned_maps():
    want_logits, want_boxes = crossed(*PAIR)
    logits, boxes = (piece_of(name, *PAIR, None) for name in ("crossed_logits", "crossed_boxes"))
    found = numbers(logits.student_SCHW, boxes.student_SCHW)
    np.testing.assert_allclose(found[0][:, :, 0].transpose(0, 2, 1), want_logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1][:, :, 0].transpose(0, 2, 1), want_boxes, rtol=1e-4, atol=1e-3)
    assert torch.equal(logits.teacher_SCHW[:, :, 0].transpose(1, 2), PAIR[1].class_logits)
    assert torch.equal(boxes.teacher_SCHW[:, :, 0].transpose(1, 2), PAIR[1].boxes)
    top = sigmoid(numbers(PAIR[1].class_logits)[0]).max(-1)
    np.testing.assert_allclose(boxes.weights_SHW[:, 0].numpy(), top, rtol=1e-6)


# ------------------------------------------------------------------------------------- pairs that differ


@pytest.mark.parametrize("source", ["class_logits", "positive_logits", "localization", "localization_distribution"])
def test_predictions_that_cannot_be_paired_are_refused_at_build_with_both_shapes(source):
    student, teacher = PAIR
    fewer = {name: getattr(teacher, name)[:, :-5] for name in ("class_logits", "boxes", "edge_logits")}
    with pytest.raises(DistillError, match=r"\(252, .*\(247, "):
        source_of(source, student, replace(teacher, **fewer))


def test_other_classes_are_refused_at_build_by_class_logits_but_not_by_crossing():
    student, teacher = PAIR
    other = replace(student, class_logits=student.class_logits[..., :2])
    with pytest.raises(DistillError, match=r"\(252, 2\).*\(252, 3\)"):
        source_of("class_logits", other, teacher)
    assert piece_of("crossed_logits", other, teacher, None).student_SCHW.shape == (2, 3, 1, 252)


def test_crossing_refuses_a_student_whose_head_looks_at_other_strides():
    levels = {name: cases.LEVELS[name] for name in ("p3", "p4")}
    with pytest.raises(DistillError, match=r"strides \[8, 16\].*\[8, 16, 32\]"):
        source_of("crossed_logits", cases.outputs(levels=levels), PAIR[1])


def test_crossing_refuses_maps_of_another_size():
    larger = cases.outputs(levels={name: ((2 * h, 2 * w), stride) for name, ((h, w), stride) in cases.LEVELS.items()})
    with pytest.raises(DistillError, match=r"\(2, 6, 24, 32\).*\(2, 6, 12, 16\)"):
        piece_of("crossed_boxes", larger, PAIR[1], None)


def test_crossing_pairs_levels_by_stride_whatever_their_names():
    student, teacher = PAIR
    renamed = replace(
        student,
        pyramid={f"fpn{name}": value for name, value in student.pyramid.items()},
        strides={f"fpn{name}": value for name, value in student.strides.items()},
        head_maps={f"fpn{name}": value for name, value in reversed(list(student.head_maps.items()))},
    )
    pieces = [piece_of("crossed_logits", outputs, teacher, None) for outputs in (student, renamed)]
    assert torch.equal(pieces[0].student_SCHW, pieces[1].student_SCHW)


def test_crossing_needs_no_exposed_maps_of_the_teacher_whose_taps_come_from_a_store():
    student, teacher = PAIR
    pieces = [piece_of("crossed_boxes", student, given, None) for given in (teacher, replace(teacher, head_maps=None))]
    assert torch.equal(pieces[0].student_SCHW, pieces[1].student_SCHW)


class TrainableHead(cases.TinyHead):
    """A head of parameters, frozen as the contract says."""

    def __init__(self, channels, strides):
        super().__init__(channels, strides)
        weight = torch.nn.Parameter(self.logits.clone(), requires_grad=False)
        del self.logits
        self.logits = weight


def test_crossing_shares_adapters_between_classes_and_boxes_and_trains_them_but_not_the_head():
    student, teacher = cases.outputs(5), cases.outputs(7, seed=1)
    teacher = replace(teacher, head=TrainableHead(7, teacher.strides))
    classes, boxes = (
        cases.spec_of(*form, Weight("absolute", 1.0)).terms
        for form in (("crossed_logits", [], "decoupled_kl"), ("crossed_boxes", [], "giou"))
    )
    distiller = build_distiller(DistillerSpec((*classes, *boxes)), student, teacher, num_classes=3)
    parameters = [value for name, value in distiller.named_parameters() if "crossing" in name]
    assert [tuple(p.shape) for p in parameters] == [(7, 5, 1, 1), (7,)] * 6
    distiller(student, teacher, cases.TARGETS).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    assert any(p.grad.abs().max() > 1e-6 for p in parameters)
    assert all(x.grad is not None and x.grad.any() for x in student.pyramid.values())
    assert all(x.grad is None for x in teacher.pyramid.values())
    assert teacher.head.logits.grad is None


@pytest.mark.parametrize("architecture", ["fcos", "retinanet"])
def test_crossing_a_detector_with_itself_gives_back_its_own_predictions(architecture):
    backbone = Backbone(blocks=(1, 1, 1, 1), width=4)
    detector = build_detector(TorchvisionDetector(architecture=architecture, backbone=backbone), 3, (64, 96)).eval()
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    outputs = detector(images, taps=TAPS)
    logits, boxes = (piece_of(name, outputs, outputs, None) for name in ("crossed_logits", "crossed_boxes"))
    torch.testing.assert_close(logits.student_SCHW, logits.teacher_SCHW, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(boxes.student_SCHW, boxes.teacher_SCHW, rtol=1e-3, atol=1e-2)
    boxes.student_SCHW.sum().backward()
    assert all(p.grad is None for p in outputs.head.parameters())
