"""Semantic-guided regions and contrastive distances against NumPy, with loops where the code has none.

Legend: S regions, L levels, C channels, D numbers of a projection.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional

from autokd.distill import build_distiller
from autokd.distill.operators import BuildContext, make_operator
from autokd.distill.region_sets import pairwise_iou, region_levels, regions_of
from autokd.errors import DistillError
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Step, Weight
from tests.support import distill_cases as cases

GOLDEN = {"semantic_guided", "contrastive", "info_nce", "smooth_contrastive"}
RANDOM = np.random.default_rng(5)


def source(name, student, teacher, **params):
    inputs = cases.inputs_of(student, teacher)
    context = BuildContext(inputs.pairs, cases.NUM_CLASSES, student, teacher)
    return make_operator("source", Step.of(name, **params), context), inputs


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def logsumexp(x):
    return x.max() + np.log(np.exp(x - x.max()).sum())


# ------------------------------------------------------------------------------------------ regions


def test_overlaps_equal_torchvisions():
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(2, 7, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + torch.rand(2, 7, 2, generator=generator) * 40], -1)
    found = pairwise_iou(boxes[:, :4], boxes)
    want = torch.stack([torchvision.ops.box_iou(image[:4], image) for image in boxes])
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize(
    ("side_px", "level"), [(5, 0), (55, 0), (56, 0), (111, 0), (112, 0), (223, 0), (224, 1), (448, 2), (2000, 2)]
)
def test_a_region_belongs_to_the_level_of_its_size(side_px, level):
    """FPN, eq. 1: 224 px belong to stride 16, twice the size to twice the stride; clamped to the levels there are."""
    strides = {"p3": 8, "p4": 16, "p5": 32}
    found = region_levels(torch.tensor([[0.0, 0.0, side_px, side_px]]), strides)
    assert found.argmax().item() == level


def test_proposals_join_the_truth_three_background_ones_for_each_other():
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    truth = cases.boxes([[10, 10, 50, 50]], [])
    good, bad = [12, 12, 50, 50], [[float(60 + i), 60.0, float(70 + i), 70.0] for i in range(9)]
    proposals = torch.tensor([[bad[0], good, *bad[1:]], [good, *bad]])
    proposals[0, -1] = torch.nan
    student = replace(student, proposals=proposals)
    found = regions_of(cases.inputs_of(student, teacher, truth)).instances
    taken = found.present_S.view(2, -1)
    assert taken[0].sum() == 1 + 1 + 3 * 2, "the truth, the overlapping one, three for each of the two"
    assert taken[1].sum() == 0, "an image without boxes has nothing to set background against"
    labels = found.labels_S.view(2, -1)
    assert labels[0, :3].tolist() == [0, -1, 0], "the truth, the first bad one, the good one"


# ------------------------------------------------------------------------------------ semantic-guided


@pytest.mark.parametrize("student_channels", [(6, 6, 6), (4, 4, 4), (4, 6, 4)])
def test_semantic_guided_mixes_the_levels_as_published(student_channels):
    """G-DetKD, eqs. 1 to 3: softmax over LEVELS of <e(f(S_l)), e(T)> / tau; one region after the other."""
    student, teacher = (
        cases.outputs(8, dtype=torch.float64),
        cases.outputs(6, seed=1, dtype=torch.float64),
    )
    narrowed = {
        level: map_BCHW[:, :number] for (level, map_BCHW), number in zip(student.pyramid.items(), student_channels)
    }
    student = replace(student, pyramid=narrowed)
    guided, inputs = source("semantic_guided", cases.bare(student), teacher, size=4)
    guided = guided.double()
    (piece,) = guided(inputs)
    strides = list(student.strides.values())
    for index, (image, box) in enumerate(
        (image, box) for image, target in enumerate(cases.TARGETS) for box in target["boxes"]
    ):
        sample = [0, 1, 2][index]  # rows of an image are filled up to two
        roi = torch.tensor([[image, *box.tolist()]], dtype=torch.float64)

        def pooled(outputs, level, roi=roi):
            map_BCHW = list(outputs.pyramid.values())[level].detach()
            return torchvision.ops.roi_align(map_BCHW, roi, 4, 1 / strides[level], sampling_ratio=4, aligned=True)[0]

        size = np.sqrt(float((box[2] - box[0]) * (box[3] - box[1])))
        own_level = int(np.clip(np.floor(np.log2(size / 56)) + 2 - 3, 0, 2))
        target = pooled(teacher, own_level)
        adapters = [guided.adapters[str(n)] if n != 6 else torch.nn.Identity() for n in student_channels]
        levels = [adapter(pooled(student, level)[None])[0] for level, adapter in enumerate(adapters)]
        embedded = [guided.embed(level[None])[0].detach().numpy() for level in levels]
        meaning = guided.embed(target[None])[0].detach().numpy()
        alpha = softmax(np.array([e @ meaning for e in embedded]) / guided.log_temperature.exp().item())
        mixed = sum(a * level.detach().numpy() for a, level in zip(alpha, levels))
        np.testing.assert_allclose(piece.student_SCHW[sample].detach().numpy(), mixed, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(piece.teacher_SCHW[sample].numpy(), target.numpy(), rtol=1e-6, atol=1e-8)


def test_semantic_guided_trains_its_embedding_and_temperature_and_serves_pyramids_without_a_common_stride():
    student = cases.outputs(4, levels={"a": ((10, 10), 10), "b": ((5, 5), 20)}, size_px=(100, 100))
    teacher = cases.outputs(6, seed=1, levels={"p3": ((12, 12), 8), "p4": ((6, 6), 16)}, size_px=(100, 100))
    spec = cases.spec_of("semantic_guided", [], "l2", Weight("absolute", 1.0))
    distiller = build_distiller(spec, student, teacher, num_classes=3)
    distiller(student, teacher, cases.TARGETS).total.backward()
    names = {
        name for name, parameter in distiller.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert any("embed" in name for name in names)
    assert any("log_temperature" in name for name in names)
    assert any("adapters" in name for name in names)
    assert all(map_BCHW.grad.any() for map_BCHW in student.pyramid.values()), "every level of the student learns"


def test_semantic_guided_refuses_a_teacher_with_unequal_channels():
    uneven = {"p3": torch.zeros(1, 4, 8, 8), "p4": torch.zeros(1, 6, 4, 4)}
    teacher = cases.DetectorOutputs(uneven, {"p3": 8, "p4": 16})
    with pytest.raises(DistillError, match=r"'p3': 4, 'p4': 6"):
        make_operator("source", Step.of("semantic_guided"), BuildContext((), 3, cases.outputs(), teacher))


# -------------------------------------------------------------------------------------- contrastive


def contrastive_by_hand(module, student, teacher, targets, queue, temperature):
    """G-DetKD, eqs. 4 and 5, region by region."""
    regions = [(i, box) for i, target in enumerate(targets) for box in target["boxes"]]
    strides = list(student.strides.values())

    def vector(outputs, project, image, box):
        size = np.sqrt(float((box[2] - box[0]) * (box[3] - box[1])))
        level = int(np.clip(np.floor(np.log2(size / 56)) + 2 - 3, 0, 2))
        map_BCHW = list(outputs.pyramid.values())[level].detach().float()
        roi = torch.tensor([[image, *box.tolist()]])
        pooled = torchvision.ops.roi_align(map_BCHW, roi, 7, 1 / strides[level], sampling_ratio=2, aligned=True)
        return functional.normalize(project(pooled.mean((2, 3))), dim=1)[0].detach().double().numpy()

    s = [vector(student, module.project_student, *region) for region in regions]
    t = [vector(teacher, module.project_teacher, *region) for region in regions]
    losses = []
    for i, (image, box) in enumerate(regions):
        negatives = list(queue)
        for j, (other_image, other_box) in enumerate(regions):
            overlap = float(torchvision.ops.box_iou(box[None], other_box[None]))
            if j != i and not (image == other_image and overlap > 0.5):
                negatives.append(t[j])
        scores = np.array([s[i] @ t[i], *(s[i] @ n for n in negatives)]) / temperature
        losses.append(logsumexp(scores) - scores[0])
    return np.mean(losses), t


TWINS = cases.boxes([[10, 8, 70, 60], [12, 8, 70, 60], [60, 50, 120, 90]], [[20, 20, 100, 80]])
"""The first two overlap by more than 0.5: neither is a negative of the other."""


def test_contrastive_loss_equals_the_published_one_and_the_queue_remembers_in_order():
    pair = cases.outputs(), cases.outputs(5, seed=1)
    spec = cases.spec_of("contrastive", [], Step.of("info_nce", temperature=0.2), Weight("absolute", 1.0))
    distiller = build_distiller(spec, *(cases.bare(side) for side in pair), num_classes=3)
    (module,) = [part for part in distiller.modules() if type(part).__name__ == "Contrastive"]
    module.places = 6  # fewer places than two batches have regions
    queue: list[np.ndarray] = []
    for _ in range(3):
        want, vectors = contrastive_by_hand(module, *pair, TWINS, queue, 0.2)
        found = distiller(*(cases.bare(side) for side in pair), TWINS).total.item()
        assert found == pytest.approx(want, rel=1e-5)
        queue = (queue + vectors)[-6:]


def test_the_queue_is_left_alone_by_evaluation_and_survives_a_checkpoint():
    pair = cases.outputs(), cases.outputs(5, seed=1)
    preset = load_preset("g_detkd_contrastive")
    distiller = build_distiller(preset, *pair, num_classes=3)
    for _ in range(2):
        distiller(*pair, cases.TARGETS)
    restored = build_distiller(preset, *pair, num_classes=3)
    restored.load_state_dict(distiller.state_dict())
    before = restored.eval()(*pair, cases.TARGETS).total
    assert before == distiller.eval()(*pair, cases.TARGETS).total
    assert restored(*pair, cases.TARGETS).total == before, "evaluation put something into the queue"
    fresh = build_distiller(preset, *pair, num_classes=3).eval()
    assert fresh(*pair, cases.TARGETS).total != before, "the queue has no influence"


@pytest.mark.parametrize("masked", [False, True])
def test_contrastive_distances_equal_their_formulas(masked):
    student, teacher = RANDOM.uniform(-1, 1, size=(2, 5, 7))
    counts = np.ones((5, 7), dtype=bool)
    if masked:
        counts = RANDOM.random((5, 7)) < 0.6
        counts[:, 0] = [True, True, False, True, True]
        counts[2] = False
    weights = torch.from_numpy(counts.astype(np.float64))[:, None]
    sides = (torch.from_numpy(x)[:, None, None] for x in (student, teacher))
    piece = cases.piece(*sides, weights, "contrast")
    hard, soft = [], []
    for i in range(5):
        if counts[i, 0]:
            s, t = student[i][counts[i]] / 0.3, teacher[i][counts[i]] / 0.3
            hard.append(logsumexp(s) - s[0])
            p, q = softmax(t), softmax(s)
            soft.append((p * np.log(p / q)).sum())
    for name, want in (("info_nce", np.mean(hard)), ("smooth_contrastive", np.mean(soft))):
        found = cases.operator("distance", name, temperature=0.3)(piece, cases.NO_INPUTS)
        np.testing.assert_allclose(found.item(), want, rtol=1e-9)


@pytest.mark.parametrize("name", ["g_detkd", "g_detkd_sgfi", "g_detkd_contrastive"])
def test_g_detkd_presets_teach_with_and_without_proposals_and_without_boxes(name):
    student, teacher = cases.outputs(4), cases.outputs(6, seed=1)
    distiller = build_distiller(load_preset(name), student, teacher, num_classes=3).eval()
    with_proposals = distiller(student, teacher, cases.TARGETS).total
    without = distiller(cases.bare(student), teacher, cases.TARGETS).total
    assert with_proposals.isfinite()
    assert without.isfinite()
    assert with_proposals != without
    nothing = distiller(student, teacher, cases.boxes([], [])).total
    assert nothing == 0
    nothing.backward()


def test_terms_of_g_detkd_share_the_regions_of_a_step():
    alone = load_preset("g_detkd")
    # All levels of the student at once; the teacher's regions, and the means of both sides.
    assert regions_computed(alone) == {"regions": 1, "regions on levels": 1, "regions at own level": 3}
    both = DistillerSpec((*alone.terms, *load_preset("global_knowledge").terms))
    assert regions_computed(both) == regions_computed(alone), "prototypes take the same means as the contrast"


def regions_computed(spec: DistillerSpec) -> Counter[str]:
    """How often regions are pooled in one step, by the first word of the key."""
    pair = cases.outputs(4), cases.outputs(6, seed=1)
    distiller = build_distiller(spec, *pair, num_classes=3)
    computed: list[str] = []
    distiller.observer = lambda key: computed.append(key if isinstance(key, str) else str(key[0]))
    distiller(*pair, cases.TARGETS)
    return Counter(name for name in computed if name.startswith("regions"))
