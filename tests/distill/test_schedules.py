"""Schedules of weights by their formulas; a term that is off costs nothing and disturbs no other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autokd.distill import build_distiller
from autokd.distill.weighting.schedules import is_over, schedule_factor
from autokd.spec import DistillerSpec, Step, TermSpec, Weight
from autokd.testing.operators import samples

PROGRESS = np.linspace(0, 1, 41)


def weight_of(schedule, off_after=1.0, kind="absolute"):
    return Weight(kind, 2.0, schedule, off_after=off_after)


def test_factors_follow_their_formulas():
    for p in PROGRESS:
        assert schedule_factor(weight_of("constant"), p) == 1
        assert schedule_factor(weight_of("linear_decay"), p) == pytest.approx(1 - p)
        assert schedule_factor(weight_of("warm_up"), p) == pytest.approx(np.clip(10 * p, 0, 1))
        assert schedule_factor(weight_of("cosine_decay"), p) == pytest.approx(np.cos(math.pi * p / 2) ** 2)
        assert schedule_factor(weight_of("off_after", 0.93), p) == (p < 0.93)


def test_only_a_term_that_is_off_is_over():
    assert [is_over(weight_of("off_after", 0.5), p) for p in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    assert is_over(weight_of("off_after", 0.666667), 2 / 3), "a spec's numbers have 6 digits"
    assert not any(is_over(weight_of(s), 1.0) for s in ("constant", "linear_decay", "warm_up", "cosine_decay"))


def test_rtmdet_stops_before_epoch_281_of_300():
    """MMRazor's StopDistillationHook(stop_epoch=280) counts epochs from 0: those from 280 on are not distilled."""
    weight = weight_of("off_after", 280 / 300)
    assert [epoch for epoch in range(1, 301) if not is_over(weight, (epoch - 1) / 300)] == list(range(1, 281))


def term(source, weight, *transforms):
    return TermSpec(Step.of(source), tuple(map(Step.of, transforms)), Step.of("l2"), weight)


def run(spec, num_steps=20, half=None, observed=None):
    """Train for one epoch of ``num_steps``; return the results, and the distiller."""
    student, teacher = samples.outputs(seed=0, with_loss=True), samples.outputs(seed=1)
    distiller = build_distiller(spec, student, teacher, samples.NUM_CLASSES, recalibrate_every=4)
    distiller.begin_epoch(1, 1, num_steps)
    results = []
    for step in range(num_steps):
        keys = []
        distiller.observer = keys.append
        batch = samples.outputs(seed=step, with_loss=True)
        if half is not None and step == half:
            state = distiller.state_dict()
            distiller = build_distiller(spec, student, teacher, samples.NUM_CLASSES, recalibrate_every=4)
            distiller.load_state_dict(state)
        results.append(distiller(batch, samples.outputs(seed=100 + step), samples.TARGETS))
        if observed is not None:
            observed.append(keys)
    return results, distiller


def test_a_term_that_is_off_is_0_and_is_not_computed():
    off = term("instance", weight_of("off_after", 0.5), "standardize")
    on = term("feature_map", weight_of("constant"))
    keys = []
    results, _ = run(DistillerSpec((off, on)), observed=keys)
    name = "instance.standardize.l2"
    for step, (result, seen) in enumerate(zip(results, keys, strict=True)):
        sources = {type(key[1]).__name__ for key in seen if key[0] == "operators"}
        assert sources == ({"FeatureMap", "Instance"} if step < 10 else {"FeatureMap"}), step
        assert (float(result.terms[name].weighted) > 0) == (step < 10)
        assert float(result.terms["feature_map.l2"].weighted) > 0
        assert result.total.item() == pytest.approx(sum(float(value.weighted) for value in result.terms.values()))


def test_relative_weights_of_the_others_are_as_without_a_term_that_is_off():
    on = term("feature_map", weight_of("constant", kind="relative"))
    off = term("foreground", weight_of("off_after", 0.4, "relative"), "standardize")
    alone, _ = run(DistillerSpec((on,)))
    beside, _ = run(DistillerSpec((on, off)))
    for one, other in zip(alone, beside, strict=True):
        assert float(one.terms["feature_map.l2"].weight) == pytest.approx(
            float(other.terms["feature_map.l2"].weight), rel=1e-6
        )
    factors = [float(result.terms["foreground.standardize.l2"].weight) for result in beside]
    assert min(factors[:8]) > 0
    assert factors[8:] == [0.0] * 12


def test_when_all_terms_are_off_nothing_is_measured_and_the_loss_is_a_constant():
    keys = []
    results, distiller = run(
        DistillerSpec((term("feature_map", weight_of("off_after", 0.5, "relative")),)), observed=keys
    )
    before = distiller.balance.state_dict()
    results_later = distiller(samples.outputs(seed=7, with_loss=True), samples.outputs(seed=8), samples.TARGETS)
    assert not any(key[0] == "operators" for seen in keys[10:] for key in seen)
    assert results[9].total.requires_grad
    assert not results[10].total.requires_grad
    assert results_later.total.item() == 0
    after = distiller.balance.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_resumed_training_is_off_at_the_same_step():
    spec = DistillerSpec((term("feature_map", weight_of("off_after", 0.62, "relative")),
                          term("foreground", weight_of("cosine_decay", kind="relative"))))  # fmt: skip
    whole, _ = run(spec)
    resumed, _ = run(spec, half=9)
    assert [one.total.item() for one in whole] == [one.total.item() for one in resumed]
    assert [float(one.terms["feature_map.l2"].weight) > 0 for one in whole] == [step < 13 for step in range(20)]
