"""A training that several processes share goes on from the first one's checkpoint, equal to one left alone."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autokd.jobs import Job, JobPreempted
from autokd.presets import load_preset
from autokd.training import CheckpointFile
from autokd.training.assets import TrainingAssets
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.jobs.job_checkpoints import checkpoints_of
from autokd.training.loop import StudentExtras, train
from autokd.training.optim.averaging import WeightAverage
from autokd.training.shards import RankGroup
from tests.support.rank_processes import in_ranks
from tests.support.training_samples import make_config

CPU = torch.device("cpu")
SPEC = load_preset("global_knowledge").with_gradient_ratio(20.0)


class _Interrupting(CheckpointFile):
    stop_after = 0

    def after_step(self, snapshot) -> None:
        self.stop_after -= 1
        if self.stop_after == 0:
            self.termination.request()
        super().after_step(snapshot)


def trained(cache: Path, run: Path, stop_after: int) -> dict[str, Any]:
    """Train 4 steps in 2 epochs on every rank, or up to a step."""
    config = make_config(runtime={"checkpoint_every_s": 3600.0})
    assets = TrainingAssets(config, cache, CPU)
    ranks = RankGroup.current()
    found = checkpoints_of(Job("a", SPEC, "full"), assets, run)
    assert isinstance(found, CheckpointFile)
    found.__class__ = _Interrupting
    found.stop_after = stop_after
    step = 0 if found.saved is None else found.saved["position"]["step"]
    student = assets.students.new(0)
    loader = replace(assets.data.training_loader("full"), ranks=ranks)
    distillation = build_distillation(SPEC, student, loader, assets, "full", seed=0)
    average = WeightAverage(student, 0.9)
    results = []
    with contextlib.suppress(JobPreempted):
        results += train(
            student, loader, config.full, seed=0, distillation=distillation, extras=StudentExtras(average=average),
            checkpoints=found,
        )  # fmt: skip
    return {
        "began at": step,
        "losses": [dict(result.losses) for result in results],
        "student": dict(student.state_dict()),
        "distiller": dict(distillation.distiller.state_dict()),
        "average": average.get_state()["averages"],
    }


def prepare(cache: Path) -> None:
    assets = TrainingAssets(make_config(), cache, CPU)
    assets.teachers.training_cache("full")


@pytest.mark.slow
def test_ranks_go_on_from_the_first_ones_checkpoint(tiny_cache, tmp_path):
    prepare(tiny_cache)
    whole = in_ranks(2, trained, tmp_path / "whole", tiny_cache, tmp_path / "run_whole", 0)
    in_ranks(2, trained, tmp_path / "first", tiny_cache, tmp_path / "run", 3)
    assert len(list((tmp_path / "run").rglob("*.checkpoint"))) == 1
    resumed = in_ranks(2, trained, tmp_path / "second", tiny_cache, tmp_path / "run", 0)
    for one, other in zip(whole, resumed, strict=True):
        assert other["began at"] == 3
        assert other["losses"] == one["losses"][1:]
        for part in ("student", "distiller"):
            for name, value in one[part].items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(value, other[part][name]), name
        assert all(torch.equal(*pair) for pair in zip(one["average"], other["average"], strict=True))


def on_folders_of_their_own(cache: Path, folder: Path) -> bool:
    rank = RankGroup.current().rank
    assets = TrainingAssets(make_config(runtime={"checkpoint_every_s": 3600.0}), cache, CPU)
    return checkpoints_of(Job("a", SPEC, "full"), assets, folder / f"run_{rank}").saved is None


@pytest.mark.slow
def test_ranks_that_read_different_checkpoints_all_begin_anew(tiny_cache, tmp_path):
    prepare(tiny_cache)
    in_ranks(2, trained, tmp_path / "first", tiny_cache, tmp_path / "run_0", 3)  # a folder that rank 1 does not see
    assert in_ranks(2, on_folders_of_their_own, tmp_path / "second", tiny_cache, tmp_path) == [True, True]
