"""From an Optuna study to the tree: trials become rollouts, values become rewards.

The order of a trial's decisions is the order of ``trial.params``: every storage of Optuna keeps it (the relational one
sorts by the parameter's row).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .tree import Action, Rollout, State, Trajectory, Tree

FORGET_ATTR = "mcts:forget"
"""User attribute of a failed trial that the tree must leave out (a lost worker, an interrupted run), so that the same
choices may be tried again."""

Role = Callable[[str], str]
"""Maps a decision's name to its role. Decisions of one role share what is learned about equal choices."""

Normalization = Literal["rank", "standardize", "min_max"]
"""Scale of rewards, see ``compute_rewards``."""


class History:
    """The tree of one study, updated at each trial; every finished trial is backpropagated once.

    Args:
        role: role of a decision; None: its name.
        failed_counts: whether a failed trial is a visit (``MCTSSampler``).
        pruned_has_value: whether a pruned trial has its last intermediate value (``MCTSSampler``).
    """

    def __init__(self, *, role: Role | None = None, failed_counts: bool = True, pruned_has_value: bool = True) -> None:
        self.role = role
        self.failed_counts = failed_counts
        self.pruned_has_value = pruned_has_value
        self._start("")

    def _start(self, study_name: str) -> None:
        self.study_name = study_name
        self.tree = Tree()
        self.labels: dict[str, tuple[object, ...]] = {}
        """Decision -> its choices, in the order of their indices."""
        self.trials: list[FrozenTrial] = []
        """The study's trials at the last update."""
        self._completed: dict[int, object] = {}
        """Number of each trial that was read -> time of its completion."""
        self._num_settled = 0
        """Leading trials of the study that were all read: an update skips them, so that it costs what is new."""

    def update(self, study: Study, asking: int | None) -> Tree:
        """Backpropagate what has finished since the last update and replace the pending rollouts.

        Args:
            study: the study; another one than before starts a new tree.
            asking: number of the trial for which the sampler is asked, which is not pending itself.

        Returns:
            The tree, which is this object's and changes at the next update.
        """
        trials = study.get_trials(deepcopy=False)  # a copy of all trials at each decision would be quadratic
        if study.study_name != self.study_name or not self._continues(trials):
            self._start(study.study_name)
        self.trials = trials
        is_maximized = study.direction == StudyDirection.MAXIMIZE
        running = []
        for trial in trials[self._num_settled :]:
            if trial.number in self._completed:
                continue
            if trial.state.is_finished():
                self._completed[trial.number] = trial.datetime_complete
                if self._counts(trial):
                    self.tree.backpropagate(self._rollout(trial, is_maximized))
            elif trial.state == TrialState.RUNNING and trial.number != asking:
                running.append(self._rollout(trial, is_maximized))
        while self._num_settled < len(trials) and trials[self._num_settled].number in self._completed:
            self._num_settled += 1
        self.tree.set_pending(running)
        return self.tree

    def trials_of(self, numbers: Iterable[int]) -> list[FrozenTrial]:
        """Return the trials with these numbers, ascending."""
        wanted = sorted(numbers)
        # A trial's number is its place in the list, unless a pruner hides trials (Hyperband's brackets).
        if all(n < len(self.trials) and self.trials[n].number == n for n in wanted):
            return [self.trials[n] for n in wanted]
        among = set(wanted)
        return [trial for trial in self.trials if trial.number in among]

    def _continues(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether ``trials`` contain all that was read, so that the tree may be kept.

        They do not if the study was deleted and another one created by the same name, or if a pruner shows another
        part of the study (Hyperband shows one bracket at a time). The first and the last settled trial are
        compared: those of another study have other times of completion.
        """
        if len(trials) < self._num_settled:
            return False
        ends = (trials[0], trials[self._num_settled - 1]) if self._num_settled else ()
        # The default is the trial itself, which equals no time: a trial that was never read means another study.
        if any(self._completed.get(trial.number, trial) != trial.datetime_complete for trial in ends):
            return False
        later = {trial.number for trial in trials[self._num_settled :]}
        return len(self._completed) == self._num_settled + len(later & self._completed.keys())

    def _counts(self, trial: FrozenTrial) -> bool:
        if trial.state != TrialState.FAIL:
            return True
        # A trial that failed before its first decision says nothing about any choice.
        return self.failed_counts and bool(trial.params) and not trial.user_attrs.get(FORGET_ATTR)

    def _rollout(self, trial: FrozenTrial, is_maximized: bool) -> Rollout:
        actions, numbers = read_trajectory(trial.params, trial.distributions, self.role)
        for name, distribution in trial.distributions.items():
            if isinstance(distribution, CategoricalDistribution) and name not in self.labels:
                self.labels[name] = tuple(distribution.choices)
        value = self._value(trial)
        if value is not None and not is_maximized:
            value = -value
        state: State = "running" if not trial.state.is_finished() else "finished" if value is not None else "failed"
        return Rollout(trial.number, actions, numbers, value, state)

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
    """Return the action that takes the choice of index ``choice``; its option is "role=choice"."""
    known_as = name if role is None else role(name)
    return Action(name, choice, len(distribution.choices), f"{known_as}={distribution.choices[choice]!r}")


def read_trajectory(
    params: Mapping[str, object], distributions: Mapping[str, BaseDistribution], role: Role | None
) -> Trajectory:
    """Return a trial's categorical decisions and free numbers, in the order of ``params``.

    A parameter with a single possible value is neither: it decides nothing, and it would keep a leaf open for ever.
    """
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
    return Trajectory(tuple(actions), tuple(numbers))


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """Scale a number to [0, 1] over its range, on the logarithm if the distribution is logarithmic."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def compute_rewards(rollouts: Sequence[Rollout], normalization: Normalization) -> np.ndarray:
    """Return the reward of each finished rollout.

    Args:
        rollouts: N finished rollouts. One without a value is as bad as the worst that has one.
        normalization: "rank": (rank from 0, ties averaged, + 1/2) / N, which ignores scale and outliers;
            "min_max": by the range of the finite values; "standardize": mean 0, standard deviation 1.

    Returns:
        Shape (N,), in [0, 1] unless standardized.
    """
    if not rollouts:
        return np.zeros(0)
    values = np.array([math.nan if rollout.value is None else rollout.value for rollout in rollouts])
    # Infinite values become the worst or best finite one: they would make every mean and range infinite.
    finite = values[np.isfinite(values)]
    worst, best = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    values = np.clip(np.where(np.isnan(values), worst, values), worst, best)
    if normalization == "rank":
        ordered = np.sort(values)
        below = np.searchsorted(ordered, values, side="left")
        upto = np.searchsorted(ordered, values, side="right")
        return (below + upto) / (2.0 * len(values))  # the mean of both sides gives ties one rank
    if normalization == "min_max":
        return (values - worst) / (best - worst) if best > worst else np.full(len(values), 0.5)
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))
