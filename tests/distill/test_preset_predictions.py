"""Presets of predictions equal their published formulas, computed by NumPy with loops over candidates of all levels.

Positives are candidates whose box, by the teacher, has IoU >= 0.5 to an object; where published sums are divided by a
detector's own number of positives, the presets divide by the sum of the teacher's top probabilities (see the presets).

Legend: B images, A candidate boxes of an image, K classes, E bins of an edge, P positive candidates.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from autokd.distill import build_distiller
from autokd.errors import DistillError
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Step
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import (
    crossed,
    decoupled,
    expected_labels,
    generalized,
    huber,
    intersection_over_union,
    labeled_targets,
    numbers,
    region_cells,
    sigmoid,
    softmax,
)

NAMES = ("kd", "dkd", "dist", "bckd", "ld", "crosskd", "mlkd")


class Pair:
    """A student and a teacher of three levels, objects at some of the teacher's boxes, and all of it as float64."""

    def __init__(self, num_images: int) -> None:
        self.student, self.teacher = (cases.outputs(num_images=num_images, seed=seed) for seed in (0, 1))
        self.targets = labeled_targets(self.teacher)
        self.labels_BA = expected_labels(self.teacher, self.targets)
        self.logits = numbers(self.student.class_logits, self.teacher.class_logits)
        self.boxes = numbers(self.student.boxes, self.teacher.boxes)
        self.edges = numbers(self.student.edge_logits, self.teacher.edge_logits)
        self.top_BA = sigmoid(self.logits[1]).max(-1)
        self.positives = list(zip(*np.nonzero(self.labels_BA >= 0)))
        assert 3 < len(self.positives) < self.labels_BA.size

    def value(self, name: str) -> float:
        distiller = build_distiller(load_preset(name), self.student, self.teacher, num_classes=3)
        return distiller(self.student, self.teacher, self.targets).total.item()

    def positive_logits(self):
        return [np.stack([logits[b, a] for b, a in self.positives]) for logits in self.logits]


@pytest.fixture(params=[1, 3])
def pair(request) -> Pair:
    return Pair(request.param)


def kl(teacher, student):
    return (teacher * np.log(teacher / student)).sum()


def test_kd_is_the_divergence_of_softened_classes_a_mean_over_the_positives_of_each_level(pair):
    """LDHead's loss_kd: T^2 times the mean over classes, mean over a level's positives, summed over the levels."""
    cells = [height * width for (height, width), _ in cases.LEVELS.values()]
    level_of = np.repeat(np.arange(3), cells)
    gaps = {level: [] for level in range(3)}
    for b, a in pair.positives:
        p, q = (softmax(side[b, a] / 2) for side in pair.logits[::-1])
        gaps[level_of[a]].append(2**2 * (p * np.log(p / q)).mean())
    assert sum(map(bool, gaps.values())) > 1
    want = 10 * sum(np.mean(of_level) for of_level in gaps.values() if of_level)
    assert pair.value("kd") == pytest.approx(want, rel=1e-5)


def test_candidates_in_no_order_of_cells_are_one_level(pair):
    """Queries, or anchors whose number differs from level to level."""
    fewer = [
        replace(x, class_logits=x.class_logits[:, :-1], boxes=x.boxes[:, :-1]) for x in (pair.student, pair.teacher)
    ]
    found = [
        build_distiller(DistillerSpec.from_yaml(KD % by_level), *fewer, num_classes=3)(*fewer, pair.targets).total
        for by_level in (0, 1)
    ]
    assert found[0] == found[1] > 0


KD = """
terms:
- source: {positive_logits: {by_level: %d}}
  transforms: [softmax_channels]
  distance: kl
  weight: {absolute: 1}
"""


def test_dkd_is_alpha_target_against_rest_and_beta_among_the_rest(pair):
    gaps = [
        decoupled(pair.logits[0][b, a], pair.logits[1][b, a], pair.labels_BA[b, a], alpha=1, beta=0.25, temperature=1)
        for b, a in pair.positives
    ]
    assert pair.value("dkd") == pytest.approx(np.mean(gaps), rel=1e-5)


def test_dist_is_one_minus_the_correlations_of_rows_and_of_columns(pair):
    student, teacher = (np.stack([softmax(row) for row in x]) for x in pair.positive_logits())
    rows = [np.corrcoef(s, t)[0, 1] for s, t in zip(student, teacher)]
    columns = [np.corrcoef(s, t)[0, 1] for s, t in zip(student.T, teacher.T)]
    assert pair.value("dist") == pytest.approx((1 - np.mean(rows)) + (1 - np.mean(columns)), rel=1e-5)


def focal(student, teacher):
    p, q = sigmoid(teacher), sigmoid(student)
    return (abs(p - q) * -(p * np.log(q) + (1 - p) * np.log(1 - q))).sum()


