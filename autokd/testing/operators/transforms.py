"""Checks of a transformation on one of the layouts that it takes."""

from __future__ import annotations

from dataclasses import replace

import torch

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.geometry.regions import Inside, Region
from autokd.spec.operator import Layout, Operator
from autokd.testing.operators import samples
from autokd.testing.operators.probes import FILLS, SHAPES, disturbed, expect, gradient, maps, regions_for


def changes_something(row: Operator, layout: Layout) -> None:
    """The maps or how they are read; of a step that learns, the student's alone need change."""
    transform = disturbed(samples.operator("transform", row.name, channels=SHAPES["ordinary"][1]), 0.1)
    student, teacher = (samples.as_layout(x, layout) for x in maps(SHAPES["ordinary"]))
    changed = transform(samples.piece(student, teacher, None, layout), samples.NO_INPUTS)
    sides = [(student, changed.student_SCHW), (teacher, changed.teacher_SCHW)]
    for before, after in sides[: 1 if row.learns else 2]:
        is_read_otherwise = changed.layout != layout or before.shape != after.shape
        expect(is_read_otherwise or not torch.allclose(before, after, atol=1e-3), row, "it changes nothing", layout)


def treats_both_sides_alike(row: Operator, layout: Layout) -> None:
    """Equal sides stay equal, and no gradient enters the teacher's; unless the row says that sides differ."""
    if not row.zero_at_equality:
        return
    transform = samples.operator("transform", row.name, channels=SHAPES["odd"][1])
    student = samples.as_layout(maps(SHAPES["odd"])[0], layout)
    for region, weights_SHW in regions_for(SHAPES["odd"]).items():
        weights = samples.weights_as(layout, weights_SHW)
        if weights is not None and row.divides_side:
            continue  # it needs a region that can be made anew at another size
        changed = transform(samples.piece(student, student.detach(), weights, layout), samples.NO_INPUTS)
        expect(torch.equal(changed.student_SCHW, changed.teacher_SCHW), row, "equal sides differ", layout, region)
        expect(not changed.teacher_SCHW.requires_grad, row, "a gradient enters the teacher's side", layout, region)


def gives_its_declared_layout(row: Operator, layout: Layout) -> None:
    """The row's ``gives``, or the layout that came in; distributions sum to 1."""
    transform = samples.operator("transform", row.name, channels=SHAPES["odd"][1])
    student, teacher = (samples.as_layout(x, layout) for x in maps(SHAPES["odd"]))
    changed = transform(samples.piece(student, teacher, None, layout), samples.NO_INPUTS)
    expect(changed.layout == (layout if row.gives_same else row.gives), row, f"it gives {changed.layout}", layout)
    dims = {"cell_distribution": (2, 3), "channel_distribution": (1,)}.get(changed.layout)
    for value in changed.values() if dims else ():
        expect(torch.allclose(value.sum(dims), torch.ones(()), atol=1e-5), row, "no distribution", layout)


def is_finite(row: Operator, layout: Layout) -> None:
    """Values and gradient, on every shape and fill, with boxes and without."""
    for shape in SHAPES.values():
        transform = samples.operator("transform", row.name, channels=shape[1])
        for fill in FILLS:
            for region in _regions(shape):
                raw, other = maps(shape, fill)
                student, teacher = (samples.as_layout(x, layout) for x in (raw, other))
                features = samples.piece(student, teacher, None, layout)
                if layout not in samples.FLAT:
                    features = replace(features, region=region)
                changed = transform(features, samples.NO_INPUTS)
                expect(changed.student_SCHW.isfinite().all(), row, "not finite", layout, shape, fill)
                expect(changed.student_SCHW.shape == changed.teacher_SCHW.shape, row, "sides differ in shape", layout)
                value = (changed.student_SCHW * torch.randn_like(changed.student_SCHW)).sum()
                expect(gradient(value, raw).isfinite().all(), row, "its gradient is not finite", layout, shape, fill)


def _regions(shape: tuple[int, ...]) -> list[Region | None]:
    """The cells inside a box of each image, and of images without boxes; None if there is no image."""
    if not shape[0]:
        return [None]
    pair = _outputs(shape), _outputs(shape)
    targets = samples.boxes(*[[[0, 0, 2, 2]]] * shape[0]), samples.boxes(*[[]] * shape[0])
    return [Inside(samples.inputs_of(*pair, boxes).boxes, stride=1) for boxes in targets]


def _outputs(shape: tuple[int, ...]) -> DetectorOutputs:
    size = (shape[2], shape[3])
    return samples.outputs(shape[1], shape[0], levels={"p3": (size, 1)}, size_px=size)


CHECKS = (changes_something, treats_both_sides_alike, gives_its_declared_layout, is_finite)
