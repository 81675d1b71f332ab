"""A run whose process is asked to end in the middle of a full training, and which is resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from autokd.jobs import JobPreempted
from autokd.presets import load_preset
from autokd.study import run_distill
from autokd.training import CheckpointFile
from tests.support.training_samples import make_config

SPEC = load_preset("fitnet").with_gradient_ratio(20.0)


@pytest.fixture
def steps(monkeypatch):
    """Numbers of the steps that trainings have done; a number in ``stop_at`` sends SIGTERM during that step."""

    class Steps(list):
        stop_at: int | None = None

    done, plain = Steps(), CheckpointFile.after_step

    def after_step(self, snapshot) -> None:
        done.append(self.path.name)
        if len(done) == done.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(self, snapshot)

    monkeypatch.setattr(CheckpointFile, "after_step", after_step)
    return done


def test_a_resumed_run_goes_on_within_the_training_and_ends_as_one_left_alone(steps, tmp_path):
    config = make_config(
        full={"epochs": 3, "seeds": (0,), "baselines": ("none",)},
        runtime={"workers": 0, "checkpoint_every_s": 3600.0},
    )

    def run(folder: str, resume: bool = False):
        return run_distill(config, SPEC, tmp_path / folder, cache_dir=tmp_path / "cache", resume=resume)

    whole = run("whole")
    num_steps = len(steps) - steps.count(steps[0])  # without the teacher's
    assert num_steps == 12
    steps.clear()
    steps.stop_at = 6 + 3  # in the second epoch of the second training
    with pytest.raises(JobPreempted):
        run("stopped")
    assert len(list((tmp_path / "stopped" / "checkpoints").iterdir())) == 1
    resumed = run("stopped", resume=True)
    assert len(steps) == num_steps, "no step was done twice"
    assert resumed.winner == whole.winner
    for one, other in zip(whole.entries, resumed.entries, strict=True):
        assert (one.digest, one.val_ap, one.test_ap, one.metrics["val_loss"], one.metrics["train_loss"]) == (
            other.digest,
            other.val_ap,
            other.test_ap,
            other.metrics["val_loss"],
            other.metrics["train_loss"],
        )
    weights = [torch.load(Path(tmp_path / name / "student.pt"), weights_only=True) for name in ("whole", "stopped")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not (tmp_path / "stopped" / "checkpoints").exists()
