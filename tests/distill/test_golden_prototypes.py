"""Reliability, robust imitation and alignment against NumPy, from the published formulas, with loops.

Legend: C channels, P prototypes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from autokd.distill import build_distiller
from autokd.distill.prototype_bank import INSTANCES_OF_A_CLASS, InstanceVectors, PrototypeBank
from autokd.spec import DistillerSpec, Weight
from tests.support import distill_cases as cases

GOLDEN = {"reliable_foreground", "prototypes", "reliable_logits", "l2_vectors"}
RANDOM = np.random.default_rng(3)
STRIDES = [8, 16, 32]
LABELED = [
    {"boxes": torch.tensor([[10.0, 8, 70, 60], [60, 50, 120, 90]]), "labels": torch.tensor([0, 1])},
    {"boxes": torch.tensor([[20.0, 20, 100, 80]]), "labels": torch.tensor([0])},
]
"""All of the level p3: their sizes are below 112 px."""


def cosine(x, y):
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def vectors_by_hand(outputs):
    """The mean of a 7 x 7 RoIAlign on p3, instance by instance."""
    found = []
    for image, target in enumerate(LABELED):
        for box in target["boxes"]:
            roi = torch.tensor([[image, *box.tolist()]], dtype=torch.float64)
            pooled = torchvision.ops.roi_align(
                outputs.pyramid["p3"].detach().double(), roi, 7, 1 / 8, sampling_ratio=2, aligned=True
            )
            found.append(pooled.mean((2, 3))[0].numpy())
    return found


def reliability_by_hand(student, teacher, labels, prototypes_s, prototypes_t, prototype_labels):
    """Section 3.2: q = greatest cosine to the prototypes of the own class, r = 1 - |q_S - q_T|."""
    found = []
    for s, t, label in zip(student, teacher, labels):
        own = [i for i, other in enumerate(prototype_labels) if other == label]
        q_s, q_t = (max((cosine(x, p[i]) for i in own), default=0.0) for x, p in ((s, prototypes_s), (t, prototypes_t)))
        found.append(1 - abs(q_s - q_t))
    return found


OWN_LEVEL = """
terms:
- {source: reliable_foreground, distance: l2_vectors, weight: {absolute: 0.5, schedule: linear_decay}}
- {source: background, distance: l2_vectors, weight: {absolute: 2, schedule: linear_decay}}
- {source: prototypes, distance: smooth_l1, weight: {absolute: 5, schedule: linear_decay}}
"""
"""Sources and distances as they are by default: each instance on the level of its size, boxes on every level. The
preset, which has the released rules, is in test_preset_global_knowledge."""
LABELS = """
terms:
- source: reliable_logits
  transforms: [{softmax_channels: {temperature: 2}}]
  distance: kl
  weight: {absolute: 1}
