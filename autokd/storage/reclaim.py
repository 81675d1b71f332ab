"""End the trials that a dead driver left running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autokd.jobs import Outcome
from autokd.storage.optuna_private import set_trial_attr
from autokd.storage.record import JOB, OUTCOME, TrialRecord, outcome_to_json, read_record

_GRACE = timedelta(seconds=60)
"""Age below which a trial without an owner is left alone: another driver may be asking for it at this moment."""


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Trials that a dead driver had left running.

    Args:
        to_tell: trials with a stored outcome, left running; they lack ``study.tell(record.number, ...)`` alone.
        interrupted: numbers of the trials without an outcome, which are failed now.
    """

    to_tell: tuple[TrialRecord, ...]
    interrupted: tuple[int, ...]


def reclaim_running(study: optuna.Study, owner: str | None = None, marks: Mapping[str, Any] | None = None) -> Reclaimed:
    """Fail the trials that a dead driver left running, with cause "interrupted".

    Trials whose outcome was stored before the driver died are left running and returned, to be told.

    Args:
        study: study of the search.
        owner: mark of the run whose trials are meant, since other drivers of the study may be alive; None: all.
        marks: further user attributes for the trials that are failed.

    Returns:
        Trials to tell, and numbers of those that were failed.
    """
    to_tell: list[TrialRecord] = []
    interrupted: list[int] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_stale(trial, owner):
            continue
        if OUTCOME in trial.user_attrs:
            to_tell.append(read_record(trial))
            continue
        outcome = Outcome(
            trial.user_attrs.get(JOB, {}).get("job_id", ""),
            "failed",
            cause="interrupted",
            message="the search ended before this trial.",
        )
        for name, value in {OUTCOME: outcome_to_json(outcome), **(marks or {})}.items():
            set_trial_attr(study, trial.number, name, value)
        study.tell(trial.number, state=TrialState.FAIL)
        interrupted.append(trial.number)
    return Reclaimed(tuple(to_tell), tuple(interrupted))


def _is_stale(trial: FrozenTrial, owner: str | None) -> bool:
    if owner is None:
        return True
    if JOB in trial.user_attrs:
        return bool(trial.user_attrs[JOB]["owner"] == owner)
    return trial.datetime_start is None or datetime.now() - trial.datetime_start > _GRACE
