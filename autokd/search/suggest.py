"""Where Optuna and the space meet: the space's walk, decided by a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Trial

    from autokd.space import Space
    from autokd.spec import DistillerSpec


@dataclass(frozen=True, slots=True)
class TrialChooser:
    """A chooser of the space that asks an Optuna trial for every decision."""

    trial: Trial

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        return self.trial.suggest_categorical(name, options)

    def number(self, name: str, low: float, high: float, *, log: bool, integer: bool = False) -> float:
        if integer:
            return self.trial.suggest_int(name, int(low), int(high), log=log)
        return self.trial.suggest_float(name, low, high, log=log)


def suggest(trial: Trial, space: Space) -> DistillerSpec:
    """Walk ``space`` decision by decision with ``trial.suggest_*`` and return the spec arrived at."""
    return space.walk(TrialChooser(trial))
