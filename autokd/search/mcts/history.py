"""From an Optuna study to the tree: trials become rollouts, values become rewards.

The order of a trial's decisions is the order of ``trial.params``: every storage of Optuna keeps it (the
relational one sorts by the parameter's row).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .tree import Action, Rollout, Tree

FORGET_ATTR = "mcts:forget"
"""User attribute of a failed trial that the tree shall leave out (lost worker, interrupted run), so that the
same choices may be tried again."""

Role = Callable[[str], str]
"""Gives the role of a decision, from its name; decisions of one role share what is known of their choices."""

Normalisation = Literal["rank", "standardise", "min_max"]


class History:
    """The tree of one study, brought up to date at each ask; every finished trial is folded once."""

    def __init__(self, *, role: Role | None = None, failed_counts: bool = True, pruned_has_value: bool = True) -> None:
        self.role = role
        self.failed_counts = failed_counts
        self.pruned_has_value = pruned_has_value
        self._start("")

    def _start(self, study_name: str) -> None:
        self.study_name = study_name
        self.tree = Tree()
        self.labels: dict[str, tuple[object, ...]] = {}
        self.trials: list[FrozenTrial] = []
        """As they were at the last update."""
        self._seen: dict[int, object] = {}
        """Number of each trial dealt with -> when it was completed, to notice another study of the same name."""
        self._num_settled = 0
        """Leading trials of the study that are all dealt with."""

    def update(self, study: Study, asking: int | None) -> Tree:
        """Fold what has finished since; lay over the running trials, without ``asking`` itself."""
        trials = study.get_trials(deepcopy=False)
        if study.study_name != self.study_name or not self._continues(trials):
            self._start(study.study_name)
        self.trials = trials
        is_maximised = study.direction == StudyDirection.MAXIMIZE
        running = []
        for trial in trials[self._num_settled :]:
            if trial.number in self._seen:
                continue
            if trial.state.is_finished():
                self._seen[trial.number] = trial.datetime_complete
                if self._counts(trial):
                    self.tree.backpropagate(self._rollout(trial, is_maximised))
            elif trial.state == TrialState.RUNNING and trial.number != asking:
                running.append(self._rollout(trial, is_maximised))
        while self._num_settled < len(trials) and trials[self._num_settled].number in self._seen:
            self._num_settled += 1
        self.tree.set_pending(running)
        return self.tree

    def trials_of(self, numbers: Iterable[int]) -> list[FrozenTrial]:
        """The trials of these numbers, in their order."""
        wanted = sorted(numbers)
        if all(n < len(self.trials) and self.trials[n].number == n for n in wanted):
            return [self.trials[n] for n in wanted]
        among = set(wanted)
        return [trial for trial in self.trials if trial.number in among]

    def _continues(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether ``trials`` begin with all that was settled: not another study of the same name, and not another
        part of it (Hyperband shows a bracket at a time)."""
        if len(trials) < self._num_settled:
            return False
        ends = (trials[0], trials[self._num_settled - 1]) if self._num_settled else ()
        if any(self._seen.get(trial.number, trial) != trial.datetime_complete for trial in ends):
            return False
        later = {trial.number for trial in trials[self._num_settled :]}
        return len(self._seen) == self._num_settled + len(later & self._seen.keys())

    def _counts(self, trial: FrozenTrial) -> bool:
        if trial.state != TrialState.FAIL:
            return True
        return self.failed_counts and bool(trial.params) and not trial.user_attrs.get(FORGET_ATTR)

    def _rollout(self, trial: FrozenTrial, is_maximised: bool) -> Rollout:
        actions, numbers = read_trajectory(trial.params, trial.distributions, self.role)
        for name, distribution in trial.distributions.items():
            if isinstance(distribution, CategoricalDistribution) and name not in self.labels:
                self.labels[name] = tuple(distribution.choices)
        value = self._value(trial)
        if value is not None and not is_maximised:
            value = -value
        state = "running" if not trial.state.is_finished() else "finished" if value is not None else "failed"
        return Rollout(trial.number, actions, numbers, value, state)  # type: ignore[arg-type]

    def _value(self, trial: FrozenTrial) -> float | None:
        if trial.state == TrialState.COMPLETE:
            value = trial.values[0] if trial.values else None
        elif trial.state == TrialState.PRUNED and self.pruned_has_value:
            last = trial.last_step
            value = None if last is None else trial.intermediate_values[last]
        else:
            value = None
        return None if value is None or math.isnan(value) else value


def make_action(name: str, distribution: CategoricalDistribution, choice: int, role: Role | None) -> Action:
    """The action that takes the choice of that index; its option is the decision's role and the choice itself."""
    known_as = name if role is None else role(name)
    return Action(name, choice, len(distribution.choices), f"{known_as}={distribution.choices[choice]!r}")


def read_trajectory(
    params: Mapping[str, object], distributions: Mapping[str, BaseDistribution], role: Role | None
) -> tuple[tuple[Action, ...], tuple[tuple[str, float], ...]]:
    """The categorical decisions in order, and the free numbers in [0, 1]; what has one value only is neither."""
    actions, numbers = [], []
    for name, value in params.items():
        distribution = distributions[name]
        if distribution.single():
            continue
        if isinstance(distribution, CategoricalDistribution):
            index = int(distribution.to_internal_repr(value))  # type: ignore[arg-type]
            actions.append(make_action(name, distribution, index, role))
        else:
            numbers.append((name, to_unit(distribution, float(value))))  # type: ignore[arg-type]
    return tuple(actions), tuple(numbers)


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """Scale a number to [0, 1] over its range, logarithmically where the distribution is so."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def compute_rewards(rollouts: Sequence[Rollout], normalisation: Normalisation) -> np.ndarray:
    """The reward of each finished rollout in [0, 1] or, standardised, with mean 0 and deviation 1.

    rank: (average rank + 1/2) / n, so that neither the scale nor an outlier matters. min_max: by the range of the
    finite values. A rollout without a value is as bad as the worst one that has a value.
    """
    if not rollouts:
        return np.zeros(0)
    values = np.array([math.nan if rollout.value is None else rollout.value for rollout in rollouts])
    finite = values[np.isfinite(values)]
    worst, best = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    values = np.clip(np.where(np.isnan(values), worst, values), worst, best)
    if normalisation == "rank":
        ordered = np.sort(values)
        below = np.searchsorted(ordered, values, side="left")
        upto = np.searchsorted(ordered, values, side="right")
        return (below + upto) / (2.0 * len(values))
    if normalisation == "min_max":
        return (values - worst) / (best - worst) if best > worst else np.full(len(values), 0.5)
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))
