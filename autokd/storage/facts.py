"""What AutoKD writes on an Optuna study: the names of all study attributes stand here."""

from __future__ import annotations

from typing import Any, Literal, get_args

import optuna

from autokd.errors import one_of
from autokd.storage.plain import from_plain, to_plain

Fact = Literal["config_digest", "reward_scales", "none_curve", "phases", "seconds_used", "space_digest", "classes"]
"""config_digest: of the resolved configuration. reward_scales: each reward part's centre and scale.
none_curve: metrics of "none" by epoch. phases: what is done, with its results. seconds_used: over all
sittings of the run. space_digest: of the tree. classes: names, label 0 first."""

_PREFIX = "autokd:"


def set_fact(study: optuna.Study, name: Fact, value: Any) -> None:
    """Store mappings, lists, text and numbers, NaN and infinity included; one commit."""
    _check(name)
    study.set_user_attr(_PREFIX + name, to_plain(value))


def get_fact(study: optuna.Study, name: Fact, default: Any = None) -> Any:
    """What was stored last, by this driver or another; tuples come back as lists."""
    _check(name)
    attributes = study.user_attrs
    return from_plain(attributes[_PREFIX + name]) if _PREFIX + name in attributes else default


def _check(name: str) -> None:
    if name not in get_args(Fact):
        raise KeyError(one_of(name, get_args(Fact), noun="study fact"))
