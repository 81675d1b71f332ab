"""Lends one Ray to all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autokd.config import RuntimeConfig
from autokd.runtime import Runtime, SimulatedRuntime, make_runtime


@pytest.fixture(scope="module", params=["in_process", "simulated", pytest.param("ray", marks=pytest.mark.ray)])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    if request.param == "simulated":
        # One worker: with more, the suite hangs a job beside another, and nothing is killed on a virtual clock.
        with SimulatedRuntime(1) as simulated:
            yield simulated
        return
    workers = 0 if request.param == "in_process" else 2
    with make_runtime(RuntimeConfig(workers=workers, max_worker_losses=1)) as made:
        yield made
