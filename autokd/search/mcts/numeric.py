"""Numeric parameters: chosen by the value model, or by a nested sampler that sees the trials of the same context."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .history import History
from .policy import Scorer
from .tree import Action, Trajectory, Tree

NUM_CANDIDATES = 20
"""Candidates among which the value model chooses, one from each of as many equal parts of the range."""
MIN_CONTEXT = 8
"""Trials that a node must have for the nested sampler to see its trials alone, not those of the node above."""
MAX_CONTEXT = 250
"""Latest trials of a context that the nested sampler sees, so that its cost stays bounded."""


def choose_number(
    scorer: Scorer, trajectory: Trajectory, name: str, distribution: BaseDistribution, rng: np.random.Generator
) -> float | int:
    """Return the candidate of parameter ``name`` with the greatest score, in the parameter's own units."""
    # Stratified candidates cover the range with few of them; uniform ones would leave gaps.
    units = (np.arange(NUM_CANDIDATES) + rng.random(NUM_CANDIDATES)) / NUM_CANDIDATES
    return from_unit(distribution, float(units[int(np.argmax(scorer.score_numbers(trajectory, name, units, rng)))]))


def from_unit(distribution: BaseDistribution, unit: float) -> float | int:
    """Return the value at ``unit`` in [0, 1] of the range, on the grid if the distribution has a step."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = distribution.low, distribution.high
    value = low * math.exp(unit * math.log(high / low)) if distribution.log else low + unit * (high - low)
    if distribution.step is not None:
        value = low + round((value - low) / distribution.step) * distribution.step
    value = min(max(value, low), high)  # exp(log(high / low)) and the rounding may leave the range
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def sample_nested(
    sampler: BaseSampler | None,
    study: Study,
    trial: FrozenTrial,
    name: str,
    distribution: BaseDistribution,
    history: History,
    actions: tuple[Action, ...],
    seed: int,
) -> Any:
    """Suggest a number by another sampler, which sees the trials of the deepest context with enough of them.

    Args:
        sampler: the nested sampler; None: a new TPE with ``seed``, which keeps no state between trials.
        study: the study.
        trial: the trial that is asked.
        name: the parameter.
        distribution: its distribution; trials in which it had another one are left out.
        history: the study's trials and tree.
        actions: the trial's decisions so far.
        seed: of the TPE.

    Returns:
        The suggested value.
    """
    sampler = sampler or TPESampler(seed=seed, n_startup_trials=MIN_CONTEXT, multivariate=False)
    numbers = {*_context(history.tree, actions, name), *(rollout.number for rollout in history.tree.pending)}
    seen = [t for t in history.trials_of(numbers) if t.distributions.get(name) == distribution]
    return sampler.sample_independent(StudyView(study, seen), trial, name, distribution)  # type: ignore[arg-type]


def _context(tree: Tree, actions: tuple[Action, ...], name: str) -> list[int]:
    """Return the numbers of the latest trials below the deepest node with ``MIN_CONTEXT`` trials that have ``name``.

    At the root there may be fewer.
    """
    for depth in range(len(actions), -1, -1):
        node = tree.node_at(actions[:depth])
        if node is None or (len(node.trial_numbers) < MIN_CONTEXT and depth > 0):
            continue
        latest = reversed(node.trial_numbers)
        with_name = (n for n in latest if any(name == found for found, _ in tree.rollouts[n].numbers))
        found = list(itertools.islice(with_name, MAX_CONTEXT))
        if len(found) >= MIN_CONTEXT or depth == 0:
            return found
    return []


class StudyView:
    """A study that shows only some of its trials, for samplers that read one.

    Samplers call ``_get_trials`` and ``_is_multi_objective`` of Optuna's Study, which are private there, so both are
    answered here; every other attribute is the study's own.
    """

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self._study = study
        self._kept = trials

    @property
    def direction(self) -> StudyDirection:
        return self._study.direction

    @property
    def directions(self) -> list[StudyDirection]:
        return [self._study.direction]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in self._kept if states is None or trial.state in states]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)

    def _is_multi_objective(self) -> bool:
        return False

    def __getattr__(self, attribute: str) -> Any:
        # Copying and unpickling look for special methods before ``_study`` is set, which would recurse for ever.
        if attribute.startswith("__") or "_study" not in self.__dict__:
            raise AttributeError(attribute)
        return getattr(self._study, attribute)
