"""The private members of Optuna that AutoKD uses, in one place.

Optuna writes a trial's values only through ``optuna.Trial``, an object of the process that asked for the trial. Its
constructor asks the sampler again, so a resumed run cannot make one for a trial that an earlier process asked for. The
functions below write through the study's storage instead, by ``Study._storage``, ``Study._study_id``,
``Study._thread_local``, ``Trial._trial_id`` (``FrozenTrial`` has it too), ``Trial._cached_frozen_trial`` and
``FrozenStudy._study_id``. All have kept their meaning since Optuna 3.0; AutoKD requires 4.5. An Optuna without them
fails here with AttributeError, not silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy


def set_trial_attr(study: optuna.Study, number: int, name: str, value: Any) -> None:
    """Set a user attribute of a trial that another process may have asked for.

    Args:
        study: study of the trial.
        number: number of the trial, which must be running.
        name: name of the attribute.
        value: value that the json module can write.
    """
    study._storage.set_trial_user_attr(_trial_id(study, number), name, value)


def set_intermediate_value(study: optuna.Study, number: int, step: int, value: float) -> None:
    """Report a value of a running trial, as ``optuna.Trial.report`` does.

    Args:
        study: study of the trial.
        number: number of the trial, which must be running.
        step: epoch, from 1.
        value: reward after that epoch.
    """
    study._storage.set_trial_intermediate_value(_trial_id(study, number), step, value)


def set_dashboard_note(trial: optuna.Trial, parts: Mapping[str, Any]) -> None:
    """Write a trial's note for optuna-dashboard, which keeps notes as system attributes of the study.

    ``optuna_dashboard.save_note`` reads the notes of all trials first; that costs a second of a study of a thousand
    trials, each time.

    Args:
        trial: trial that the note is about.
        parts: name within the note ("note_ver", "note_str:0", ...) -> value.
    """
    storage, study_id = trial.study._storage, trial.study._study_id
    for name, value in parts.items():
        # "dashboard:ID:" is the prefix that optuna-dashboard reads; it uses the storage's id, not the trial's number.
        storage.set_study_system_attr(study_id, f"dashboard:{trial._trial_id}:{name}", value)


def ask_with_attr(study: optuna.Study, name: str, value: Any) -> optuna.Trial:
    """Return the next trial as ``study.ask`` does, with a user attribute that it has before it is in flight.

    Args:
        study: study that is asked.
        name: name of the attribute.
        value: value that the json module can write.
    """
    study._thread_local.cached_all_trials = None  # else samplers would see the trials of the last ask
    trial_id = _pop_waiting(study, name, value)
    if trial_id is None:
        # State and attributes of a template are one commit.
        template = create_trial(state=TrialState.RUNNING, user_attrs={name: value})
        trial_id = study._storage.create_new_trial(study._study_id, template_trial=template)
    return optuna.Trial(study, trial_id)


def _pop_waiting(study: optuna.Study, name: str, value: Any) -> int | None:
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        try:
            # Before it runs: a process that is killed in between leaves a trial that waits.
            study._storage.set_trial_user_attr(trial._trial_id, name, value)
            if study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                # Again: another driver may have written its own value before it came too late.
                study._storage.set_trial_user_attr(trial._trial_id, name, value)
                return trial._trial_id
        except UpdateFinishedTrialError:
            continue
    return None


def reported_steps(trial: optuna.Trial) -> frozenset[int]:
    """Return the steps that an earlier process has reported of a trial.

    Args:
        trial: trial that has just been asked for.
    """
    return frozenset(trial._cached_frozen_trial.intermediate_values)


def put_back(study: optuna.Study, number: int) -> None:
    """Put a running trial back into the queue, with its number, parameters and attributes.

    Asked again, it keeps the parameters that were suggested already; the others are suggested for its number.

    Args:
        study: study of the trial.
        number: number of the trial, which must be running.
    """
    study._storage.set_trial_state_values(_trial_id(study, number), state=TrialState.WAITING)


def study_id(study: FrozenStudy) -> int:
    """Return the id of a study in its storage.

    Args:
        study: a study as ``BaseStorage.get_all_studies`` lists it; it has no public id.
    """
    return study._study_id


def _trial_id(study: optuna.Study, number: int) -> int:
    # Trials are listed in the order of their numbers; deepcopy=False reads Optuna's own cache.
    return study.get_trials(deepcopy=False)[number]._trial_id
