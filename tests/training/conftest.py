"""A tiny generated set, a tiny pair of detectors, and a cache that the whole session of tests shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autokd.config import ResolvedConfig
from autokd.data import Datasets, load_datasets
from autokd.jobs import Evaluator, Job, Outcome, Report
from autokd.runtime import run_guarded
from tests.support.training_samples import make_config


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_tiny_config():
    return make_config


@pytest.fixture(scope="session")
def tiny_config() -> ResolvedConfig:
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
    """Run a job to its end, as a worker does: (reports, outcome)."""

    def run(evaluator: Evaluator, job: Job) -> tuple[list[Report], Outcome]:
        training, reports = run_guarded(evaluator, job), []
        while True:
            try:
                reports.append(next(training))
            except StopIteration as end:
                return reports, end.value

    return run
