"""The conformance suites over every sampler that a config file can name, and over settings of the tree search."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase

from autokd.config import SearchConfig
from autokd.search import MCTSSampler, make_sampler
from autokd.testing.samplers import SamplerTestCase

optuna.logging.set_verbosity(optuna.logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore")


def _mcts_uct() -> BaseSampler:
    return MCTSSampler(0, policy="uct")


def _mcts_tpe() -> BaseSampler:
    return MCTSSampler(0, continuous="tpe")


class TestMCTS(SamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture(params=[_mcts_uct, _mcts_tpe])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return request.param  # type: ignore[no-any-return]


def _mcts_with_a_sampler_of_its_own_state() -> BaseSampler:
    return MCTSSampler(0, continuous=optuna.samplers.TPESampler(seed=0))


class TestMCTSWithRandomState(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's suite alone: no seed, or a nested sampler that keeps a random state, and so no resumption."""

    @pytest.fixture(params=[_mcts_with_a_sampler_of_its_own_state, MCTSSampler])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return request.param  # type: ignore[no-any-return]


class TestNamedSamplers(SamplerTestCase):
    @pytest.fixture(params=["mcts", "tpe", "nsga2", "random"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: make_sampler(SearchConfig(sampler=request.param))


@pytest.mark.slow
class TestGaussianProcess(SamplerTestCase):
    num_trials = 13  # the first 10 are random; each after them takes a second

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: make_sampler(SearchConfig(sampler="gp"))
