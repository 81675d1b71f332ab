"""A full training over Ray Train gives what one process gives."""

from __future__ import annotations

import pytest
import torch

from autokd.config import RuntimeConfig
from autokd.jobs import Job, Outcome, Report, WorkerResources
from autokd.presets import load_preset
from autokd.runtime import make_runtime
from autokd.training import TrainingEvaluatorFactory
from tests.support.training_samples import make_config


class OneJob:
    def __init__(self, job: Job) -> None:
        self._jobs, self.reports, self.outcome = [job], [], None

    def next_job(self) -> Job | None:
        return self._jobs.pop() if self._jobs else None

    def on_report(self, report: Report) -> bool:
        self.reports.append(report)
        return True

    def on_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome


@pytest.mark.ray
@pytest.mark.slow
def test_two_ranks_of_ray_train_hand_over_the_student_of_one_process(tiny_cache, tmp_path, run_job):
    """Losses within 1e-5, and weights within 1e-4 of the way that they went: rounding errors of a few steps (see
    test_data_parallel). Detections of a student that has hardly learned hang on ties of scores: AP may differ."""
    config = make_config(full={"epochs": 2, "batch_size": 4})
    job = Job("full-fitnet-s0", load_preset("fitnet").with_gradient_ratio(20.0), "full", 0)
    alone = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "alone")
    _, one = run_job(alone(WorkerResources(num_threads=1)), job)
    driver = OneJob(job)
    with make_runtime(RuntimeConfig(workers=0, full_processes=2, threads_per_worker=1)) as runtime:
        runtime.run(driver, TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "ranks"))
    two = driver.outcome
    assert (one.status, two.status) == ("finished", "finished"), two.message
    assert [report.epoch for report in driver.reports] == [1, 2]
    for ours, theirs in zip(two.reports, one.reports, strict=True):
        for name in ("train_loss", "distill_loss"):
            assert ours.metrics[name] == pytest.approx(theirs.metrics[name], rel=1e-5)
    assert two.metrics["val_loss"] == pytest.approx(one.metrics["val_loss"], rel=1e-4)
    assert two.metrics["val_ap"] == pytest.approx(one.metrics["val_ap"], abs=0.02)
    assert two.artifacts.keys() == one.artifacts.keys()
    ours, theirs = (torch.load(outcome.file("weights"), weights_only=True) for outcome in (two, one))
    assert ours.keys() == theirs.keys()
    floats = [name for name, value in theirs.items() if value.is_floating_point()]
    difference = torch.cat([(ours[name] - theirs[name]).flatten() for name in floats]).norm()
    assert difference / torch.cat([theirs[name].flatten() for name in floats]).norm() < 1e-4
