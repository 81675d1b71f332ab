"""global_knowledge equals its release, written in NumPy with loops over images, levels, boxes and cells.

The release is DAVAR-Lab-ML's (kd_one_stage_strategy.py, kd_loss.py); its cells of a box are replaced by those whose
centers the box holds, and overlapping boxes are avoided, where the preset says that it differs.

Legend: B images, C channels, K classes, P prototypes, L levels.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
import torchvision

from autokd import DetectorOutputs
from autokd.distill import build_distiller
from autokd.distill.prototype_bank import PrototypeBank
from autokd.distill.prototype_selection import select_prototypes
from autokd.errors import DistillError
from autokd.presets import load_preset
from autokd.spec import DistillerSpec
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import box_cells, huber, numbers, own_level, region_cells, softmax

STRIDES = (8, 16, 32)
LEVELS = {f"p{3 + i}": ((256 // stride, 256 // stride), stride) for i, stride in enumerate(STRIDES)}
TARGETS = [
    {"boxes": torch.tensor([[4.0, 4, 64, 76], [80, 72, 248, 250]]), "labels": torch.tensor([0, 1])},
    {"boxes": torch.tensor([[8.0, 12, 250, 252]]), "labels": torch.tensor([0])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]
"""Boxes whose sides belong to the first, the second and the third level."""
LABELS = [0, 1, 0]
OWN = [0, 1, 2]


def detectors(seed, channels=(6, 5)):
    return tuple(cases.outputs(c, 3, seed + i, levels=LEVELS, size_px=(256, 256)) for i, c in enumerate(channels))


def test_the_boxes_belong_to_different_levels():
    assert [own_level(box, 3) for target in TARGETS for box in target["boxes"]] == OWN


def trained(name, pair):
    """A distiller that has seen an epoch of other maps, and what it has seen."""
    distiller = build_distiller(load_preset(name), *pair, num_classes=3)
    distiller.begin_epoch(1, 2, 4)
    shown = [detectors(10 + 2 * step) for step in range(4)]
    for outputs in shown:
        distiller(*outputs, TARGETS)
    distiller.begin_epoch(2, 2, 4)
    return distiller.eval(), shown


def vectors(outputs, level):
    """(3, C): the mean vector of each box on one level, whatever the level of its size."""
    (map_BCHW,) = numbers(outputs.pyramid[level])
    return np.array(
        [region_cells(map_BCHW[b], box, LEVELS[level][1], 1).ravel()
         for b, target in enumerate(TARGETS) for box in target["boxes"]]
    )  # fmt: skip


def prototypes(shown, level):
    """Of each class: both sides' vectors of the instances that coupled matching pursuit chooses on this level."""
    found = {}
    for label in (0, 1):
        sides = [
            np.concatenate([vectors(outputs[side], level)[np.array(LABELS) == label] for outputs in shown])
            for side in (0, 1)
        ]
        picks = select_prototypes(*(torch.from_numpy(x) for x in sides), num_prototypes=min(10, len(sides[0])))
        found[label] = [side[picks.numpy()] for side in sides]
    return found


def cosine(x, y):
    return x @ y / np.sqrt((x @ x) * (y @ y))


def reliabilities(pair, kept, level):
    """r2i_om_loss: 1 - |q_S - q_T| of each box on this level, by this level's prototypes of its class."""
    both = [vectors(outputs, level) for outputs in pair]
    return [
        1 - abs(np.subtract(*(max(cosine(both[side][i], p) for p in kept[label][side]) for side in (0, 1))))
        for i, label in enumerate(LABELS)
    ]


def alignment(pair, kept, level, r):
    """r2i_om_loss: huber of all boxes against all prototypes of the level."""
    both = [vectors(outputs, level) for outputs in pair]
    everything = [np.concatenate([kept[label][side] for label in (0, 1)]) for side in (0, 1)]
    gaps = [
        huber(r[i] * cosine(both[0][i], p_s) - r[i] * cosine(both[1][i], p_t))
        for i in range(3)
        for p_s, p_t in zip(*everything)
    ]
    return 5 * np.mean(gaps)


