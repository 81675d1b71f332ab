"""Samplers and pruners by the names that a config file gives them.

Every sampler is a pure function of (seed, history of the study): Optuna's own are made anew for each trial, with a seed
from (seed, trial number), and for each parameter that they suggest by itself. So a resumed search continues as the
first would have, within a trial too, and does not repeat the random suggestions with which the first began.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
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
from autokd.portfolio import Portfolio, load_portfolio, portfolio_prior
from autokd.presets import load_preset, preset_names
from autokd.search.mcts import MCTSSampler
from autokd.search.prior import published_prior
from autokd.space import FREE, PartSpace

if TYPE_CHECKING:
    from autokd.space import AnySpace


def make_sampler(
    config: SearchConfig, space: AnySpace | None = None, family: str | None = None, portfolio: Portfolio | None = None
) -> BaseSampler:
    """Return the sampler that ``config.sampler`` names, seeded by ``config.seed``.

    Args:
        config: the section "search" of a configuration.
        space: the space that the prior of the tree search is counted for; None: no prior.
        family: family of the pair's student, whose presets the prior counts; None: each preset's default.
        portfolio: recorded distillers, whose options the prior knows; None: AutoKD's own portfolio.

    Returns:
        An Optuna sampler whose suggestions are a function of the seed and the study's history alone.
    """
    if config.sampler == "mcts":
        prior = None if space is None else _prior(config, space, family, portfolio)
        return MCTSSampler(config.seed, role=decision_role, prior=prior)
    return TrialSeededSampler(_BUILDERS[config.sampler], config.seed)


def decision_role(name: str) -> str:
    """Return the role of a decision of the space: "t2.distance(kl|l2)" -> "distance".

    An operator has one meaning in every term and in every part of its slot, and a part in every place of a sum, so
    decisions share what is learned about it.

    Args:
        name: the decision's parameter name: term, slot, and in parentheses the offered part of the slot.

    Returns:
        The slot.
    """
    return re.sub(r"^[tp]\d+\.|\(.*\)$", "", name)


def _prior(
    config: SearchConfig, space: AnySpace, family: str | None, portfolio: Portfolio | None
) -> Mapping[str, float] | None:
    if config.prior == "none":
        return None
    presets = [load_preset(name, family) for name in preset_names()]
    if not isinstance(space, PartSpace):
        return published_prior(space, presets)
    # Of free terms little is recorded: their options have the counts of the published ones in either case.
    of_free = {} if space.free is None else published_prior(space.free, presets)
    counted = {f"{FREE}.{option}": opinion for option, opinion in of_free.items()}
    if config.prior == "published":
        return counted
    known = portfolio or load_portfolio().without(config.portfolio_without)
    return {**counted, **portfolio_prior(space, known.records)}


def make_pruner(config: SearchConfig) -> BasePruner:
    """Return the pruner that ``config.pruner`` names.

    Args:
        config: the section "search" of a configuration.

    Returns:
        An Optuna pruner whose steps are epochs. "median" and "percentile" never prune the first five trials.
    """
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

    Beside its random state such a sampler keeps caches of the storage between trials (search spaces, generations),
    which a new one fills again. A parameter that it suggests by itself has a seed from (seed, trial number, number of
    parameters so far): a trial whose process died may be asked again when it has some of its parameters.

    Args:
        build: returns the sampler for a seed.
        seed: seed of the whole search.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build = build
        self._seed = seed
        self._current = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        # Thread-local storage cannot be pickled, and a copy makes its sampler at its first trial.
        return {"_build": self._build, "_seed": self._seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _current=threading.local())

    def __str__(self) -> str:
        return f"{type(self).__name__}({type(self._build(0)).__name__})"

    def _sampler_of(self, trial: FrozenTrial) -> BaseSampler:
        """Return the trial's sampler. Each thread keeps one, so that the decisions of a trial share a random state and
        ``study.optimize(n_jobs=...)`` does not mix those of two trials."""
        if getattr(self._current, "number", None) != trial.number:
            self._current.sampler = self._seeded(trial.number)
            self._current.number = trial.number
        return self._current.sampler  # type: ignore[no-any-return]

    def _seeded(self, *numbers: int) -> BaseSampler:
        return self._build(int(np.random.SeedSequence((self._seed, *numbers)).generate_state(1)[0]))

    def reseed_rng(self) -> None:
        """Do nothing: trials differ by their numbers."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the trial's sampler and prepare it."""
        self._current.number = None  # a study of the same name may begin again at this number
        self._sampler_of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the relative search space of the trial's sampler."""
        return self._sampler_of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the relative parameters that the trial's sampler suggests."""
        return self._sampler_of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value that a sampler of the trial and the parameter's place in it suggests."""
        # From 1 on: numpy reads (seed, number, 0) as (seed, number), the seed of the relative parameters.
        sampler = self._seeded(trial.number, len(trial.params) + 1)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Let the trial's sampler store what it keeps in the study (constraints, generations)."""
        self._sampler_of(trial).after_trial(study, trial, state, values)