"""


def trained_distiller(pair, text=OWN_LEVEL):
    """One that has seen an epoch of other images, so that its prototypes are no instances of the batch."""
    distiller = build_distiller(DistillerSpec.from_yaml(text), *pair, num_classes=3)
    distiller.begin_epoch(1, 2, 4)
    for seed in range(4):
        shown = cases.outputs(6, seed=10 + seed), cases.outputs(5, seed=20 + seed)
        distiller(*shown, LABELED)
    distiller.begin_epoch(2, 2, 4)
    (bank,) = {part for part in distiller.modules() if isinstance(part, PrototypeBank)}
    return distiller, bank


def test_imitation_and_alignment_by_reliability_equal_the_papers_losses():
    pair = cases.outputs(6), cases.outputs(5, seed=1)
    distiller, bank = trained_distiller(pair)
    kept = bank.chosen
    assert kept is not None
    prototypes_s, prototypes_t = kept.student_PC.double().numpy(), kept.teacher_PC.double().numpy()
    labels = [0, 1, 0]
    x_s, x_t = (vectors_by_hand(outputs) for outputs in pair)
    r = reliability_by_hand(x_s, x_t, labels, prototypes_s, prototypes_t, kept.labels_P.tolist())
    assert len({round(value, 3) for value in r}) == 3, "the instances differ in reliability"

    gaps = []
    for i in range(3):
        for j in range(len(prototypes_s)):
            gap = r[i] * cosine(x_s[i], prototypes_s[j]) - r[i] * cosine(x_t[i], prototypes_t[j])
            gaps.append(0.5 * gap**2 if abs(gap) < 1 else abs(gap) - 0.5)
    alignment = 5 * np.mean(gaps)

    local = 0.0
    for level, (name, stride) in enumerate(zip(pair[0].pyramid, STRIDES)):
        student = distiller.adapters[level](pair[0].pyramid[name]).detach().double().numpy()
        teacher = pair[1].pyramid[name].detach().double().numpy()
        weights = np.zeros((2, *student.shape[-2:]))
        outside = np.ones_like(weights)
        index = 0
        for image, target in enumerate(LABELED):
            for x1, y1, x2, y2 in (target["boxes"] / stride).tolist():
                for row in range(weights.shape[1]):
                    for column in range(weights.shape[2]):
                        in_rows = y1 <= row + 0.5 < y2 or row <= (y1 + y2) / 2 < row + 1
                        in_columns = x1 <= column + 0.5 < x2 or column <= (x1 + x2) / 2 < column + 1
                        if in_rows and in_columns:
                            weights[image, row, column] = max(weights[image, row, column], r[index])
                            outside[image, row, column] = 0
                index += 1
        squares = ((student - teacher) ** 2).sum(1)
        local += (weights * squares).sum() / max(1, 2 * weights.sum())
        local += 4 * (outside * squares).sum() / max(1, 2 * outside.sum())

    found = distiller.eval()(*pair, LABELED)
    half = 0.5  # the second of two epochs has just begun
    assert found.total.item() == pytest.approx(half * (alignment + local), rel=1e-5)
    (value,) = [v.weighted.item() for name, v in found.terms.items() if name.startswith("prototypes")]
    assert value == pytest.approx(half * alignment, rel=1e-5)


def test_soft_labels_are_weighted_by_the_reliability_of_their_object():
    """KL at temperature 2 of the softmaxed class logits, r of the object as weight; candidates one by one."""
    pair = cases.outputs(6), cases.outputs(5, seed=1)
    spread = pair[1].boxes.detach().clone()
    spread[0, :3] = torch.tensor([[12.0, 8, 70, 60], [60, 50, 118, 90], [0, 0, 5, 5]])
    spread[1, 7] = torch.tensor([20.0, 22, 100, 80])
    pair = pair[0], replace(pair[1], boxes=spread)
    distiller, bank = trained_distiller(pair, LABELS)
    kept = bank.chosen
    assert kept is not None
    x_s, x_t = (vectors_by_hand(outputs) for outputs in pair)
    prototypes = [side.double().numpy() for side in (kept.student_PC, kept.teacher_PC)]
    r = reliability_by_hand(x_s, x_t, [0, 1, 0], *prototypes, kept.labels_P.tolist())
    total, weight = 0.0, 0.0
    for image, target in enumerate(LABELED):
        for candidate in range(spread.shape[1]):
            overlaps = torchvision.ops.box_iou(spread[image, candidate][None], target["boxes"])[0]
            if overlaps.max() >= 0.5:
                own = r[int(overlaps.argmax()) + (0, 2)[image]]
                p, q = (np.exp(x.class_logits[image, candidate].detach().double().numpy() / 2) for x in pair[::-1])
                p, q = p / p.sum(), q / q.sum()
                total, weight = total + own * (p * np.log(p / q)).sum(), weight + own
    assert weight > 2
    found = distiller.eval()(*pair, LABELED).terms
    (value,) = [v.weighted.item() for name, v in found.items() if name.startswith("reliable_logits")]
    assert value == pytest.approx(4 * total / weight, rel=1e-5)


def test_alignment_reaches_the_student_from_the_first_step_on():
    """Before there are prototypes the batch's own instances stand for them: the loss is never silently absent."""
    pair = cases.outputs(6), cases.outputs(5, seed=1)
    spec = cases.spec_of("prototypes", [], "smooth_l1", Weight("absolute", 1.0))
    total = build_distiller(spec, *pair, num_classes=3)(*pair, LABELED).total
    assert total > 0
    assert torch.autograd.grad(total, pair[0].pyramid["p3"])[0].any()


def test_reliability_is_one_without_prototypes_of_the_class_and_has_no_gradient():
    bank = PrototypeBank(4, 4, 3, 2)
    rows = torch.randn(5, 4, requires_grad=True)
    zeros = torch.zeros(5, dtype=torch.int64)
    shown = InstanceVectors(rows, torch.randn(5, 4), zeros, zeros, torch.ones(5, dtype=torch.bool))
    bank.add(shown, torch.ones(5, dtype=torch.bool))
    bank.begin_epoch(2)
    other = InstanceVectors(rows, shown.teacher_SC, torch.ones(5, dtype=torch.int64), shown.levels_S, shown.present_S)
    assert (bank.reliability(other) == 1).all()
    found = bank.reliability(shown)
    assert not found.requires_grad
    assert ((found <= 1) & (found < 1 - 1e-4).any()).all()


