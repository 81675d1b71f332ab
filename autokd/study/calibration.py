"""The calibration trials: the first that finish, whose gains fix the scales of the reward for the whole study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.jobs import Outcome
from autokd.storage import read_record
from autokd.study.trials import EndedTrial

if TYPE_CHECKING:
    import optuna


class CalibrationTrials:
    """Trials that have finished and wait for the scales of the reward.

    Args:
        study: study of the search; trials of other drivers of it count too.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.mine: list[EndedTrial] = []
        """Those of this driver, which it tells once the scales are known."""

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of all, this driver's first."""
        numbers = {ended.number for ended in self.mine}
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        others = (read_record(trial).outcome for trial in running if trial.number not in numbers)
        finished = (outcome for outcome in others if outcome is not None and outcome.status == "finished")
        return [*(ended.outcome for ended in self.mine), *finished]

    def take(self) -> list[EndedTrial]:
        """Return this driver's trials, which wait no longer."""
        taken, self.mine = self.mine, []
        return taken
