"""The trials of a study as values; ended ones are read once, so that a page can ask every second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autokd.report.view import TrialStatus, TrialView
from autokd.storage import TrialRecord, read_record

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


class TrialReader:
    """Trials of a study that grows.

    Args:
        study: study of the search.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._views: dict[int, TrialView] = {}
        self._records: dict[int, TrialRecord] = {}
        self._ended: set[int] = set()
        self._changed_at: dict[int, int] = {}
        self.version = 0
        """Number of times that a call of ``read`` found something new."""

    def read(self) -> tuple[TrialView, ...]:
        """Return the study's trials in order; enqueued ones that have not started are left out."""
        from optuna.trial import TrialState

        frozen = [t for t in self._study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]
        new = [trial for trial in frozen if trial.number not in self._ended]
        self._records |= {trial.number: read_record(trial) for trial in new}
        changed = False
        for trial in new:
            view = trial_view(trial, self._records[trial.number], self._records)
            if self._views.get(trial.number) != view:
                self._views[trial.number] = view
                self._changed_at[trial.number] = self.version + 1
                changed = True
            if trial.state.is_finished():
                self._ended.add(trial.number)
        self.version += changed
        return tuple(self._views[number] for number in sorted(self._views))

    def changed_since(self, version: int) -> list[TrialView]:
        """Return the trials that changed after a version, as the last ``read`` found them.

        Args:
            version: value of ``version`` at an earlier time.
        """
        return [self._views[number] for number, at in sorted(self._changed_at.items()) if at > version]

    def record(self, number: int) -> TrialRecord | None:
        """Return what is stored on a trial, as the last ``read`` found it; None: there is no such trial.

        Args:
            number: number of the trial.
        """
        return self._records.get(number)


def trials_of(study: optuna.Study) -> tuple[TrialView, ...]:
    """Return the study's trials in order; enqueued ones that have not started are left out.

    Args:
        study: study of the search.
    """
    return TrialReader(study).read()


def trial_view(trial: FrozenTrial, record: TrialRecord, records: Mapping[int, TrialRecord]) -> TrialView:
    """Return a trial as a value.

    Args:
        trial: the trial.
        record: what AutoKD stored on it.
        records: those of all trials, for one that took over another's outcome.
    """
    from optuna.distributions import CategoricalDistribution

    path = tuple(
        (name, str(answer))
        for name, answer in trial.params.items()
        if isinstance(trial.distributions[name], CategoricalDistribution)
    )
    # A duplicate of a trial that failed may have no outcome of its own; that of the other says why.
    original = records.get(record.reused_from) if record.reused_from is not None else None
    outcome = record.outcome or (original.outcome if original is not None else None)
    metrics = {} if outcome is None else {n: float(v) for n, v in outcome.metrics.items() if math.isfinite(v)}
    return TrialView(
        number=trial.number,
        status=_status(trial),
        value=record.value,
        path=path,
        formula=record.formula,
        digest=record.digest,
        preset=str(trial.user_attrs.get("preset", "")),
        reused_from=record.reused_from,
        cause="" if outcome is None else outcome.cause or "",
        message="" if outcome is None else outcome.message,
        metrics=metrics,
        curve=tuple(sorted((int(step), float(value)) for step, value in trial.intermediate_values.items())),
        seconds=0.0 if record.outcome is None else record.outcome.seconds,
        inactive_terms=() if outcome is None else outcome.inactive_terms,
        is_inactive=outcome is not None and outcome.is_inactive,
    )


def _status(trial: FrozenTrial) -> TrialStatus:
    states: dict[str, TrialStatus] = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    return states.get(trial.state.name, "running")
