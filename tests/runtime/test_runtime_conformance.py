"""The conformance suite over AutoKD's runtimes: in this process, on a virtual clock, on Ray, and routed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autokd.config import RuntimeConfig
from autokd.runtime import InProcessRuntime, Runtime, SimulatedRuntime, make_runtime
from autokd.runtime.routed import RoutedRuntime
from autokd.testing.runtimes import RuntimeTestCase


class TestInProcessRuntime(RuntimeTestCase):
    @pytest.fixture
    def runtime(self) -> Iterator[Runtime]:
        with make_runtime(RuntimeConfig(workers=0)) as made:
            yield made


class TestSimulatedRuntime(RuntimeTestCase):
    @pytest.fixture
    def runtime(self) -> Iterator[Runtime]:
        with SimulatedRuntime(1) as simulated:  # with more, a job hangs beside another, and it kills none
            yield simulated


class TestRoutedRuntime(RuntimeTestCase):
    @pytest.fixture
    def runtime(self) -> Iterator[Runtime]:
        with RoutedRuntime(InProcessRuntime(), InProcessRuntime()) as routed:
            yield routed


@pytest.fixture(scope="module")
def ray_runtime() -> Iterator[Runtime]:
    """One Ray for all tests: it takes seconds to start."""
    with make_runtime(RuntimeConfig(workers=2, max_worker_losses=1)) as made:
        yield made


@pytest.mark.ray
class TestRayTuneRuntime(RuntimeTestCase):
    @pytest.fixture
    def runtime(self, ray_runtime: Runtime) -> Runtime:
        return ray_runtime
