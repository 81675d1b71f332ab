"""The samplers and pruners that a space file can name.

Every sampler is a pure function of (seed, the study's history): Optuna's own are made anew for each trial with a
seed drawn from (seed, trial number). So a revived search goes on as the first would, and does not repeat the random
suggestions with which it began.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autokd.config import SearchConfig
from autokd.presets import load_preset, preset_names
from autokd.search.mcts import MCTSSampler
from autokd.search.prior import published_prior

if TYPE_CHECKING:
    from autokd.space import Space


def make_sampler(config: SearchConfig, space: Space | None = None) -> BaseSampler:
    """The sampler that ``config.sampler`` names, seeded by ``config.seed``; of ``space``, for one that has a prior."""
    if config.sampler == "mcts":
        prior = None
        if space is not None and config.prior == "published":
            prior = published_prior(space, map(load_preset, preset_names()))
        return MCTSSampler(config.seed, role=decision_role, prior=prior)
    return TrialSeededSampler(_BUILDERS[config.sampler], config.seed)


def decision_role(name: str) -> str:
    """The role of a decision of the space: "t2.distance(kl|l2)" -> "distance"; an operator means the same in every
    term and wherever only a part of the slot is offered."""
    return re.sub(r"^t\d+\.|\(.*\)$", "", name)


def make_pruner(config: SearchConfig) -> BasePruner:
    """The pruner that ``config.pruner`` names. Steps are epochs; the first five trials are never pruned by rank."""
    if config.pruner == "median":
        return MedianPruner(n_startup_trials=5)
    if config.pruner == "percentile":
        return PercentilePruner(33.0, n_startup_trials=5)
    if config.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    if config.pruner == "hyperband":
        return HyperbandPruner()
    return NopPruner()


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, group=True, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=20, seed=seed)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


_BUILDERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2, "gp": _gp, "random": _random}


class TrialSeededSampler(BaseSampler):
    """Any Optuna sampler, made anew for each trial with a seed from (seed, trial number).

    What such a sampler remembers between trials beside its random state is a cache of the storage (search spaces,
    generations), which it fills again.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build = build
        self._seed = seed
        self._current = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"_build": self._build, "_seed": self._seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _current=threading.local())

    def __str__(self) -> str:
        return f"{type(self).__name__}({type(self._build(0)).__name__})"

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        """The sampler of this trial; one is kept a thread, so that its decisions share one random state."""
        if getattr(self._current, "number", None) != trial.number:
            seed = np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0]
            self._current.sampler = self._build(int(seed))
            self._current.number = trial.number
        return self._current.sampler  # type: ignore[no-any-return]

    def reseed_rng(self) -> None:
        """Nothing to do: trials differ by their numbers."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._current.number = None
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._of(trial).after_trial(study, trial, state, values)
