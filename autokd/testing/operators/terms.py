"""Checks of a source, and of whole terms in which an operator occurs."""

from __future__ import annotations

import torch

from autokd.distill import build_distiller
from autokd.distill.operators import BuildContext, make_operator
from autokd.errors import NonFiniteError
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, DistillerSpec, Step, Weight
from autokd.spec.operator import FEATURES, Operator
from autokd.testing.operators import samples
from autokd.testing.operators.forms import Form, forms_with, spec_of, spec_of_all
from autokd.testing.operators.probes import expect
from autokd.testing.operators.samples import LEVELS, OF_ALL_CLASSES, TARGETS, boxes

_PLAIN = Weight("absolute", 1.0)
_SIZE_PX = (96, 128)
_CASES = {
    "ordinary": (LEVELS, _SIZE_PX, TARGETS),
    "one image": (LEVELS, _SIZE_PX, TARGETS[:1]),
    "odd sizes": ({"p3": ((13, 7), 8), "p4": ((7, 4), 16), "p5": ((4, 2), 32)}, (99, 53), TARGETS),
    "single cells": ({"p3": ((1, 1), 8), "p4": ((1, 1), 16), "p5": ((1, 1), 32)}, (8, 8), TARGETS[:1]),
    "no boxes": (LEVELS, _SIZE_PX, boxes([], [])),
    "an image without boxes": (LEVELS, _SIZE_PX, boxes([], [[5, 5, 50, 50]])),
    "boxes everywhere": (LEVELS, _SIZE_PX, boxes([[0, 0, 128, 96]], [[-9, -9, 999, 999]])),
    "boxes outside, without area, not finite": (
        LEVELS,
        _SIZE_PX,
        boxes([[300, 300, 400, 400], [20, 20, 20, 20]], [[-50, -50, -1, -1], [torch.nan, 0, 5, 5], [9, 9, 2, 2]]),
    ),
}


def gives_pairs_of_equal_shape(row: Operator) -> None:
    """The source's pairs: its layout, a pair a level if it says so, connected to the student alone."""
    student, teacher = samples.outputs(5), samples.outputs(7, seed=1)
    inputs = samples.inputs_of(student, teacher)
    context = BuildContext(inputs.pairs, samples.NUM_CLASSES, student, teacher)
    pairs = make_operator("source", Step.of(row.name), context)(inputs)
    expect(pairs, row, "it gives no pair")
    expect(not row.by_level or len(pairs) == len(inputs.pairs), row, "it does not give a pair for each level")
    for pair in pairs:
        expect(pair.layout == row.gives, row, f"it gives {pair.layout}")
        expect(pair.student_SCHW.shape == pair.teacher_SCHW.shape, row, "sides differ in shape")
        if pair.layout in FEATURES:
            expect(pair.student_SCHW.shape[1] == 7, row, "the student's channels are not adapted to the teacher's")
        expect(pair.student_SCHW.requires_grad, row, "it is not connected to the student")
        expect(not pair.teacher_SCHW.requires_grad, row, "it is connected to the teacher")
        weights = pair.weights_SHW
        fits = weights is None or weights.shape == pair.student_SCHW[:, 0].shape
        expect(fits, row, "weights and maps differ in shape")


def makes_finite_terms(row: Operator) -> None:
    """Terms with the operator have finite values, at least 0, and finite gradients on every pair and with any boxes."""
    forms = forms_with(row)
    words = _not_finite(spec_of_all(forms, _PLAIN))
    if words is not None:  # of which form?
        for form in forms:
            found = _not_finite(spec_of(*form, _PLAIN))
            expect(found is None, row, found or "", form)
        raise AssertionError(f"{row.name!r}: {words} in a sum of terms, and in none of them alone")


def _not_finite(spec: DistillerSpec) -> str | None:
    """Return what is wrong with a term or its gradient, and on which case; None if nothing is."""
    distiller = build_distiller(spec, samples.outputs(4), samples.outputs(4, seed=1), num_classes=3)
    for case, (levels, size_px, targets) in _CASES.items():
        student, teacher = (samples.outputs(4, len(targets), seed, levels, size_px) for seed in (2, 3))
        try:
            result = distiller(student, teacher, targets)
        except NonFiniteError as error:
            return f"{error} ({case})"
        wrong = [value.raw.item() for value in result.terms.values() if not value.raw >= -1e-6]
        if wrong:
            return f"a term is {wrong[0]} ({case})"
        gradients = torch.autograd.grad(result.total, list(student.pyramid.values()), allow_unused=True)
        if not all(found is None or found.isfinite().all() for found in gradients):
            return f"a term's gradient is not finite ({case})"
    return None


def makes_terms_that_teach(row: Operator) -> None:
    """Terms with the operator are 0 with gradient 0 at equality (if their rows say so) and positive elsewhere.

    The same outputs give the same value again, a gradient reaches the student, and none reaches the teacher.
    """
    # Three images: a correlation over two samples is 1 or -1, whatever they hold.
    targets = [*OF_ALL_CLASSES, *samples.boxes([[30, 10, 90, 70]])]
    student, other = (samples.outputs(4, num_images=3, seed=seed) for seed in (0, 1))
    same = samples.like(student, lambda map_BCHW: map_BCHW)
    maps = list(student.pyramid.values())
    for form in forms_with(row):
        distiller = build_distiller(spec_of(*form, _PLAIN), student, other, num_classes=3)
        distiller.eval()  # the step stays, and with it the seed of what is drawn
        if _is_zero_at_equality(form):
            at_equality = distiller(student, same, targets).total
            expect(at_equality.abs() < 1e-6, row, f"a term is {at_equality.item()} at equality", form)
            found = torch.autograd.grad(at_equality, maps, retain_graph=True, allow_unused=True)
            steepness = sum(float(part.abs().sum()) for part in found if part is not None)
            expect(steepness < 1e-5, row, "a term's gradient is not 0 at equality", form)
        elsewhere = distiller(student, other, targets).total
        expect(elsewhere > 1e-9, row, f"a term is {elsewhere.item()} where student and teacher differ", form)
        expect(distiller(student, other, targets).total == elsewhere, row, "a second call differs", form)
        elsewhere.backward(retain_graph=True)  # the predictions' own graph serves the next form as well
        expect(any(tap.grad is not None for tap in maps), row, "no gradient reaches the student", form)
        reaches_teacher = any(tap.grad is not None for tap in other.pyramid.values())
        expect(not reaches_teacher, row, "a gradient reaches the teacher", form)
        for tap in maps:
            tap.grad = None


def _is_zero_at_equality(form: Form) -> bool:
    source, transforms, distance = form
    rows = [SOURCES[source], *(TRANSFORMS[name] for name in transforms), DISTANCES[distance]]
    return all(row.zero_at_equality for row in rows)


CHECKS_OF_SOURCES = (gives_pairs_of_equal_shape,)
CHECKS = (makes_finite_terms, makes_terms_that_teach)
