"""The public conformance suite over AutoKD's own rows; a new row of the vocabulary is tested by being there."""

from __future__ import annotations

import contextlib
import unittest
from dataclasses import replace

import pytest
import torch

from autokd.distill import build_distiller
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, Operator, Weight
from autokd.testing.operators import operator_checks
from tests.support import distill_cases as cases

ROWS = [*SOURCES.values(), *TRANSFORMS.values(), *DISTANCES.values()]
MINE = Operator("half_l2", "distance", "tests.support.distill_cases:HalfL2", formula="", meaning="", paper="")


@pytest.mark.parametrize("check", operator_checks(ROWS), ids=str)
def test_operator_conforms(check):
    check()


@pytest.mark.parametrize("source", ["foreground", "instance"])
def test_a_source_of_boxes_gives_nothing_without_boxes(source):
    ordinary = cases.outputs(4), cases.outputs(4, seed=1)
    for form in cases.covering_forms(source):
        distiller = build_distiller(cases.spec_of(*form, Weight("absolute", 1.0)), *ordinary, num_classes=3)
        student, teacher = cases.outputs(4, seed=2), cases.outputs(4, seed=3)
        total = distiller(student, teacher, cases.boxes([], [])).total
        assert total == 0, form
        found = torch.autograd.grad(total, list(student.pyramid.values()), allow_unused=True)
        assert not any(part is not None and part.any() for part in found), form


# ---------------------------------------------------------------------- rows of a package that is not installed


def test_the_suite_passes_an_operator_of_another_package():
    checks = operator_checks([replace(MINE, keeps=frozenset({"grouping"}))])
    assert {"half_l2-map-is_positive_elsewhere", "half_l2-makes_terms_that_teach"} <= set(map(str, checks))
    run_all(checks)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (
            replace(MINE, implementation="tests.support.distill_cases:Signed"),
            "'half_l2': its gradient is not 0 at equality",
        ),
        (replace(MINE, implementation="tests.support.distill_cases:Offset"), "'half_l2': not 0 at equality"),
        (replace(MINE, blind_to=frozenset({"cell_scale"})), "to which it is declared blind"),
    ],
    ids=["signed", "offset", "false effect"],
)
def test_the_suite_names_what_an_operator_does_not_keep(row, found):
    checks = operator_checks([row])
    with pytest.raises(AssertionError, match=found):
        run_all(checks)


def run_all(checks):
    for check in checks:
        with contextlib.suppress(unittest.SkipTest):  # no GPU
            check()
