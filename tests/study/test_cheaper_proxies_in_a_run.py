"""A study whose proxies report less: metrics after the last epoch alone, and a last epoch that is part of one."""

from __future__ import annotations

import pytest

from autokd.config import load_config
from autokd.errors import StorageError
from autokd.jobs import Outcome, Report
from autokd.search import MCTSSampler
from autokd.storage import StudyFacts, open_study, read_record
from autokd.study import Reward, run_search
from tests.support.study_fakes import NONE, FakeEvaluator, make_driver, run


class MeasuresAtTheEnd(FakeEvaluator):
    """Before that it knows its training loss alone."""

    def evaluate(self, job):
        training, reports = super().evaluate(job), []
        while True:
            try:
                report = next(training)
            except StopIteration as end:
                return Outcome(job.id, "finished", end.value.metrics, reports=tuple(reports), seconds=0.2)
            if report.epoch < max(NONE):
                report = Report(job.id, report.epoch, {"train_loss": 1.0}, report.seconds)
            reports.append(report)
            yield report


def test_a_search_by_last_epochs_has_the_values_of_one_by_every_epoch(tmp_path):
    values = []
    for evaluator in (FakeEvaluator(), MeasuresAtTheEnd()):
        study = open_study(tmp_path / f"{type(evaluator).__name__}.db", "s", sampler=MCTSSampler(seed=0))
        run(make_driver(study, trials=6), evaluator)
        values.append([(trial.params, trial.value) for trial in study.trials])
        assert set(StudyFacts(study).reward_scales) == {"val_loss", "cka"}
    assert values[0] == values[1]
    for trial in study.trials:
        assert trial.intermediate_values == {2: trial.value}
        assert [report.epoch for report in read_record(trial).outcome.reports] == [1, 2]


def test_a_reward_knows_how_long_none_was_trained_and_when_it_can_be_told():
    reward = Reward(("val_loss", "ap_worst_class"), {1: {}, 2: {"val_loss": 2.0, "ap_worst_class": 0.25}})
    assert reward.num_epochs == 2
    assert not reward.is_known({"val_loss": 1.0})
    assert not reward.is_known({"val_loss": 1.0, "ap_worst_class": float("nan")})
    metrics = {"val_loss": 1.5, "ap_worst_class": 0.5}
    assert reward.is_known(metrics)
    assert reward.gains(metrics, 2) == {"val_loss": 0.5, "ap_worst_class": 0.25}


TEXT = """
name: cheap
data: {format: shapes, image_size_px: [64, 64], num_train: 16, num_val: 8, num_test: 8}
teacher: {backbone: {width: 16}, train: {epochs: 2}}
student: {backbone: {width: 8}}
space: {terms: 1, sources: [feature_map, foreground], distances: [l2, kl]}
search: {trials: 3, enqueue: [], finalists: 2, finalist_seeds: [1]}
proxy:
  warm_start: {epochs: 1}
  epochs: 2
  calibration_trials: 2
  batch_size: 4
  image_size_px: [48, 48]
  subset: 0.75
  subset_rule: stratified
  frozen: [stem]
  steps: 4
  measure: last_epoch
  reward: [val_loss, cka, ap, ap_50, ap_worst_class]
full: {epochs: 1, seeds: [0], baselines: [none]}
runtime: {workers: 0}
"""


@pytest.mark.slow
def test_a_run_with_every_saving_ends_and_is_resumed_without_training(tmp_path, monkeypatch):
    config = load_config(TEXT)
    results = run_search(config, tmp_path / "run", cache_dir=tmp_path / "cache")
    assert results.search.finished == 3
    assert (tmp_path / "run" / "report.html").exists()

    def never(*args, **settings):
        raise AssertionError("trained again")

    for kind in ("proxy_training", "full_training"):
        monkeypatch.setattr(f"autokd.training.jobs.{kind}.train", never)
    again = run_search(config, tmp_path / "run", cache_dir=tmp_path / "cache", resume=True)
    assert [entry.model_dump() for entry in again.entries] == [entry.model_dump() for entry in results.entries]
    with pytest.raises(StorageError):
        run_search(load_config(TEXT.replace("steps: 4", "steps: 3")), tmp_path / "run", cache_dir=tmp_path, resume=True)
