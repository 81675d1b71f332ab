"""Trials that a dead driver left running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autokd.outcomes import Outcome
from autokd.storage.optuna_private import set_trial_attr
from autokd.storage.record import JOB, OUTCOME, TrialRecord, outcome_to_json, read_record

_GRACE = timedelta(seconds=60)
"""A younger trial without an owner may be one that another driver is just asking for."""


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """``to_tell``: records with an outcome that only lack their value, by ``study.tell(record.number, ...)``.
    ``interrupted``: numbers of the trials that were failed."""

    to_tell: tuple[TrialRecord, ...]
    interrupted: tuple[int, ...]


def reclaim_running(study: optuna.Study, owner: str | None = None, marks: Mapping[str, Any] | None = None) -> Reclaimed:
    """End the trials that a dead driver left running, as failed with cause "interrupted".

    Those whose outcome was stored before the driver died are left running and handed back to be told.
    ``owner``: only this run's trials, as other drivers of the same study may be alive; None: all.
    ``marks``: further user attributes for the trials that are failed.
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
            message="the search ended before this trial did.",
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
