"""From an Optuna study to the tree: trials become records, values become rewards.

The order of a trial's decisions is the order of ``trial.params``: every storage of Optuna keeps it (the
relational one sorts by the parameter's row).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autokd.search.nodes import Move, Record, Tree

FORGET_ATTR = "mcts:forget"
"""User attribute of a failed trial that the tree shall leave out (lost worker, interrupted run), so that the
same choices may be tried again."""

Normalisation = Literal["rank", "standardise", "min_max"]


class History:
    """The tree of one study, brought up to date at each ask; every finished trial is folded once."""

    def __init__(self, *, failed_counts: bool = True, pruned_has_value: bool = True) -> None:
        self.failed_counts = failed_counts
        self.pruned_has_value = pruned_has_value
        self._start("")

    def _start(self, study_name: str) -> None:
        self.study_name = study_name
        self.tree = Tree()
        self.labels: dict[str, tuple[object, ...]] = {}
        self._seen: dict[int, object] = {}
        """Number of each trial dealt with -> when it was completed, to notice another study of the same name."""

    def refresh(self, study: Study, asking: int | None) -> Tree:
        """Fold what has finished since; lay over the running trials, without ``asking`` itself."""
        trials = study.get_trials(deepcopy=False)
        if study.study_name != self.study_name or not self._goes_on(trials):
            self._start(study.study_name)
        is_maximised = study.direction == StudyDirection.MAXIMIZE
        running = []
        for trial in trials:
            if trial.number in self._seen:
                continue
            if trial.state.is_finished():
                self._seen[trial.number] = trial.datetime_complete
                if self._counts(trial):
                    self.tree.fold(self._record(trial, is_maximised))
            elif trial.state == TrialState.RUNNING and trial.number != asking:
                running.append(self._record(trial, is_maximised))
        self.tree.lay_over(running)
        return self.tree

    def _goes_on(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether ``trials`` still hold all that was folded (a pruner may show a study in part)."""
        if not self._seen:
            return True
        if len(trials) < len(self._seen):
            return False
        last = max(self._seen)
        at = last if last < len(trials) and trials[last].number == last else None
        if at is None:
            at = next((i for i, trial in enumerate(trials) if trial.number == last), None)
        if at is None or trials[at].datetime_complete != self._seen[last]:
            return False
        return trials[0].number in self._seen or not trials[0].state.is_finished()

    def _counts(self, trial: FrozenTrial) -> bool:
        if trial.state != TrialState.FAIL:
            return True
        return self.failed_counts and bool(trial.params) and not trial.user_attrs.get(FORGET_ATTR)

    def _record(self, trial: FrozenTrial, is_maximised: bool) -> Record:
        moves, numbers = read_decisions(trial.params, trial.distributions)
        for name, distribution in trial.distributions.items():
            if isinstance(distribution, CategoricalDistribution) and name not in self.labels:
                self.labels[name] = tuple(distribution.choices)
        value = self._value(trial)
        if value is not None and not is_maximised:
            value = -value
        state = "running" if not trial.state.is_finished() else "finished" if value is not None else "failed"
        return Record(trial.number, moves, numbers, value, state)  # type: ignore[arg-type]

    def _value(self, trial: FrozenTrial) -> float | None:
        if trial.state == TrialState.COMPLETE:
            value = trial.values[0] if trial.values else None
        elif trial.state == TrialState.PRUNED and self.pruned_has_value:
            last = trial.last_step
            value = None if last is None else trial.intermediate_values[last]
        else:
            value = None
        return None if value is None or math.isnan(value) else value


def read_decisions(
    params: Mapping[str, object], distributions: Mapping[str, BaseDistribution]
) -> tuple[tuple[Move, ...], tuple[tuple[str, float], ...]]:
    """The categorical decisions in order, and the free numbers in [0, 1]; what has one value only is neither."""
    moves, numbers = [], []
    for name, value in params.items():
        distribution = distributions[name]
        if distribution.single():
            continue
        if isinstance(distribution, CategoricalDistribution):
            moves.append(Move(name, int(distribution.to_internal_repr(value)), len(distribution.choices)))  # type: ignore[arg-type]
        else:
            numbers.append((name, to_unit(distribution, float(value))))  # type: ignore[arg-type]
    return tuple(moves), tuple(numbers)


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """Scale a number to [0, 1] over its range, logarithmically where the distribution is so."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def rewards(records: Sequence[Record], normalisation: Normalisation) -> np.ndarray:
    """The reward of each finished record in [0, 1] or, standardised, with mean 0 and deviation 1.

    rank: (average rank + 1/2) / n, so that neither the scale nor an outlier matters. min_max: by the range of the
    finite values. A record without a value is as bad as the worst one that has a value.
    """
    if not records:
        return np.zeros(0)
    given = [r.value for r in records if r.value is not None and math.isfinite(r.value)]
    worst, best = (min(given), max(given)) if given else (0.0, 0.0)
    values = np.array([worst if r.value is None else min(max(r.value, worst), best) for r in records])
    if normalisation == "rank":
        ordered = np.sort(values)
        below = np.searchsorted(ordered, values, side="left")
        upto = np.searchsorted(ordered, values, side="right")
        return (below + upto) / (2.0 * len(values))
    if normalisation == "min_max":
        return (values - worst) / (best - worst) if best > worst else np.full(len(values), 0.5)
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))
