"""A tiny generated set, a tiny pair of detectors, and a cache that the whole session of tests shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autokd.config import RunConfig
from autokd.data import Datasets, load_datasets
from autokd.outcomes import Evaluator, Job, Outcome, Report


def make_config(**changes: Any) -> RunConfig:
    """8 images of 64 x 64, detectors of width 8, trainings of two epochs; sections may be changed."""
    sections: dict[str, Any] = {
        "data": {"format": "shapes", "image_size_px": (64, 64), "num_train": 8, "num_val": 6, "num_test": 5},
        "teacher": {"backbone": {"width": 8}, "fpn_channels": 16, "train": {"epochs": 2, "batch_size": 4}},
        "student": {"backbone": {"width": 8}, "fpn_channels": 8},
        "proxy": {"epochs": 2, "batch_size": 4, "warm_start": {"epochs": 1}},
        "full": {"epochs": 2, "batch_size": 4},
    }
    for name, change in changes.items():
        sections[name] = {**sections[name], **change}
    return RunConfig.model_validate(sections)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_tiny_config():
    return make_config


@pytest.fixture(scope="session")
def tiny_config() -> RunConfig:
    return make_config()


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory) -> Path:
    """Shared: whoever damages something in it makes a cache of their own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_data(tiny_config, tiny_cache) -> Datasets:
    return load_datasets(tiny_config.data, tiny_cache)


@pytest.fixture(scope="session")
def run_job():
    """Run a job to its end: (reports, outcome)."""

    def run(evaluator: Evaluator, job: Job) -> tuple[list[Report], Outcome]:
        training, reports = evaluator.evaluate(job), []
        while True:
            try:
                reports.append(next(training))
            except StopIteration as end:
                return reports, end.value

    return run
