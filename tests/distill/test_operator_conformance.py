"""What every operator must keep, whatever it computes; a new row of the vocabulary is tested by being there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autokd.distill import build_distiller
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.regions import Inside
from autokd.distill.operators import BuildContext, make_operator
from autokd.outputs import DetectorOutputs
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, Step, Weight
from autokd.spec.operator import Layout
from tests.support import distill_cases as cases

SHAPES = {
    "ordinary": (3, 5, 6, 8),
    "odd": (2, 3, 5, 7),
    "one image": (1, 4, 6, 6),
    "one cell": (2, 4, 1, 1),
    "one number": (1, 1, 1, 1),
    "one row": (2, 3, 1, 9),
    "no samples": (0, 4, 3, 3),
}
FILLS = {
    "random": lambda x: x,
    "zeros": torch.zeros_like,
    "constant": lambda x: torch.full_like(x, 0.1),
    "large": lambda x: x * 1e4,
    "tiny": lambda x: x * 1e-6,
    "half zeros": lambda x: x * (torch.arange(x.shape[-1]) % 2),
}
DISTANCE_LAYOUTS = [(name, layout) for name, row in DISTANCES.items() for layout in row.takes]
TRANSFORM_LAYOUTS = [(name, layout) for name, row in TRANSFORMS.items() for layout in row.takes]


def pair_of_maps(shape: tuple[int, ...], fill: str = "random", seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (FILLS[fill](torch.randn(shape, generator=generator)) for _ in range(2))
    return student.requires_grad_(), teacher


def regions_for(shape: tuple[int, ...]) -> dict[str, Tensor | None]:
    mask = torch.zeros(shape[0], *shape[2:])
    some = mask.clone()
    some[: max(shape[0] // 2, 1), : shape[2] // 2 + 1, :1] = 1
    return {"everywhere": None, "some cells": some, "no cell": mask}


def gradient(value: Tensor, tap: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, tap)
    return found


def in_layout(student: Tensor, teacher: Tensor, weights: Tensor | None, layout: Layout) -> FeaturePair:
    sides = (cases.as_layout(side, layout, weights) for side in (student, teacher))
    return cases.piece(*sides, cases.weights_as(layout, weights), layout)


# ---------------------------------------------------------------------------------------- distances


@pytest.mark.parametrize(("name", "layout"), DISTANCE_LAYOUTS)
def test_distance_is_zero_with_zero_gradient_where_student_equals_teacher(name, layout):
    if not DISTANCES[name].zero_at_equality:
        pytest.skip("its least value is elsewhere, as its row says")
    distance = cases.operator("distance", name)
    for shape in SHAPES.values():
        for fill in FILLS:
            for weights in regions_for(shape).values():
                student, _ = pair_of_maps(shape, fill)
                teacher = student.detach().clone()
                features = in_layout(student, teacher, weights, layout)
                value = distance(features, cases.NO_INPUTS)
                assert value.item() == 0.0, (shape, fill)
                assert gradient(value, student).abs().sum() < 1e-5, (shape, fill)


@pytest.mark.parametrize(("name", "layout"), DISTANCE_LAYOUTS)
def test_distance_is_positive_where_student_differs(name, layout):
    distance = cases.operator("distance", name)
    for shape_name in ("ordinary", "odd", "one image"):
        student, teacher = pair_of_maps(SHAPES[shape_name])
        for region, weights in regions_for(SHAPES[shape_name]).items():
            features = in_layout(student, teacher, weights, layout)
            value = distance(features, cases.NO_INPUTS)
            assert value > 1e-4 if region != "no cell" else value == 0


@pytest.mark.parametrize(("name", "layout"), DISTANCE_LAYOUTS)
def test_distance_and_its_gradient_are_finite_and_connected_on_every_map(name, layout):
    distance = cases.operator("distance", name)
    for shape in SHAPES.values():
        for fill in FILLS:
            for weights in regions_for(shape).values():
                student, teacher = pair_of_maps(shape, fill)
                features = in_layout(student, teacher, weights, layout)
                value = distance(features, cases.NO_INPUTS)
                assert value.shape == ()
                assert value.isfinite()
                assert value >= -1e-6
                assert gradient(value, student).isfinite().all(), (shape, fill)


@pytest.mark.parametrize(("name", "layout"), DISTANCE_LAYOUTS)
def test_a_small_step_down_the_gradient_lessens_the_distance(name, layout):
    distance = cases.operator("distance", name)
    student, teacher = pair_of_maps(SHAPES["ordinary"])
    teacher_value = cases.as_layout(teacher, layout)

    def value_of(x: Tensor) -> Tensor:
        return distance(cases.piece(cases.as_layout(x, layout), teacher_value, None, layout), cases.NO_INPUTS)

    before = value_of(student)
    direction = gradient(before, student)
    step = 1e-2 * before.detach() / direction.square().sum()
    assert value_of(student - step * direction) < before


# --------------------------------------------------------------------------------------- transforms


@pytest.mark.parametrize(("name", "layout"), TRANSFORM_LAYOUTS)
def test_transform_changes_something_on_every_layout_that_it_takes(name, layout):
    transform = disturbed(cases.operator("transform", name, channels=SHAPES["ordinary"][1]))
    student, teacher = (cases.as_layout(x, layout) for x in pair_of_maps(SHAPES["ordinary"]))
    changed = transform(cases.piece(student, teacher, None, layout), cases.NO_INPUTS)
    sides = [(student, changed.student_SCHW), (teacher, changed.teacher_SCHW)]
    for before, after in sides[: 1 if TRANSFORMS[name].learns else 2]:
        is_read_otherwise = changed.layout != layout
        assert is_read_otherwise or before.shape != after.shape or not torch.allclose(before, after, atol=1e-3)


def disturbed(module: nn.Module) -> nn.Module:
    """The module with its parameters, if any, away from where they start (which may be the identity)."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return module


