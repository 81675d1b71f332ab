"""Look up the trial that has already evaluated a digest."""

from __future__ import annotations

from collections.abc import Container
from weakref import WeakKeyDictionary

import optuna
from optuna.trial import FrozenTrial, TrialState

from autokd.jobs import Cause
from autokd.storage.record import JOB, OUTCOME

_Key = tuple[str, str, int]
"""Digest, recipe, seed: two trials with equal keys trained the same."""


class _Index:
    """Ended trials by key. An update reads only trials that had not ended before, so that n trials cost O(n) in all."""

    def __init__(self) -> None:
        self.finished: dict[_Key, FrozenTrial] = {}
        self.pruned: dict[_Key, FrozenTrial] = {}
        self.failed: dict[_Key, FrozenTrial] = {}
        self._first_open = 0
        self._ended_beyond: set[int] = set()

    def update(self, trials: list[FrozenTrial]) -> None:
        for trial in trials[self._first_open :]:
            if trial.state.is_finished() and trial.number not in self._ended_beyond:
                self._ended_beyond.add(trial.number)
                self._add(trial)
        while self._first_open in self._ended_beyond:
            self._ended_beyond.remove(self._first_open)
            self._first_open += 1

    def _add(self, trial: FrozenTrial) -> None:
        job, outcome = trial.user_attrs.get(JOB), trial.user_attrs.get(OUTCOME)
        if not job or not outcome:
            return
        key = (job["digest"], job["recipe"], job["seed"])
        if trial.state == TrialState.COMPLETE and outcome["status"] == "finished":
            self.finished.setdefault(key, trial)
        elif trial.state == TrialState.PRUNED:
            self.pruned.setdefault(key, trial)
        elif trial.state == TrialState.FAIL:
            self.failed.setdefault(key, trial)


# Weak keys: an index must not keep a study, and its database connection, alive.
_indices: WeakKeyDictionary[optuna.Study, _Index] = WeakKeyDictionary()


def find_by_digest(
    study: optuna.Study,
    digest: str,
    *,
    recipe: str = "proxy",
    seed: int = 0,
    causes: Container[Cause] = (),
) -> FrozenTrial | None:
    """Return the trial that answers for a digest under the same recipe and seed, or None.

    The first that finished with a value comes first. If none finished, the first that was pruned: it would be pruned
    again, since it has more rivals now. If none was pruned, one that failed with one of ``causes``.

    Args:
        study: study of the search.
        digest: ``Job.digest`` of the trial.
        recipe: "proxy" or "full".
        seed: training seed.
        causes: causes of failure that repeat themselves, such as "non_finite" and "cannot_build".

    Returns:
        A trial of Optuna's cache, which the caller must not change.
    """
    index = _indices.setdefault(study, _Index())
    index.update(study.get_trials(deepcopy=False))
    key = (digest, recipe, seed)
    found = index.finished.get(key) or index.pruned.get(key)
    if found is None and key in index.failed and index.failed[key].user_attrs[OUTCOME]["cause"] in causes:
        found = index.failed[key]
    return found