def imitation(student_BCHW, teacher_BCHW, level, r):
    """get_gt_mask and KDLoss: masks of the boxes of this level alone, repeated over the channels."""
    grid, stride = LEVELS[level]
    mask = np.zeros((3, *grid))
    index = 0
    for image, target in enumerate(TARGETS):
        for box in target["boxes"]:
            if STRIDES[own_level(box, 3)] == stride:
                rows, columns = box_cells(box.tolist(), grid, stride)
                mask[image, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = r[index]
            index += 1
    mask = np.repeat(mask[:, None], student_BCHW.shape[1], 1)
    outside = 1 - (mask > 0)
    squares = (student_BCHW - teacher_BCHW) ** 2
    foreground = (squares * mask).sum() / max(1.0, mask.sum() * 2)
    return foreground + 4 * (squares * outside).sum() / max(1.0, outside.sum() * 2)


def test_global_knowledge_equals_the_released_losses():
    pair = detectors(0)
    distiller, shown = trained("global_knowledge", pair)
    want_alignment = want_imitation = 0.0
    for index, level in enumerate(LEVELS):
        kept = prototypes(shown, level)
        r = reliabilities(pair, kept, level)
        assert len({round(value, 3) for value in r}) == 3, "the instances differ in reliability"
        student, teacher = numbers(distiller.adapters[index](pair[0].pyramid[level]), pair[1].pyramid[level])
        want_alignment += alignment(pair, kept, level, r)
        want_imitation += imitation(student, teacher, level, r)
    found = distiller(*pair, TARGETS)
    half = 0.5  # the second of two epochs has just begun
    (aligned,) = [value.weighted.item() for name, value in found.terms.items() if name.startswith("prototypes")]
    assert aligned == pytest.approx(half * want_alignment, rel=1e-4)
    assert found.total.item() == pytest.approx(half * (want_alignment + want_imitation), rel=1e-5)


def test_soft_labels_equal_the_released_mean_over_positives_and_classes():
    """knowledge_distillation_kl_div_loss: T^2 times the mean over classes, times r, mean over the positives."""
    pair = detectors(0)
    boxes = pair[1].boxes.detach().clone()
    boxes[0, 5], boxes[0, 6] = torch.tensor([4.0, 6, 64, 76]), torch.tensor([82.0, 72, 248, 240])
    boxes[1, 40] = torch.tensor([8.0, 12, 240, 252])
    pair = pair[0], replace(pair[1], boxes=boxes)
    distiller, shown = trained("global_knowledge_labels", pair)
    of_level = [reliabilities(pair, prototypes(shown, level), level) for level in LEVELS]
    logits = numbers(pair[0].class_logits, pair[1].class_logits)
    gaps = []
    for image, candidate in np.ndindex(*boxes.shape[:2]):
        if not len(TARGETS[image]["boxes"]):
            continue
        overlaps = torchvision.ops.box_iou(boxes[image, candidate][None], TARGETS[image]["boxes"])[0]
        if overlaps.max() >= 0.5:
            box = int(overlaps.argmax()) + (0, 2)[image]
            q, p = (softmax(side[image, candidate] / 2) for side in logits)
            gaps.append(of_level[OWN[box]][box] * 2**2 * (p * np.log(p / q)).mean())
    assert len(gaps) >= 3
    found = distiller(*pair, TARGETS).terms
    (value,) = [v.weighted.item() for name, v in found.items() if name.startswith("reliable_logits")]
    assert value == pytest.approx(np.mean(gaps), rel=1e-4)


@pytest.mark.parametrize("channels", [16, 64])
def test_imitation_has_weight_one_at_any_number_of_channels(channels):
    """Objects over whole images: the mask is 1 everywhere, and the term the sum of squares by 2 B C H W."""

    def outputs():
        return DetectorOutputs({"p3": torch.randn(2, channels, 13, 13)}, {"p3": 8}, image_size_px=(104, 104))

    student, teacher = outputs(), outputs()
    targets = [dict(boxes=torch.tensor([[0.0, 0, 104, 104]]), labels=torch.tensor([0]))] * 2
    distiller = build_distiller(load_preset("global_knowledge"), student, teacher, num_classes=3)
    term = distiller(student, teacher, targets).terms["reliable_foreground.l2_vectors"]
    gap = (student.pyramid["p3"] - teacher.pyramid["p3"]).square().sum()
    assert float(term.weighted / (gap / (2 * prod((2, channels, 13, 13))))) == pytest.approx(1, rel=1e-5)


def test_every_source_of_one_preset_reads_the_same_banks_and_a_checkpoint_keeps_them():
    pair = detectors(0)
    distiller, _ = trained("global_knowledge_labels", pair)
    banks = {part for part in distiller.modules() if isinstance(part, PrototypeBank)}
    assert len(banks) == len(LEVELS)
    # The only object of class 1 belongs to the second level by its size.
    assert all(set(bank.chosen.labels_P.tolist()) == {0, 1} for bank in banks)
    restored = build_distiller(load_preset("global_knowledge_labels"), *pair, num_classes=3)
    restored.load_state_dict(distiller.state_dict())
    assert restored.eval()(*pair, TARGETS).total == distiller(*pair, TARGETS).total


@pytest.mark.parametrize("targets", [TARGETS, cases.boxes([], [], [])])
def test_the_first_epoch_has_finite_terms_with_and_without_objects(targets):
    pair = detectors(0)
    distiller = build_distiller(load_preset("global_knowledge_labels"), *pair, num_classes=3)
    total = distiller(*pair, targets).total
    total.backward()
    assert total.isfinite()
    assert all(x.grad.isfinite().all() for x in pair[0].pyramid.values())


def test_prototypes_of_every_level_need_a_level_in_common():
    student = cases.outputs(4, levels={"a": ((10, 10), 10)}, size_px=(100, 100))
    teacher = cases.outputs(6, seed=1, levels={"p3": ((12, 12), 8)}, size_px=(100, 100))
    text = "terms: [{source: {prototypes: {every_level: 1}}, distance: smooth_l1, weight: {absolute: 1}}]"
    with pytest.raises(DistillError, match="'prototypes' with every_level: 1 needs a stride that both"):
        build_distiller(DistillerSpec.from_yaml(text), student, teacher, num_classes=3)
