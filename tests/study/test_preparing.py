"""Preparation as jobs of a runtime makes what preparation in the driver makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autokd.config import RuntimeConfig
from autokd.data import load_datasets
from autokd.errors import AutoKDError
from autokd.jobs import WorkerResources
from autokd.runtime import InProcessRuntime
from autokd.study import preparing
from autokd.study.observer import SilentObserver
from autokd.study.preparing import prepare_on_workers, prepares_on_workers
from autokd.training import prepare
from autokd.training.cost import disk
from autokd.training.preparation_jobs import PreparationTask
from tests.support.training_samples import make_config


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def test_jobs_prepare_what_the_driver_would(tmp_path: Path) -> None:
    config = make_config(teacher={"train": {"epochs": 1, "batch_size": 8}})
    datasets = load_datasets(config.data, tmp_path / "data")
    here = prepare(config, datasets, tmp_path / "here")
    runtime = InProcessRuntime(WorkerResources())
    by_jobs = prepare_on_workers(config, datasets, tmp_path / "jobs", (0,), runtime, SilentObserver())
    assert by_jobs.preparation.scores[0].val_per_class == here.scores[0].val_per_class
    assert by_jobs.preparation.score.test_ap == here.score.test_ap
    assert (by_jobs.config.proxy.teacher_outputs, by_jobs.config.full.teacher_outputs) == ("disk", "disk")
    made = [
        sorted(
            str(path.relative_to(tmp_path / name))
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and path.suffix in (".npy", ".pt", ".crc")
        )
        for name in ("here", "jobs")
    ]
    assert made[0] == made[1]
    for name in made[0]:
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("here", "jobs"))
        assert one == other or name.endswith(".pt"), name  # torch.save writes no equal archives


def test_a_failed_job_ends_the_run_with_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    datasets = load_datasets(config.data, tmp_path / "data")
    monkeypatch.setattr(disk, "require_room", lambda *args: (_ for _ in ()).throw(AutoKDError("no room at all")))
    with pytest.raises(AutoKDError, match=r'preparation \["check".* failed on .*no room at all'):
        prepare_on_workers(config, datasets, tmp_path, (0,), InProcessRuntime(WorkerResources()), SilentObserver())


def test_the_driver_prepares_only_where_it_has_what_workers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "has_local_gpus", lambda gpus: False)
    assert not prepares_on_workers(RuntimeConfig(workers=0))
    assert not prepares_on_workers(RuntimeConfig(workers=2))
    assert prepares_on_workers(RuntimeConfig(workers=2, ray_address="auto"))
    monkeypatch.setattr(preparing, "has_local_gpus", lambda gpus: True)
    assert prepares_on_workers(RuntimeConfig(workers=2))
    assert not prepares_on_workers(RuntimeConfig(workers=0))


def test_a_task_comes_back_from_its_job() -> None:
    task = PreparationTask("outputs", 3, {"full": "live", "proxy": "disk"})
    assert PreparationTask.of(task.job()) == task
