"""Sources that weigh cells by the teacher's predictions, and their presets, against NumPy with loops, in float64.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes, N boxes of an image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from autokd.config import Backbone, TorchvisionDetector
from autokd.detectors import build_detector
from autokd.distill import build_distiller, candidates
from autokd.distill.candidates import num_anchors_of
from autokd.errors import DistillError, NonFiniteError
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Step, TermSpec, Weight
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import intersection_over_union, labeled_targets, numbers, sigmoid, softmax

GOLDEN = {"teacher_confidence", "object_similarity"}

SIZES = [size for size, _ in cases.LEVELS.values()]
STRIDES = [stride for _, stride in cases.LEVELS.values()]


def with_anchors(teacher, num_anchors):
    """The teacher with random class logits of several anchors a cell."""
    num_cells = sum(height * width for height, width in SIZES)
    generator = torch.Generator().manual_seed(9)
    shape = (len(teacher.class_logits), num_cells * num_anchors, cases.NUM_CLASSES)
    return replace(teacher, class_logits=3 * torch.randn(shape, generator=generator))


def cell_scores(logits_BAK, num_anchors):
    """Level by level: the sigmoid of the greatest logit of a cell; candidates by levels, rows, columns, anchors."""
    row, found = 0, []
    for height, width in SIZES:
        scores = np.zeros((len(logits_BAK), height, width))
        for y, x in np.ndindex(height, width):
            for _ in range(num_anchors):
                scores[:, y, x] = np.maximum(scores[:, y, x], sigmoid(logits_BAK[:, row].max(-1)))
                row += 1
        found.append(scores)
    assert row == logits_BAK.shape[1]
    return found


def sides_with(num_anchors=1, num_images=2):
    student, teacher = (cases.outputs(num_images=num_images, seed=seed) for seed in (0, 1))
    return student, with_anchors(teacher, num_anchors)


def pieces_of(name, student, teacher, targets=cases.TARGETS, **params):
    inputs = cases.inputs_of(student, teacher, targets)
    return cases.operator("source", name, **params)(inputs), inputs


# ------------------------------------------------------------------------------ teacher's confidence


@pytest.mark.parametrize("num_anchors", [1, 3])
def test_teacher_confidence_weighs_each_cell_by_the_top_score_of_its_anchors(num_anchors):
    student, teacher = sides_with(num_anchors)
    pieces, _ = pieces_of("teacher_confidence", student, teacher)
    for piece, want in zip(pieces, cell_scores(*numbers(teacher.class_logits), num_anchors), strict=True):
        np.testing.assert_allclose(piece.weights_SHW.numpy(), want, rtol=1e-5)
        assert piece.members_SHW.min() == 1


@pytest.mark.parametrize(("window", "grid"), [(2, 1), (4, 1), (1, 2), (1, 5), (2, 3)])
def test_confidence_follows_the_map_through_pooling_and_cutting(window, grid):
    """The greatest score of a window's cells; patches by runs of cells whose lengths differ by at most one."""
    student, teacher = sides_with()
    pieces, inputs = pieces_of("teacher_confidence", student, teacher)
    for piece, scores in zip(pieces, cell_scores(*numbers(teacher.class_logits), 1)):
        if window > 1:
            piece = cases.operator("transform", "max_pool", channels=6, window=window)(piece, inputs)
            rows, columns = (range(0, length, window) for length in scores.shape[1:])
            scores = np.stack([[scores[:, r : r + window, c : c + window].max((1, 2)) for c in columns] for r in rows])
            scores = scores.transpose(2, 0, 1)
        if grid > 1:
            piece = cases.operator("transform", "local_patches", channels=6, grid=grid)(piece, inputs)
            height, width = piece.student_SCHW.shape[2:]
            want = []
            for image in scores:
                for rows in np.array_split(np.arange(image.shape[0]), min(grid, image.shape[0])):
                    for columns in np.array_split(np.arange(image.shape[1]), min(grid, image.shape[1])):
                        want.append((len(rows), len(columns), image[np.ix_(rows, columns)].sum()))
            found = piece.weights_SHW
            assert found.shape == (len(want), height, width)
            # Which of the runs is the longer one is the grid's affair; all cells are there once, padding has no weight.
            np.testing.assert_allclose(found.sum().item(), scores.sum(), rtol=1e-5)
            np.testing.assert_allclose(sorted(found[found > 0].tolist()), sorted(scores.ravel().tolist()), rtol=1e-5)
        else:
            np.testing.assert_allclose(piece.weights_SHW.numpy(), scores, rtol=1e-5)


