"""The average of a full training's weights, and its early end at the best epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from autokd.jobs import Job, WorkerResources
from autokd.training import CheckpointFile, PrecisionMeter, TrainingEvaluatorFactory
from autokd.training.assets import TrainingAssets
from autokd.training.jobs import full_training
from autokd.training.loop import Schedule, train
from tests.support.training_samples import make_config

CPU = torch.device("cpu")
JOB = Job("full-none-s0", None, "full")


@pytest.fixture
def run_full(tiny_cache, tmp_path, run_job):
    def run(**recipe: Any):
        config = make_config(full={"epochs": 2, "batch_size": 4, **recipe}, runtime={"checkpoint_every_s": 3600.0})
        reports, outcome = run_job(TrainingEvaluatorFactory(config, tiny_cache, tmp_path)(WorkerResources()), JOB)
        assert outcome.status == "finished", outcome.message
        return TrainingAssets(config, tiny_cache, CPU), reports, outcome

    return run


def exported(outcome) -> dict[str, torch.Tensor]:
    return torch.load(outcome.file("weights"), weights_only=True)


def test_the_exported_and_measured_student_is_the_average(run_full, tmp_path, monkeypatch):
    states: list[dict[str, torch.Tensor]] = []
    plain = CheckpointFile.after_step

    def after_step(self, snapshot) -> None:
        if self.path.is_relative_to(tmp_path):  # and not the teacher's, in the cache
            states.append(snapshot()["student"])
        plain(self, snapshot)

    monkeypatch.setattr(CheckpointFile, "after_step", after_step)
    decay = 0.05
    assets, _, outcome = run_full(weight_average=decay)
    assert len(states) == 4
    expected = dict(states[-1])
    for name, value in states[0].items():
        if value.is_floating_point():
            average = np.zeros(tuple(value.shape))
            for step, state in enumerate(states):
                part = min(decay, step / (step + 9))
                average = part * average + (1 - part) * state[name].double().numpy()
            expected[name] = torch.from_numpy(average).float()
    student = assets.students.new(0)
    student.load_state_dict(expected)
    found, last = exported(outcome), states[-1]
    own = student.plain_state_dict()
    assert found.keys() == own.keys()
    for name, value in found.items():
        assert torch.allclose(value, own[name], atol=1e-6), name
    assert any(not torch.equal(expected[name], last[name]) for name in last)
    student.model.load_state_dict(found)
    dataset = assets.data.full.test
    precision = PrecisionMeter(dataset).measure(student.eval(), batch_size=16, device=CPU)
    assert precision.map_50_95 == outcome.metrics["test_ap"]


def with_losses(monkeypatch, values: list[float]) -> None:
    """Let the epochs have these validation losses."""
    plain, left = full_training.validate, list(values)

    def validate(student, loader, teacher=None, **settings):
        found = plain(student, loader, teacher, **settings)
        # The last measurement, with detections, is that of the end.
        return found if settings.get("wants_detections") else replace(found, val_loss=left.pop(0))

    monkeypatch.setattr(full_training, "validate", validate)


def test_a_training_without_a_better_epoch_ends_and_its_best_student_is_kept(run_full, monkeypatch):
    with_losses(monkeypatch, [3.0, 1.0, 1.0, 2.0, 0.5, 0.1])
    assets, reports, outcome = run_full(epochs=6, patience=2, patience_metric="val_loss")
    assert [report.metrics["val_loss"] for report in reports] == [3.0, 1.0, 1.0, 2.0]
    assert outcome.metrics["best_epoch"] == 2
    student = assets.students.new(0)
    loader = assets.data.training_loader("full")
    list(train(student, loader, assets.config.full, seed=0, schedule=Schedule(stop_after=2)))
    found = exported(outcome)
    assert all(torch.equal(found[name], value) for name, value in student.plain_state_dict().items())


def test_ap_is_better_if_it_is_greater_and_a_training_that_improves_has_all_epochs(run_full, monkeypatch):
    scores = iter([0.1, 0.3, 0.2, 0.4])
    plain = PrecisionMeter.score

    def score(self, *arguments, **settings):
        found = plain(self, *arguments, **settings)
        return found if settings.get("by_size") else replace(found, map_50_95=next(scores))

    monkeypatch.setattr(PrecisionMeter, "score", score)
    _, reports, outcome = run_full(epochs=4, patience=2)
    assert [report.metrics["val_ap"] for report in reports] == [0.1, 0.3, 0.2, 0.4]
    assert outcome.metrics["best_epoch"] == 4


def test_nothing_is_measured_on_the_way_without_patience(run_full):
    _, reports, outcome = run_full()
    assert all("val_ap" not in report.metrics and "val_loss" not in report.metrics for report in reports)
    assert "best_epoch" not in outcome.metrics


def test_with_an_average_the_best_epochs_average_is_kept(run_full, monkeypatch):
    """Patience 1 and a loss that rises: the average after the first epoch, not after the second."""
    averages: list[dict[str, torch.Tensor]] = []
    plain = full_training.BestEpoch.add

    def add(self, epoch, value, student) -> None:
        averages.append({name: value.clone() for name, value in student.plain_state_dict().items()})
        plain(self, epoch, value, student)

    monkeypatch.setattr(full_training.BestEpoch, "add", add)
    with_losses(monkeypatch, [1.0, 2.0])
    _, reports, outcome = run_full(epochs=5, patience=1, patience_metric="val_loss", weight_average=0.5)
    assert len(reports) == len(averages) == 2
    found = exported(outcome)
    assert all(torch.equal(found[name], value) for name, value in averages[0].items())
    assert any(not torch.equal(found[name], value) for name, value in averages[1].items())