@pytest.mark.parametrize(("name", "layout"), TRANSFORM_LAYOUTS)
def test_transform_treats_both_sides_alike(name, layout):
    if not TRANSFORMS[name].zero_at_equality:
        pytest.skip("it changes the student alone, as its row says")
    transform = cases.operator("transform", name, channels=SHAPES["odd"][1])
    student, _ = (cases.as_layout(x, layout) for x in pair_of_maps(SHAPES["odd"]))
    for weights_SHW in regions_for(SHAPES["odd"]).values():
        weights = cases.weights_as(layout, weights_SHW)
        if weights is not None and TRANSFORMS[name].name in ("max_pool", "local_patches"):
            continue  # these need a region that can be made anew; see test_regions
        changed = transform(cases.piece(student, student.detach(), weights, layout), cases.NO_INPUTS)
        assert torch.equal(changed.student_SCHW, changed.teacher_SCHW)
        assert not changed.teacher_SCHW.requires_grad


@pytest.mark.parametrize(("name", "layout"), TRANSFORM_LAYOUTS)
def test_transform_gives_the_declared_layout_with_distributions_that_sum_to_1(name, layout):
    transform = cases.operator("transform", name, channels=SHAPES["odd"][1])
    student, teacher = (cases.as_layout(x, layout) for x in pair_of_maps(SHAPES["odd"]))
    changed = transform(cases.piece(student, teacher, None, layout), cases.NO_INPUTS)
    row = TRANSFORMS[name]
    assert changed.layout == (layout if row.gives_same else row.gives)
    sums = {"cell_distribution": (2, 3), "channel_distribution": (1,)}.get(changed.layout)
    if sums:
        for value in changed.values():
            assert torch.allclose(value.sum(sums), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize(("name", "layout"), TRANSFORM_LAYOUTS)
def test_transform_and_its_gradient_are_finite_on_every_map(name, layout):
    for shape in SHAPES.values():
        transform = cases.operator("transform", name, channels=shape[1])
        for fill in FILLS:
            raw, other = pair_of_maps(shape, fill)
            student, teacher = (cases.as_layout(x, layout) for x in (raw, other))
            for targets in (cases.boxes(*[[[0, 0, 2, 2]]] * shape[0]), cases.boxes(*[[]] * shape[0])):
                region = None
                if shape[0]:
                    region = Inside(cases.inputs_of(*[pair(shape)] * 2, targets).boxes, stride=1)
                features = cases.piece(student, teacher, None, layout)
                if layout not in cases.FLAT:
                    features = replace(features, region=region)
                changed = transform(features, cases.NO_INPUTS)
                assert changed.student_SCHW.isfinite().all(), (shape, fill)
                assert changed.student_SCHW.shape == changed.teacher_SCHW.shape
                value = (changed.student_SCHW * torch.randn_like(changed.student_SCHW)).sum()
                assert gradient(value, raw).isfinite().all(), (shape, fill)


def pair(shape: tuple[int, ...]) -> DetectorOutputs:
    return cases.outputs(shape[1], shape[0], levels={"p3": (shape[2:], 1)}, size_px=shape[2:])


# --------------------------------------------------------------------------------- sources and terms

TERM_CASES = {
    "ordinary": (cases.LEVELS, (96, 128), cases.TARGETS),
    "one image": (cases.LEVELS, (96, 128), cases.TARGETS[:1]),
    "odd sizes": ({"p3": ((13, 7), 8), "p4": ((7, 4), 16), "p5": ((4, 2), 32)}, (99, 53), cases.TARGETS),
    "single cells": ({"p3": ((1, 1), 8), "p4": ((1, 1), 16), "p5": ((1, 1), 32)}, (8, 8), cases.TARGETS[:1]),
    "no boxes": (cases.LEVELS, (96, 128), cases.boxes([], [])),
    "an image without boxes": (cases.LEVELS, (96, 128), cases.boxes([], [[5, 5, 50, 50]])),
    "boxes everywhere": (cases.LEVELS, (96, 128), cases.boxes([[0, 0, 128, 96]], [[-9, -9, 999, 999]])),
    "strange boxes": (
        cases.LEVELS,
        (96, 128),
        cases.boxes([[300, 300, 400, 400], [20, 20, 20, 20]], [[-50, -50, -1, -1], [torch.nan, 0, 5, 5], [9, 9, 2, 2]]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_terms_that_cover_all_operators_are_finite_on_every_pair(source):
    ordinary = cases.outputs(4), cases.outputs(4, seed=1)
    for form in cases.covering_forms(source):
        distiller = build_distiller(cases.spec_of(*form, Weight("absolute", 1.0)), *ordinary, num_classes=3)
        for case, (levels, size_px, targets) in TERM_CASES.items():
            student, teacher = (cases.outputs(4, len(targets), seed, levels, size_px) for seed in (2, 3))
            total = distiller(student, teacher, targets).total
            gradients = torch.autograd.grad(total, list(student.pyramid.values()), allow_unused=True)
            assert total.isfinite(), (form, case)
            assert total >= -1e-6, (form, case)
            assert all(found is None or found.isfinite().all() for found in gradients), (form, case)
            if case == "no boxes" and source in ("foreground", "instance"):
                assert total == 0, form
                assert not any(found is not None and found.any() for found in gradients), form


@pytest.mark.parametrize("source", SOURCES)
def test_terms_that_cover_all_operators_are_zero_at_equality_and_positive_elsewhere(source):
    student, other = cases.outputs(4, num_images=2), cases.outputs(4, seed=1)
    same = cases.like(student, lambda map_BCHW: map_BCHW)
    for form in cases.covering_forms(source):
        distiller = build_distiller(cases.spec_of(*form, Weight("absolute", 1.0)), student, other, num_classes=3)
        distiller.eval()
        if is_zero_at_equality(form):
            at_equality = distiller(student, same, cases.OF_ALL_CLASSES).total
            assert at_equality.abs() < 1e-6, form
            found = torch.autograd.grad(
                at_equality, list(student.pyramid.values()), retain_graph=True, allow_unused=True
            )
            assert sum(part.abs().sum() for part in found if part is not None) < 1e-5, form
        elsewhere = distiller(student, other, cases.OF_ALL_CLASSES).total
        assert elsewhere > 1e-9, form
        assert distiller(student, other, cases.OF_ALL_CLASSES).total == elsewhere, (form, "a second call differs")
        elsewhere.backward(retain_graph=True)  # the predictions' own graph serves the next form as well
        assert any(map_BCHW.grad is not None for map_BCHW in student.pyramid.values()), (form, "no gradient")
        assert all(map_BCHW.grad is None for map_BCHW in other.pyramid.values()), "a gradient reached the teacher"
        for map_BCHW in student.pyramid.values():
            map_BCHW.grad = None


def is_zero_at_equality(form: tuple[str, tuple[str, ...], str]) -> bool:
    source, transforms, distance = form
    rows = [SOURCES[source], *(TRANSFORMS[name] for name in transforms), DISTANCES[distance]]
    return all(row.zero_at_equality for row in rows)


@pytest.mark.parametrize("source", SOURCES)
def test_source_gives_pieces_of_equal_shape_that_look_at_the_student(source):
    student, teacher = cases.outputs(5), cases.outputs(7, seed=1)
    inputs = cases.inputs_of(student, teacher)
    context = BuildContext(inputs.pairs, cases.NUM_CLASSES, student, teacher)
    pieces = make_operator("source", Step.of(source), context)(inputs)
    assert pieces
    assert not SOURCES[source].by_level or len(pieces) == len(inputs.pairs)
    for features in pieces:
        assert features.layout == SOURCES[source].gives
        assert features.student_SCHW.shape == features.teacher_SCHW.shape
        if features.layout in ("map", "regions"):
            assert features.student_SCHW.shape[1] == 7
        assert features.student_SCHW.requires_grad
        assert not features.teacher_SCHW.requires_grad
        weights = features.weights_SHW
        assert weights is None or weights.shape == features.student_SCHW[:, 0].shape