def test_patches_of_confidence_are_cut_where_those_of_the_map_are():
    student, teacher = sides_with()
    pieces, inputs = pieces_of("teacher_confidence", student, teacher)
    (first, *_) = pieces
    marked = first.with_maps(first.student_SCHW, first.weights_SHW[:, None].expand(-1, 6, -1, -1).contiguous())
    cut = cases.operator("transform", "local_patches", channels=6, grid=5)(marked, inputs)
    valid = cut.weights_SHW > 0
    np.testing.assert_array_equal(cut.teacher_SCHW[:, 0][valid].numpy(), cut.weights_SHW[valid].numpy())
    assert valid.sum() == first.weights_SHW.numel()


@pytest.mark.parametrize("num_images", [1, 2])
def test_score_weighted_equals_the_released_loss(num_images):
    """6 x sum over levels of sum(score (mlp(s) - t)^2) / (C sum score), Ultralytics' ``loss_sl2``."""
    student, (_, teacher) = cases.outputs(channels=5, num_images=num_images), sides_with(2, num_images)
    distiller = build_distiller(load_preset("score_weighted"), student, teacher, num_classes=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in distiller.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    found = distiller(student, teacher).total.item()
    want = 0.0
    for level, (name, scores) in enumerate(zip(cases.LEVELS, cell_scores(*numbers(teacher.class_logits), 2))):
        s, t = numbers(student.pyramid[name], teacher.pyramid[name])
        of = [numbers(part)[0] for part in distiller.mlp_adapters[level].state_dict().values()]
        first, first_bias, second, second_bias = of
        hidden = np.maximum(np.einsum("oc,bchw->bohw", first[:, :, 0, 0], s) + first_bias[:, None, None], 0)
        mapped = np.einsum("oc,bchw->bohw", second[:, :, 0, 0], hidden) + second_bias[:, None, None]
        want += (scores[:, None] * (mapped - t) ** 2).sum() / (scores.sum() * t.shape[1])
    assert found == pytest.approx(6 * want, rel=1e-5)


def test_teacher_confidence_serves_pairs_whose_heads_differ():
    student, teacher = sides_with(3)
    distiller = build_distiller(load_preset("score_weighted"), cases.bare(student), teacher, num_classes=3)
    assert distiller(cases.bare(student), teacher).total > 0


def test_a_teacher_whose_candidates_lie_on_no_cells_is_refused():
    student, teacher = sides_with()
    queries = replace(teacher, class_logits=teacher.class_logits[:, :100])
    with pytest.raises(DistillError, match="has 100 candidates and 252 cells on all levels"):
        build_distiller(load_preset("score_weighted"), student, queries, num_classes=3)


def test_nan_in_a_tap_of_the_teacher_alone_is_named():
    student, teacher = sides_with()
    distiller = build_distiller(load_preset("score_weighted"), student, teacher, num_classes=3)
    broken = replace(teacher, class_logits=torch.full_like(teacher.class_logits, torch.nan))
    with pytest.raises(NonFiniteError, match=r"teacher class_logits holds .* NaN"):
        distiller(student, broken)


# -------------------------------------------------------------------------------- object similarity


def bilinear(map_CHW, x, y):
    """The map at a point in pixels of cells, whose centers are at halves; beyond the edge, the edge's value."""
    height, width = map_CHW.shape[1:]
    x, y = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    left, top = int(np.floor(x)), int(np.floor(y))
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    across, down = x - left, y - top
    return (map_CHW[:, top, left] * (1 - across) + map_CHW[:, top, right] * across) * (1 - down) + (
        map_CHW[:, bottom, left] * (1 - across) + map_CHW[:, bottom, right] * across
    ) * down


def similarity_mask(map_CHW, stride, boxes_N4, scores_N, truth):
    """TAO's mask of an image: sum of score x best IoU x cosine, at least 0.01, over its maximum."""
    height, width = map_CHW.shape[1:]
    mask = np.zeros((height, width))
    for box, score in zip(boxes_N4, scores_N):
        overlap = max((intersection_over_union(box, other)[0] for other in truth), default=1.0)
        object_C = bilinear(map_CHW, (box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride)
        for y, x in np.ndindex(height, width):
            cell = map_CHW[:, y, x]
            cosine = object_C @ cell / (np.linalg.norm(object_C) * np.linalg.norm(cell))
            mask[y, x] += score * overlap * cosine
    mask = np.maximum(mask, 1e-2)
    return mask / mask.max()


@pytest.mark.parametrize("candidates", [7, 1000])
def test_object_similarity_multiplies_both_sides_by_the_mask_of_its_definition(candidates):
    student, teacher = (cases.outputs(num_images=3, seed=seed) for seed in (0, 1))
    targets = [*labeled_targets(teacher)[:2], *cases.boxes([])]
    assert len(targets[0]["boxes"]) > 1
    pieces, _ = pieces_of("object_similarity", student, teacher, targets, candidates=candidates)
    logits, boxes = numbers(teacher.class_logits, teacher.boxes)
    scores = sigmoid(logits.max(-1))
    seen = []
    for piece, name, stride in zip(pieces, cases.LEVELS, STRIDES, strict=True):
        s, t = numbers(student.pyramid[name], teacher.pyramid[name])
        for image in range(3):
            best = np.argsort(-scores[image])[:candidates]
            (truth,) = numbers(targets[image]["boxes"])
            mask = similarity_mask(t[image], stride, boxes[image][best], scores[image][best], truth)
            seen.append(mask.min())
            for found, given in zip(piece.values(), (s, t)):
                np.testing.assert_allclose(found[image].detach().numpy(), given[image] * mask, rtol=1e-3, atol=2e-5)
        assert piece.weights_SHW is None
    assert min(seen) < 0.1  # the lower bound is met somewhere


def test_object_similarity_takes_queries_of_a_teacher():
    student, teacher = sides_with()
    queries = replace(teacher, class_logits=teacher.class_logits[:, :100], boxes=teacher.boxes[:, :100].detach())
    spec = DistillerSpec((TermSpec(Step.of("object_similarity"), (), Step.of("l2"), Weight("absolute", 1.0)),))
    distiller = build_distiller(spec, cases.bare(student), queries, num_classes=3)
    total = distiller(cases.bare(student), queries, cases.TARGETS).total
    total.backward()
    assert total > 0
    assert all(tap.grad.isfinite().all() for tap in student.pyramid.values())
    assert all(tap.grad is None for tap in teacher.pyramid.values())


def test_boxes_at_infinity_lie_at_the_edge():
    student, teacher = sides_with()
    broken = teacher.boxes.detach().clone()
    broken[:, :, 2:] = torch.inf
    pieces, _ = pieces_of("object_similarity", student, replace(teacher, boxes=broken))
    assert all(piece.student_SCHW.isfinite().all() for piece in pieces)


# ------------------------------------------------------------------------ standardized logits


def test_logit_standardization_equals_its_algorithm():
    """Algorithm 1 with tau = 2: z-scores over the classes, softmax(z / 2), 9 x 2^2 x mean over the rows of KL."""
    student, teacher = (cases.outputs(seed=seed) for seed in (0, 1))
    targets = labeled_targets(teacher)
    distiller = build_distiller(load_preset("logit_standardization"), student, teacher, num_classes=3)
    found = distiller(student, teacher, targets).total.item()
    s, t, boxes = numbers(student.class_logits, teacher.class_logits, teacher.boxes)
    divergences = []
    for image, candidate in np.ndindex(*boxes.shape[:2]):
        truth = numbers(*targets[image]["boxes"])
        if max(intersection_over_union(boxes[image, candidate], box)[0] for box in truth) >= 0.5:
            p, q = (
                softmax((row - row.mean()) / (1e-7 + row.std(ddof=1)) / 2)
                for row in (t[image, candidate], s[image, candidate])
            )
            divergences.append((p * np.log(p / q)).sum())
    assert len(divergences) > 5
    assert found == pytest.approx(9 * 4 * np.mean(divergences), rel=1e-4)


# ------------------------------------------------------------------------- real heads, formats


@pytest.mark.parametrize("architecture", ["retinanet", "fcos"])
def test_scores_of_a_real_head_lie_on_the_cells_of_its_anchors(architecture):
    """A head that regresses nothing decodes its anchors: their centers say which cell a candidate belongs to."""
    config = TorchvisionDetector(architecture=architecture, backbone=Backbone(width=4), fpn_channels=16)
    teacher = build_detector(config, 3, (96, 128)).eval()
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if "bbox_reg" in name:
                parameter.zero_()
        outputs = teacher(torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)))
    logits, boxes = numbers(outputs.class_logits, outputs.boxes)
    sizes = {name: (map_BCHW.shape[2], map_BCHW.shape[3]) for name, map_BCHW in outputs.pyramid.items()}
    found = candidates.cell_scores(outputs.class_logits, sizes)
    first = 0
    for name, map_BCHW in outputs.pyramid.items():
        height, width = map_BCHW.shape[2:]
        last = first + height * width * num_anchors_of(outputs)
        centers = (boxes[0, first:last, :2] + boxes[0, first:last, 2:]) / 2 / outputs.strides[name]
        want = np.zeros((2, height, width))
        for row, (x, y) in zip(range(first, last), np.floor(centers + 1e-3).astype(int)):
            want[:, y, x] = np.maximum(want[:, y, x], sigmoid(logits[:, row].max(-1)))
        np.testing.assert_allclose(found[name].numpy(), want, rtol=1e-5)
        first = last
    assert first == logits.shape[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("source", "transforms", "distance"),
    [
        ("teacher_confidence", [], "l2"),
        ("object_similarity", [], "l2"),
        ("feature_map", ["haar_band"], "l1"),
        ("class_logits", ["standardize_classes", "softmax_channels"], "kl"),
        ("feature_map", [Step.of("masked_generation", mask=2)], "l2"),
    ],
)
def test_new_terms_compute_in_float32_whatever_the_taps_format(source, transforms, distance, dtype):
    half = [cases.outputs(seed=seed, dtype=dtype) for seed in (0, 1)]
    single = [taps_as(side, torch.float32) for side in half]
    spec = cases.spec_of(source, transforms, distance, Weight("absolute", 1.0))
    distiller = build_distiller(spec, *single, cases.NUM_CLASSES).eval()
    want = distiller(*single, cases.TARGETS).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distiller(*(taps_as(side, dtype) for side in half), cases.TARGETS).total
    assert found.dtype == torch.float32
    assert found.item() == want.item()


def taps_as(given, dtype):
    """The pyramid and the predictions in another format, detached, the same numbers."""
    return replace(
        given,
        pyramid={name: map_BCHW.detach().to(dtype) for name, map_BCHW in given.pyramid.items()},
        class_logits=given.class_logits.detach().to(dtype),
        boxes=given.boxes.detach().to(dtype),
    )
