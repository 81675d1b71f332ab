"""What AutoKD writes on an Optuna study: the names of all study attributes stand here."""

from __future__ import annotations

from typing import Any, Literal, get_args

import optuna

from autokd.errors import one_of
from autokd.outcomes import Outcome
from autokd.storage.plain import from_plain, to_plain
from autokd.storage.record import outcome_from_plain, outcome_to_plain

Fact = Literal["config_digest", "contents", "reward_scales", "race", "seconds_used", "promoted"]
"""config_digest: of the resolved configuration. contents: digests of the files that it names, by place.
reward_scales: the spread by which each part of the reward is divided.
race: of the finalists, as ``results.Race``. seconds_used: over all sittings of the run.
promoted: digest, trial and value of the student that teaches later trials."""

_PREFIX = "autokd:"
_JOB_PREFIX = "autokd:outcome:"


def set_fact(study: optuna.Study, name: Fact, value: Any) -> None:
    """Store mappings, lists, text and numbers, NaN and infinity included; one commit."""
    _check(name)
    study.set_user_attr(_PREFIX + name, to_plain(value))


def get_fact(study: optuna.Study, name: Fact, default: Any = None) -> Any:
    """What was stored last, by this driver or another; tuples come back as lists."""
    _check(name)
    attributes = study.user_attrs
    return from_plain(attributes[_PREFIX + name]) if _PREFIX + name in attributes else default


def save_job_outcome(study: optuna.Study, outcome: Outcome) -> None:
    """Store how a job ended that is no trial (a reference, a finalist, a full training); one attribute a job, so
    that several drivers of one study do not overwrite each other's."""
    study.set_user_attr(_JOB_PREFIX + outcome.job_id, outcome_to_plain(outcome))


def load_job_outcomes(study: optuna.Study) -> dict[str, Outcome]:
    """Those stored by ``save_job_outcome``, by job id."""
    found = study.user_attrs.items()
    return {name[len(_JOB_PREFIX) :]: outcome_from_plain(d) for name, d in found if name.startswith(_JOB_PREFIX)}


def _check(name: str) -> None:
    if name not in get_args(Fact):
        raise KeyError(one_of(name, get_args(Fact), noun="study fact"))
