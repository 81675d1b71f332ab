"""Optuna's own conformance suite over every sampler that a space file can name."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase

from autokd.config import SearchConfig
from autokd.search import MCTSSampler, make_sampler

optuna.logging.set_verbosity(optuna.logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore")


def _mcts_uct() -> BaseSampler:
    return MCTSSampler(0, policy="uct")


def _mcts_tpe() -> BaseSampler:
    return MCTSSampler(0, continuous="tpe")


def _mcts_given() -> BaseSampler:
    return MCTSSampler(0, continuous=optuna.samplers.TPESampler(seed=0))


class TestMCTS(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture(params=[lambda: MCTSSampler(0), _mcts_uct, _mcts_tpe, _mcts_given, MCTSSampler])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return request.param  # type: ignore[no-any-return]


class TestNamedSamplers(BasicSamplerTestCase):
    @pytest.fixture(params=["mcts", "tpe", "nsga2", "random"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: make_sampler(SearchConfig(sampler=request.param))


@pytest.mark.slow
class TestGaussianProcess(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: make_sampler(SearchConfig(sampler="gp"))
