"""Weights of kind "share": the factor changes between epochs alone, if the epoch's mean share left its band."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.errors import SpecError
from autokd.spec import DistillerSpec, Weight, formula
from tests.support import distill_cases as cases

SHARE = 0.25
STUDENT = cases.outputs(seed=100, with_loss=True)
TEACHER = cases.outputs(seed=200)


def norm_of(value: Tensor, outputs: DetectorOutputs) -> float:
    found = torch.autograd.grad(value, list(outputs.pyramid.values()), retain_graph=True)
    return float(torch.cat([gradient.flatten() for gradient in found]).norm())


def share_of(distiller, teacher=TEACHER) -> float:
    term = norm_of(distiller(STUDENT, teacher).total, STUDENT)
    return term / (term + norm_of(STUDENT.task_loss, STUDENT))


def built(value: float = SHARE, every: int = 2):
    spec = cases.spec_of("feature_map", [], "l2", Weight("share", value))
    return build_distiller(spec, student=STUDENT, teacher=TEACHER, num_classes=3, recalibrate_every=every)


def epoch(distiller, number: int, teacher: DetectorOutputs, steps: int = 6) -> list[float]:
    distiller.begin_epoch(number, num_epochs=10, steps_per_epoch=steps)
    return [share_of(distiller, teacher) for _ in range(steps)]


def times(factor: float) -> DetectorOutputs:
    """A teacher at which the gradient of l2 is ``factor`` times that at TEACHER."""
    maps = zip(STUDENT.pyramid.values(), TEACHER.pyramid.values(), strict=True)
    made = iter([(s + factor * (t - s)).detach() for s, t in maps])
    return cases.like(TEACHER, lambda map_BCHW: next(made))


def test_the_first_steps_give_the_share_that_was_asked():
    assert epoch(built(), 1, TEACHER) == pytest.approx([SHARE] * 6, rel=1e-4)


def test_within_the_band_the_factor_stays():
    distiller = built()
    epoch(distiller, 1, TEACHER)
    epoch(distiller, 2, times(1.2))  # a share of .286
    expected = 1.2 / (1.2 + 3)
    assert epoch(distiller, 3, times(1.2)) == pytest.approx([expected] * 6, rel=1e-4)


@pytest.mark.parametrize("drift", [0.4, 3.0])
def test_beyond_it_the_next_epoch_begins_with_the_factor_that_meets_the_share(drift):
    distiller = built()
    epoch(distiller, 1, TEACHER)
    assert epoch(distiller, 2, times(drift)) == pytest.approx([drift / (drift + 3)] * 6, rel=1e-4)
    assert epoch(distiller, 3, times(drift)) == pytest.approx([SHARE] * 6, rel=1e-4)


def test_the_factor_stays_within_ten_times_the_first_one():
    distiller = built()
    epoch(distiller, 1, TEACHER)
    for number in (2, 3, 4):
        last = epoch(distiller, number, times(0.01))
    assert last == pytest.approx([0.1 / (0.1 + 3)] * 6, rel=1e-3)


def test_a_share_survives_a_checkpoint_within_an_epoch():
    one, other = built(), built()
    epoch(one, 1, TEACHER)
    epoch(one, 2, times(3.0), steps=3)
    other.load_state_dict(one.state_dict())
    assert epoch(one, 3, times(3.0)) == epoch(other, 3, times(3.0))


def test_terms_of_both_rules_stand_side_by_side():
    terms = (
        *cases.spec_of("feature_map", [], "l2", Weight("share", 0.5)).terms,
        *cases.spec_of("feature_map", [], "l1", Weight("relative", 2.0)).terms,
    )
    distiller = build_distiller(
        DistillerSpec(terms), student=STUDENT, teacher=TEACHER, num_classes=3, recalibrate_every=1
    )
    task = norm_of(STUDENT.task_loss, STUDENT)
    plain_l1 = cases.spec_of("feature_map", [], "l1", Weight("absolute", 1.0))
    l1 = build_distiller(plain_l1, student=STUDENT, teacher=TEACHER, num_classes=3)(STUDENT, TEACHER).total
    plain_l2 = cases.spec_of("feature_map", [], "l2", Weight("absolute", 1.0))
    l2 = build_distiller(plain_l2, student=STUDENT, teacher=TEACHER, num_classes=3)(STUDENT, TEACHER).total
    distiller.begin_epoch(1, num_epochs=2, steps_per_epoch=4)
    for _ in range(4):
        found = distiller(STUDENT, TEACHER).terms
    assert float(found["feature_map.l1"].weight) * norm_of(l1, STUDENT) / task == pytest.approx(2, rel=1e-4)
    assert float(found["feature_map.l2"].weight) * norm_of(l2, STUDENT) / task == pytest.approx(1, rel=1e-4)


def test_a_share_reads_and_writes_as_yaml_and_is_refused_at_1():
    text = "terms:\n- {source: feature_map, distance: l2, weight: {share: 0.2}}\n"
    spec = DistillerSpec.from_yaml(text)
    assert DistillerSpec.from_yaml(spec.to_yaml()) == spec
    assert spec.digest != spec.with_gradient_ratio(0.25).digest
    assert formula(spec).startswith("0.2 of the gradient x l2(")
    assert spec.terms[0].weight.ratio == pytest.approx(0.25)
    for value in (1, 1.5, 0, -1, math.nan):
        with pytest.raises(SpecError, match=r"below 1|above 0"):
            Weight("share", value)
