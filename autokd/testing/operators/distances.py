"""Checks of a distance on one of the layouts that it takes."""

from __future__ import annotations

from torch import Tensor

from autokd.spec.operator import Layout, Operator
from autokd.testing.operators import samples
from autokd.testing.operators.probes import FILLS, SHAPES, expect, gradient, in_layout, maps, regions_for


def is_zero_with_zero_gradient_at_equality(row: Operator, layout: Layout) -> None:
    """Where student equals teacher, on every shape, fill and region; unless the row says otherwise."""
    if not row.zero_at_equality:
        return
    distance = samples.operator("distance", row.name)
    for shape in SHAPES.values():
        for fill in FILLS:
            for weights in regions_for(shape).values():
                student, _ = maps(shape, fill)
                value = distance(in_layout(student, student.detach().clone(), weights, layout), samples.NO_INPUTS)
                expect(value.item() == 0.0, row, "not 0 at equality", layout, shape, fill)
                steepness = gradient(value, student).abs().sum()
                expect(steepness < 1e-5, row, "its gradient is not 0 at equality", layout, shape, fill)


def is_positive_elsewhere(row: Operator, layout: Layout) -> None:
    """Where student differs in a cell that counts; 0 if no cell does."""
    distance = samples.operator("distance", row.name)
    for name in ("ordinary", "odd", "one image"):
        student, teacher = maps(SHAPES[name])
        for region, weights in regions_for(SHAPES[name]).items():
            value = distance(in_layout(student, teacher, weights, layout), samples.NO_INPUTS)
            holds = value > 1e-4 if region != "no cell" else value == 0
            expect(holds, row, f"it is {value.item()} where student and teacher differ", layout, name, region)


def is_finite_and_connected(row: Operator, layout: Layout) -> None:
    """A scalar at least 0 with a finite gradient on every shape, fill and region, batch 1 and odd sizes included."""
    distance = samples.operator("distance", row.name)
    for shape in SHAPES.values():
        for fill in FILLS:
            for weights in regions_for(shape).values():
                student, teacher = maps(shape, fill)
                value = distance(in_layout(student, teacher, weights, layout), samples.NO_INPUTS)
                expect(value.shape == (), row, "not a scalar", layout, shape, fill)
                expect(value.isfinite() and value >= -1e-6, row, f"it is {value.item()}", layout, shape, fill)
                expect(
                    gradient(value, student).isfinite().all(), row, "its gradient is not finite", layout, shape, fill
                )


def lessens_down_its_gradient(row: Operator, layout: Layout) -> None:
    """A small step against the gradient lessens the value."""
    distance = samples.operator("distance", row.name)
    student, teacher = maps(SHAPES["ordinary"])

    def value_of(x: Tensor) -> Tensor:
        value: Tensor = distance(in_layout(x, teacher, None, layout), samples.NO_INPUTS)
        return value

    before = value_of(student)
    direction = gradient(before, student)
    step = 1e-2 * before.detach() / direction.square().sum()
    expect(value_of(student - step * direction) < before, row, "a step down its gradient does not lessen it", layout)


CHECKS = (
    is_zero_with_zero_gradient_at_equality,
    is_positive_elsewhere,
    is_finite_and_connected,
    lessens_down_its_gradient,
)
