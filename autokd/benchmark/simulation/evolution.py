"""Regularized evolution (Real et al., AAAI 2019, arXiv:1802.01548, algorithm 1) as an Optuna sampler.

Optuna has no such sampler. A config file cannot name it: it is a baseline of the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState


class RegularizedEvolutionSampler(BaseSampler):
    """Mutates the best of a tournament among the youngest finished trials; trials are random until they are enough.

    Random numbers come from (seed, trial number, decision) alone, so that a trial does not depend on the order in which
    workers ask.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        population_size: int = 20,
        tournament_size: int = 5,
        role: Callable[[str], str] = str,
    ) -> None:
        """Make the sampler.

        Args:
            seed: seed of all random numbers.
            population_size: youngest finished trials that may become parents.
            tournament_size: trials that are drawn from them, with replacement; the best becomes the parent.
            role: name of a decision -> what it decides. Where the child's tree offers a choice under another name than
                the parent's, the child inherits by role.
        """
        self._seed = seed
        self._population_size = population_size
        self._tournament_size = tournament_size
        self._role = role
        self._plan: tuple[int, FrozenTrial | None, str] = (-1, None, "")

    def reseed_rng(self) -> None:
        """Do nothing: random numbers differ by the number of the trial."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no decision: every one is sampled by itself, since the tree is known only as it is walked."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict:
        """Return nothing: no decision is sampled jointly."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the parent's choice, another one for the decision to mutate, or a random one without a parent."""
        rng = np.random.default_rng((self._seed, trial.number, 1 + len(trial.params)))
        parent, mutated = self._parent(study, trial)
        inherited = None if parent is None else self._inherited(parent, param_name)
        if param_name == mutated or inherited is None or not _offers(param_distribution, inherited):
            return _draw(rng, param_distribution, other_than=inherited)
        return inherited

    def _parent(self, study: Study, trial: FrozenTrial) -> tuple[FrozenTrial | None, str]:
        # Chosen once a trial: the decisions of one trial must not see trials that end while it is being asked for.
        if self._plan[0] != trial.number:
            self._plan = (trial.number, *self._choose(study, trial))
        return self._plan[1:]

    def _choose(self, study: Study, trial: FrozenTrial) -> tuple[FrozenTrial | None, str]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        population = sorted(finished, key=lambda t: t.number)[-self._population_size :]
        if len(population) < self._population_size:
            return None, ""
        rng = np.random.default_rng((self._seed, trial.number, 0))
        drawn = [population[i] for i in rng.integers(len(population), size=self._tournament_size)]
        sign = 1.0 if study.direction is StudyDirection.MAXIMIZE else -1.0
        parent = max(drawn, key=lambda t: sign * float(t.value or 0.0))
        names = list(parent.params)
        return parent, names[int(rng.integers(len(names)))] if names else ""

    def _inherited(self, parent: FrozenTrial, name: str) -> Any:
        if name in parent.params:
            return parent.params[name]
        role = self._role(name)
        return next((value for key, value in parent.params.items() if self._role(key) == role), None)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Do nothing: the population is read from the study."""


def _offers(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _draw(rng: np.random.Generator, distribution: BaseDistribution, *, other_than: Any) -> Any:
    """Draw uniformly; a choice is drawn from the others, unless it is the only one."""
    if isinstance(distribution, CategoricalDistribution):
        choices = [choice for choice in distribution.choices if choice != other_than] or list(distribution.choices)
        return choices[int(rng.integers(len(choices)))]
    low, high, is_log = float(distribution.low), float(distribution.high), distribution.log  # type: ignore[attr-defined]
    value = np.exp(rng.uniform(np.log(low), np.log(high))) if is_log else rng.uniform(low, high)
    step = getattr(distribution, "step", None)
    value = min(max(float(value), low), high)
    return distribution.to_external_repr(low + round((value - low) / step) * step if step else value)
