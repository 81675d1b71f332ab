"""The space walked by an Optuna trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Trial

    from autokd.space import AnySpace
    from autokd.spec import DistillerSpec


@dataclass(frozen=True, slots=True)
class TrialChooser:
    """A chooser of the space that takes every decision from an Optuna trial.

    Attributes:
        trial: the running trial; each decision becomes one of its parameters.
    """

    trial: Trial

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        """Return one of ``options``."""
        return self.trial.suggest_categorical(name, options)

    def number(self, name: str, low: float, high: float, *, log: bool, integer: bool = False) -> float:
        """Return a number in [low, high], drawn on the logarithm if ``log``."""
        if integer:
            return self.trial.suggest_int(name, int(low), int(high), log=log)
        return self.trial.suggest_float(name, low, high, log=log)


def suggest(trial: Trial, space: AnySpace) -> DistillerSpec:
    """Walk the space decision by decision and return the spec at which the walk ends.

    Args:
        trial: an Optuna trial of any sampler; every decision is a call of ``trial.suggest_*``.
        space: the space of distillers.

    Returns:
        A spec of the space. The same parameters always give the same spec.
    """
    return space.walk(TrialChooser(trial))