def test_bckd_is_binary_cross_entropy_by_disagreement_and_overlap_by_the_teachers_score(pair):
    everyone = list(np.ndindex(*pair.labels_BA.shape))
    classes = sum(focal(pair.logits[0][b, a], pair.logits[1][b, a]) for b, a in everyone)
    boxes = sum(
        pair.top_BA[b, a] * (1 - intersection_over_union(pair.boxes[0][b, a], pair.boxes[1][b, a])[0])
        for b, a in everyone
    )
    assert pair.value("bckd") == pytest.approx((1 * classes + 4 * boxes) / pair.top_BA.sum(), rel=1e-5)


def test_ld_is_the_divergence_of_edges_of_positive_candidates_by_the_teachers_score(pair):
    """LDHead: 0.25 * sum over positives and edges of w KL / 4, KL a mean over the bins; no division by positives."""
    student, teacher = pair.edges
    total = 0.0
    for b, a in pair.positives:
        for edge in range(4):
            p, q = softmax(teacher[b, a, edge] / 10), softmax(student[b, a, edge] / 10)
            total += pair.top_BA[b, a] * 10**2 * (p * np.log(p / q)).mean() / 4
    assert pair.value("ld") == pytest.approx(0.25 * total, rel=2e-5)


def test_crosskd_compares_what_the_teachers_head_says_of_both(pair):
    logits, boxes = crossed(pair.student, pair.teacher)
    everyone = list(np.ndindex(*pair.labels_BA.shape))
    classes = sum(focal(logits[b, a], pair.logits[1][b, a]) for b, a in everyone)
    gaps = sum(pair.top_BA[b, a] * (1 - generalized(boxes[b, a], pair.boxes[1][b, a])) for b, a in everyone)
    assert pair.value("crosskd") == pytest.approx((classes + gaps) / pair.top_BA.sum(), rel=1e-4)


def test_mlkd_is_binary_divergence_and_the_distances_between_regions(pair):
    divergences = []
    for s, t in zip(*pair.positive_logits()):
        p, q = sigmoid(t), sigmoid(s)
        divergences.append((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum())
    structure = sum(region_structure(pair, level) for level in cases.LEVELS)
    assert pair.value("mlkd") == pytest.approx(10 * np.mean(divergences) + 100 * structure, rel=1e-4)


def region_structure(pair: Pair, level: str) -> float:
    """Huber between the distances of region vectors over their mean; the sum over ordered pairs by the regions."""
    boxes = [(image, box) for image, target in enumerate(pair.targets) for box in target["boxes"]]
    lengths = []
    for outputs in (pair.student, pair.teacher):
        map_BCHW = outputs.pyramid[level].detach().double().numpy()
        vectors = [region_cells(map_BCHW[b], box, outputs.strides[level], 1).ravel() for b, box in boxes]
        length = [np.linalg.norm(x - y) for i, x in enumerate(vectors) for j, y in enumerate(vectors) if i != j]
        lengths.append(np.array(length) / np.mean(length))
    return sum(huber(s - t) for s, t in zip(*lengths)) / len(boxes)


@pytest.mark.parametrize("name", NAMES)
def test_preset_of_predictions_without_any_object_is_finite_and_zero_where_it_looks_at_positives_alone(name):
    student, teacher = (cases.outputs(seed=seed) for seed in (0, 1))
    distiller = build_distiller(load_preset(name), student, teacher, num_classes=3)
    total = distiller(student, teacher, cases.boxes([], [])).total
    total.backward()
    assert total.isfinite()
    assert (total == 0) == (name not in ("bckd", "crosskd"))
    found = [x.grad for x in student.pyramid.values() if x.grad is not None]
    assert found
    assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize("name", NAMES)
def test_preset_of_predictions_says_at_build_what_a_two_stage_student_lacks(name):
    student = replace(cases.outputs(), class_logits=None, boxes=None, edge_logits=None, head_maps=None, head=None)
    lacks = "the student's head_maps" if name == "crosskd" else "the student's class_logits"
    with pytest.raises(DistillError, match=lacks):
        build_distiller(load_preset(name), student, cases.outputs(seed=1), num_classes=3)


def test_dist_and_kd_equal_torchdistills(pair):
    losses = pytest.importorskip("torchdistill.losses.mid_level", reason="torchdistill is not installed")
    student, teacher = ({"logits": {"output": torch.from_numpy(x)}} for x in pair.positive_logits())
    paths = ("logits", "output", "logits", "output")
    assert pair.value("dist") == pytest.approx(losses.DISTLoss(*paths)(student, teacher).item(), rel=1e-5)
    softened = losses.KDLoss(*paths, temperature=2.0, alpha=0.0)(student, teacher)
    spec = DistillerSpec.from_yaml(KD % 0)
    spec = replace(spec, terms=(replace(spec.terms[0], transforms=(Step.of("softmax_channels", temperature=2),)),))
    found = build_distiller(spec, pair.student, pair.teacher, num_classes=3)(pair.student, pair.teacher, pair.targets)
    assert found.total.item() == pytest.approx(2**2 * softened.item(), rel=1e-5)
