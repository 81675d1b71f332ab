"""Matched queries and relative boxes against NumPy: the least sum of costs over all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.distill.query_matching import match_queries
from autokd.errors import DistillError
from autokd.spec import DistillerSpec

SIZE_PX, NUM_CLASSES = (80, 120), 3


def _predictions(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 70, (2, num, 2))
    boxes = np.concatenate([low, low + random.uniform(5, 45, low.shape)], -1)
    return random.normal(size=(2, num, NUM_CLASSES)) * 2, boxes


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _relative(box):
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return np.array([x / 120, y / 80, (box[2] - box[0]) / 120, (box[3] - box[1]) / 80])


def _giou(a, b):
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return common / union - (hull - union) / hull


def _cost(z_s, box_s, z_t, box_t):
    of_classes = np.abs(_sigmoid(z_s) - _sigmoid(z_t)).sum()
    return of_classes + 5 * np.abs(_relative(box_s) - _relative(box_t)).sum() + 2 * (1 - _giou(box_s, box_t))


def _best(student, teacher, image):
    """(student's row, teacher's row) pairs of the least sum, by trying all."""
    num_s, num_t = len(student[0][image]), len(teacher[0][image])
    costs = np.array([
        [_cost(student[0][image, s], student[1][image, s], teacher[0][image, t], teacher[1][image, t])
         for t in range(num_t)] for s in range(num_s)
    ])  # fmt: skip
    few, many = min(num_s, num_t), max(num_s, num_t)
    table = costs if num_s <= num_t else costs.T
    chosen = min(permutations(range(many), few), key=lambda p: sum(table[row, column] for row, column in enumerate(p)))
    pairs = [(row, column) if num_s <= num_t else (column, row) for row, column in enumerate(chosen)]
    return sorted(pairs, key=lambda pair: pair[1])


@pytest.mark.parametrize(("num_student", "num_teacher"), [(5, 5), (6, 3), (3, 6)])
def test_the_matching_has_the_least_sum_of_costs(num_student, num_teacher):
    student, teacher = _predictions(num_student, 0), _predictions(num_teacher, 1)
    tensors = [torch.from_numpy(x) for x in (*student, *teacher)]
    of_student, of_teacher = match_queries(*tensors, SIZE_PX)
    for image in range(2):
        found = list(zip(of_student[image].tolist(), of_teacher[image].tolist()))
        assert found == _best(student, teacher, image)


def _outputs(predictions, **taps) -> DetectorOutputs:
    logits, boxes = (torch.from_numpy(x).float() for x in predictions)
    pyramid = {"p3": torch.randn(2, 4, 10, 15, generator=torch.Generator().manual_seed(0))}
    return DetectorOutputs(pyramid, {"p3": 8}, class_logits=logits, boxes=boxes, image_size_px=SIZE_PX, **taps)


def _value(source: str, transforms: str, distance: str, student, teacher) -> float:
    text = f"schema: 2\nterms:\n- {{source: {source}, transforms: [{transforms}], distance: {distance}, "
    spec = DistillerSpec.from_yaml(text + "weight: {absolute: 1}}\n")
    return build_distiller(spec, student, teacher, NUM_CLASSES)(student, teacher, None).total.item()


def test_matched_sources_weigh_pairs_by_the_teachers_top_probability():
    student, teacher = _predictions(5, 0), _predictions(5, 1)
    sums = np.zeros(4)
    for image in range(2):
        for s, t in _best(student, teacher, image):
            z_s, z_t = student[0][image, s], teacher[0][image, t]
            box_s, box_t = student[1][image, s], teacher[1][image, t]
            weight = _sigmoid(z_t).max()
            of_classes = ((z_s - z_t) ** 2).mean()
            parts = [of_classes, 1 - _giou(box_s, box_t), np.abs(_relative(box_s) - _relative(box_t)).sum()]
            sums += np.array([weight, *(weight * part for part in parts)])
    outputs = _outputs(student), _outputs(teacher)
    assert _value("matched_logits", "", "l2", *outputs) == pytest.approx(sums[1] / sums[0], rel=1e-4)
    assert _value("matched_boxes", "", "giou", *outputs) == pytest.approx(sums[2] / sums[0], rel=1e-4)
    assert _value("matched_boxes", "", "box_l1", *outputs) == pytest.approx(sums[3] / sums[0], rel=1e-4)


def test_shared_sources_weigh_rows_by_the_teachers_top_probability():
    (z_s, box_s), (z_t, box_t) = _predictions(5, 0), _predictions(5, 1)
    weights = _sigmoid(z_t).max(-1)
    outputs = []
    for seed, answers in enumerate(((z_s, box_s), (z_t, box_t))):
        logits, boxes = (torch.from_numpy(x).float() for x in answers)
        outputs.append(_outputs(_predictions(3, seed), shared_logits=logits, shared_boxes=boxes))
    wanted = (weights * ((z_s - z_t) ** 2).mean(-1)).sum() / weights.sum()
    assert _value("shared_logits", "", "l2", *outputs) == pytest.approx(wanted, rel=1e-4)
    gaps = [[1 - _giou(a, b) for a, b in zip(*rows)] for rows in zip(box_s, box_t)]
    assert _value("shared_boxes", "", "giou", *outputs) == pytest.approx(
        (weights * np.array(gaps)).sum() / weights.sum(), rel=1e-4
    )


def test_every_layer_learns_the_edges_of_the_teachers_last_one():
    student, teacher = _predictions(4, 0), _predictions(4, 1)
    random = np.random.default_rng(2)
    layers, last = random.normal(size=(2, 3, 4, 4, 6)), random.normal(size=(2, 4, 4, 6))
    total, weight = 0.0, 0.0
    for image in range(2):
        for s, t in _best(student, teacher, image):
            p = np.exp(last[image, t]) / np.exp(last[image, t]).sum(-1, keepdims=True)
            q = np.exp(layers[image, :, s]) / np.exp(layers[image, :, s]).sum(-1, keepdims=True)
            divergences = (p * np.log(p / q)).sum(-1)  # (layers, edges)
            score = _sigmoid(teacher[0][image, t]).max()
            total, weight = total + score * divergences.sum(), weight + score * divergences.size
    outputs = (
        _outputs(student, layer_edge_logits=torch.from_numpy(layers).float()),
        _outputs(teacher, edge_logits=torch.from_numpy(last).float()),
    )
    found = _value("matched_edges", "{softmax_channels: {temperature: 1}}", "kl", *outputs)
    assert found == pytest.approx(total / weight, rel=1e-4)


GOLDEN = {"matched_logits", "matched_boxes", "matched_edges", "shared_logits", "shared_boxes", "box_l1"}
"""Rows of the vocabulary whose values are checked here."""


def test_edges_of_other_bins_are_refused():
    layers, last = torch.randn(2, 2, 5, 4, 6), torch.randn(2, 5, 4, 7)
    student = _outputs(_predictions(5, 0), layer_edge_logits=layers)
    teacher = _outputs(_predictions(5, 1), edge_logits=last)
    with pytest.raises(DistillError, match="6 bins in the student and 7 in the teacher"):
        _value("matched_edges", "softmax_channels", "kl", student, teacher)