def test_the_bank_keeps_the_last_instances_of_each_class_and_level_and_is_emptied_each_epoch():
    bank = PrototypeBank(2, 2, 2, 64)
    for batch in range(9):
        index = torch.arange(100) + 100 * batch
        vectors = torch.stack([index.float(), torch.ones(100)], 1)
        bank.add(InstanceVectors(vectors, vectors, index % 2, index % 3, index % 5 > 0), index % 7 > 0)
    kept = [i for i in range(900) if i % 5 and i % 7]
    assert bank.num_seen_K.tolist() == [sum(i % 2 == c for i in kept) for c in (0, 1)]
    stored = [int(bank.student_XC[place, 0]) for place in range(len([i for i in kept if i % 2 == 0]))]
    assert stored == [i for i in kept if i % 2 == 0]
    bank.begin_epoch(2)
    assert bank.chosen is not None
    for vector, label, level in zip(bank.chosen.student_PC, bank.chosen.labels_P, bank.chosen.levels_P):
        assert int(vector[0]) in kept
        assert int(vector[0]) % 2 == label
        assert int(vector[0]) % 3 == level
    assert bank.num_seen_K.sum() == 0


def test_the_bank_forgets_the_oldest_when_a_class_is_full():
    bank = PrototypeBank(1, 1, 1, 2)
    zeros = torch.zeros(500, dtype=torch.int64)
    for first in (0, 500):
        vectors = torch.arange(first, first + 500.0)[:, None] + 1
        bank.add(InstanceVectors(vectors, vectors, zeros, zeros, zeros == 0), zeros == 0)
    stored = sorted(bank.student_XC[:INSTANCES_OF_A_CLASS, 0].tolist())
    assert stored == [float(i) for i in range(201, 1001)]


def test_prototypes_survive_a_checkpoint():
    pair = cases.outputs(6), cases.outputs(5, seed=1)
    distiller, _ = trained_distiller(pair)
    restored = build_distiller(DistillerSpec.from_yaml(OWN_LEVEL), *pair, num_classes=3)
    restored.load_state_dict(distiller.state_dict())
    assert restored.eval()(*pair, LABELED).total == distiller.eval()(*pair, LABELED).total


@pytest.mark.parametrize("masked", [False, True])
def test_l2_vectors_is_twice_the_published_mean_with_its_floor(masked):
    student, teacher = RANDOM.normal(size=(2, 2, 3, 4, 5))
    weights = RANDOM.random((2, 4, 5)) * (RANDOM.random((2, 4, 5)) < 0.3) if masked else np.ones((2, 4, 5))
    squares = ((student - teacher) ** 2).sum(1)
    for factor in (1.0, 1e-3):  # the second sums to less than one half
        want = 2 * (factor * weights * squares).sum() / max(1, 2 * (factor * weights).sum())
        given = torch.from_numpy(factor * weights) if masked or factor != 1 else None
        piece = cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), given)
        found = cases.operator("distance", "l2_vectors")(piece, cases.NO_INPUTS)
        np.testing.assert_allclose(found.item(), want, rtol=1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_l2_vectors_per_channel_is_twice_the_released_mean_with_its_floor(masked):
    """KDLoss: the mask, repeated over the channels, is summed for the divisor."""
    student, teacher = RANDOM.normal(size=(2, 2, 3, 4, 5))
    weights = RANDOM.random((2, 4, 5)) * (RANDOM.random((2, 4, 5)) < 0.3) if masked else np.ones((2, 4, 5))
    for factor in (1.0, 1e-3):  # the second sums to less than one half
        mask = np.repeat(factor * weights[:, None], 3, 1)
        want = 2 * ((student - teacher) ** 2 * mask).sum() / max(1.0, mask.sum() * 2)
        given = torch.from_numpy(factor * weights) if masked or factor != 1 else None
        piece = cases.piece(torch.from_numpy(student), torch.from_numpy(teacher), given)
        found = cases.operator("distance", "l2_vectors", per_channel=1)(piece, cases.NO_INPUTS)
        np.testing.assert_allclose(found.item(), want, rtol=1e-9)
