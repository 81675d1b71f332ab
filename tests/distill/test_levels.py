"""Terms that read some of the pyramid's levels: their values, by NumPy, and what they leave alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from autokd.distill import build_distiller
from autokd.errors import DistillError
from autokd.spec import SOURCES, DistillerSpec, Step, TermSpec, Weight
from autokd.testing.operators import samples

BY_LEVEL = [name for name, row in SOURCES.items() if row.by_level]
KEPT = {("all",): ("p3", "p4", "p5"), ("coarsest",): ("p5",), ("finest",): ("p3",), ("p4", "p5"): ("p4", "p5")}


def spec_of(levels, source="feature_map", level_weighting="equal"):
    weight = Weight("absolute", 1.0, level_weighting=level_weighting)
    return DistillerSpec((TermSpec(Step.of(source), (), Step.of("l2"), weight, levels),))


def total(spec, student, teacher):
    return build_distiller(spec, student, teacher, samples.NUM_CLASSES)(student, teacher, samples.TARGETS).total


@pytest.mark.parametrize("levels", KEPT)
def test_a_term_is_the_sum_over_the_levels_that_it_names(levels):
    student, teacher = samples.outputs(seed=0), samples.outputs(seed=1)
    expected = sum(
        np.square(student.pyramid[name].detach().numpy().astype(float) - teacher.pyramid[name].detach().numpy()).mean()
        for name in KEPT[levels]
    )
    found = total(spec_of(levels), student, teacher)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    gradients = torch.autograd.grad(found, list(student.pyramid.values()), allow_unused=True)
    reached = {name for name, gradient in zip(student.pyramid, gradients) if gradient is not None}
    assert reached == set(KEPT[levels])


@pytest.mark.parametrize("source", BY_LEVEL)
def test_the_levels_of_every_source_add_up_to_all_of_it(source):
    student, teacher = samples.outputs(seed=0), samples.outputs(seed=1)
    parts = [total(spec_of((name,), source), student, teacher).item() for name in ("p3", "p4", "p5")]
    assert min(parts) > 0
    assert total(spec_of(("all",), source), student, teacher).item() == pytest.approx(sum(parts), rel=1e-5)


def test_coarsest_is_the_greatest_stride_that_both_have_whatever_the_order():
    levels = {"p5": ((3, 4), 32), "p3": ((12, 16), 8), "p4": ((6, 8), 16)}
    student = samples.outputs(seed=0, levels=levels)
    teacher = samples.outputs(seed=1, levels={name: levels[name] for name in ("p3", "p4")})
    found = total(spec_of(("coarsest",)), student, teacher)
    expected = (student.pyramid["p4"] - teacher.pyramid["p4"]).square().mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_only_levels_that_are_read_have_adapters():
    student, teacher = samples.outputs(4), samples.outputs(6, seed=1)
    count = [len(list(build_distiller(spec_of(levels), student, teacher, 3).parameters())) for levels in KEPT]
    assert count == [6, 2, 2, 4], "weight and bias of each level that a term reads"
    both = DistillerSpec((*spec_of(("finest",)).terms, *spec_of(("p5",), "foreground").terms))
    assert len(list(build_distiller(both, student, teacher, 3).parameters())) == 4


def test_levels_share_the_weight_among_those_that_are_kept():
    student, teacher = samples.outputs(seed=0), samples.outputs(seed=1)
    spec = spec_of(("p3", "p5"), level_weighting="gradient")
    distiller = build_distiller(spec, student, teacher, 3)
    found = distiller(student, teacher, samples.TARGETS).total
    gaps = {name: student.pyramid[name] - teacher.pyramid[name] for name in ("p3", "p5")}
    # Of a mean square the gradient is 2 gap / n; factors are inverse to its norm, with mean 1.
    norms = {name: (2 * gap.norm() / gap.numel()).item() for name, gap in gaps.items()}
    mean = sum(1 / norm for norm in norms.values()) / 2
    expected = sum(gap.square().mean().item() / norms[name] / mean for name, gap in gaps.items())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_terms_on_other_levels_do_not_disturb_each_other():
    student, teacher = samples.outputs(seed=0), samples.outputs(seed=1)
    terms = [spec_of(levels).terms[0] for levels in KEPT]
    together = total(DistillerSpec(tuple(terms)), student, teacher)
    assert together.item() == pytest.approx(
        sum(total(spec_of(levels), student, teacher).item() for levels in KEPT), rel=1e-6
    )


def test_a_level_that_the_pair_lacks_is_refused_with_those_that_it_has():
    student, teacher = samples.outputs(seed=0), samples.outputs(seed=1, levels={"a": ((12, 16), 8), "b": ((6, 8), 16)})
    words = (
        "term feature_map.l2: levels: p5, p7 is not among the student's levels that have the stride of one of the "
        "teacher's: p3, p4. Name some of these, or write coarsest or finest."
    )
    with pytest.raises(DistillError, match=re.escape(words)):
        build_distiller(spec_of(("p3", "p5", "p7")), student, teacher, 3)
