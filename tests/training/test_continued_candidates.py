"""A candidate that is judged on its way and continued ends as a full training that was never cut."""

from __future__ import annotations

import pytest

from autokd.jobs import Outcome, WorkerResources, make_job, make_rung_job
from autokd.presets import load_preset
from autokd.runtime.containment import run_guarded
from autokd.training import TrainingEvaluatorFactory
from autokd.training.jobs.full_training import evaluated_epochs
from tests.support.training_samples import make_config

SPEC = load_preset("fitnet").with_gradient_ratio(20.0)


def finish(training) -> Outcome:
    while True:
        try:
            next(training)
        except StopIteration as end:
            return end.value


def test_the_last_quarter_is_evaluated_three_epochs_at_most():
    assert [evaluated_epochs(n) for n in (1, 2, 7, 8, 40)] == [(1,), (2,), (7,), (7, 8), (38, 39, 40)]


@pytest.mark.slow
def test_a_training_continued_from_two_cuts_equals_one_that_was_not_cut(tiny_cache, tmp_path):
    config = make_config(
        runtime={"workers": 0, "checkpoint_every_s": None}, full={"epochs": 4, "weight_average": 0.9, "seeds": [0]}
    )
    evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "cut")(WorkerResources())
    first = finish(run_guarded(evaluator, make_rung_job(SPEC, 0, 1)))
    second = finish(run_guarded(evaluator, make_rung_job(SPEC, 0, 2)))
    assert {"ap", "cka", "val_loss"} <= set(first.metrics)
    assert "val_ap" not in second.metrics, "it is judged as a candidate"
    assert [report.epoch for report in second.reports] == [1, 2]
    assert second.reports[0].metrics == first.reports[0].metrics, "its first epoch was not trained again"
    assert first.artifacts["checkpoint"] == second.artifacts["checkpoint"]
    continued = finish(run_guarded(evaluator, make_job(SPEC, "full", 0)))
    assert not list((tmp_path / "cut").rglob("*.checkpoint")), "the training has ended"
    whole = finish(
        run_guarded(
            TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "whole")(WorkerResources()),
            make_job(SPEC, "full", 0),
        )
    )
    timed = ("train_seconds",)
    assert {k: v for k, v in continued.metrics.items() if k not in timed} == {
        k: v for k, v in whole.metrics.items() if k not in timed
    }
    assert [report.epoch for report in continued.reports] == [1, 2, 3, 4]
