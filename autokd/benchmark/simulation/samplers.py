"""The samplers that are compared, by name."""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import BaseSampler, TPESampler

from autokd.benchmark.simulation.evolution import RegularizedEvolutionSampler
from autokd.config import SearchConfig
from autokd.search import make_sampler
from autokd.search.samplers import decision_role
from autokd.space import Space


def _named(name: str, **settings: str) -> Callable[[int, Space], BaseSampler]:
    def build(seed: int, space: Space) -> BaseSampler:
        return make_sampler(SearchConfig.model_validate({"sampler": name, "seed": seed, **settings}), space)

    return build


SAMPLERS: dict[str, Callable[[int, Space], BaseSampler]] = {
    "mcts": _named("mcts", prior="none"),
    "mcts_prior": _named("mcts", prior="published"),
    **{name: _named(name) for name in ("random", "nsga2", "gp")},
    # Built by itself, as Optuna's users build it: what it keeps of the search space between trials then saves a fifth
    # of its time.
    "tpe": lambda seed, _: TPESampler(multivariate=True, group=True, seed=seed),
    "tpe_univariate": lambda seed, _: TPESampler(seed=seed),
    "evolution": lambda seed, _: RegularizedEvolutionSampler(seed, role=decision_role),
}
"""Seed and space -> sampler: those that a config file can name, with the same settings (MCTS without and with its prior
of published distillers), Optuna's default (TPE, every decision by itself), and regularized evolution."""
