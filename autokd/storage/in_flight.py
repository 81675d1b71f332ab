"""Trials in flight: each bears the mark of the run that asked for it, from its first moment in the database to its end.

A run that dies leaves its trials running. Whoever takes them over (the same run, resumed, or another driver of the
study that waits for them) puts them back into Optuna's queue, with their numbers and parameters: asked again, a trial
gets the suggestions that it would have had, so that a resumed search is the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from autokd.storage.optuna_private import ask_with_attr, put_back
from autokd.storage.record import JOB, OUTCOME, TrialRecord, read_record

OWNER = "autokd:owner"
"""Attribute of a trial: mark of the run that has asked for it last."""


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Trials that a dead driver had left running.

    Args:
        to_tell: trials with a stored outcome, left running; they lack ``study.tell(record.number, ...)`` alone.
        waiting: numbers of the trials without an outcome, which wait in the queue now.
    """

    to_tell: tuple[TrialRecord, ...]
    waiting: tuple[int, ...]


def ask(study: optuna.Study, owner: str) -> optuna.Trial:
    """Return the next trial: the first that waits in the queue, else a new one.

    ``study.ask`` knows no owner, so that a process that dies right after it leaves a trial that is nobody's.

    Args:
        study: study of the search.
        owner: mark of the run that asks.
    """
    return ask_with_attr(study, OWNER, owner)


def owner_of(trial: FrozenTrial) -> str:
    """Return the mark of the run that has asked for a trial last; empty: unknown.

    Args:
        trial: trial of the study.
    """
    return str(trial.user_attrs.get(OWNER) or trial.user_attrs.get(JOB, {}).get("owner", ""))


def reclaim_running(study: optuna.Study, owners: Container[str] | None = None) -> Reclaimed:
    """Put the trials that dead drivers left running back into the queue.

    Trials whose outcome was stored before the driver died are left running and returned, to be told.

    Args:
        study: study of the search.
        owners: marks of the runs whose trials are meant, since other drivers of the study may be alive; None: all.

    Returns:
        Trials to tell, and numbers of those that were put back.
    """
    to_tell: list[TrialRecord] = []
    waiting: list[int] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if owners is not None and owner_of(trial) not in owners:
            continue
        record = read_record(trial)
        # A duplicate is answered anew when it is asked again, whatever had been stored of its answer.
        if OUTCOME in trial.user_attrs and record.reused_from is None:
            to_tell.append(record)
        else:
            put_back(study, trial.number)
            waiting.append(trial.number)
    return Reclaimed(tuple(to_tell), tuple(waiting))


def is_in_flight(trial: FrozenTrial) -> bool:
    """Return whether a trial is being trained or waits to be told, duplicates of other trials apart.

    Args:
        trial: trial of the study.
    """
    job = trial.user_attrs.get(JOB)
    return trial.state is TrialState.RUNNING and job is not None and job.get("reused_from") is None
