"""The budget of trials, counted in the database: several drivers of one study spend one budget together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from autokd.storage import StudyFacts, TrialRecord, is_in_flight, owner_of, read_record, reclaim_running
from autokd.storage.optuna_private import put_back
from autokd.study.trials import is_evaluated

if TYPE_CHECKING:
    import optuna

SILENT_AFTER_S = 180.0
"""Seconds without a sign of life (``storage.heartbeat``) after which another driver counts as dead."""


class SharedBudget:
    """Count of a study's trials against the budget, whoever asked for them.

    Args:
        study: study of the search.
        owner: mark of this run.
        clock: seconds of a clock that never goes back. Clocks of other machines are not compared with it: what counts
            is how long a driver's sign of life has not changed, seen from here.
    """

    def __init__(self, study: optuna.Study, owner: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._study = study
        self._owner = owner
        self._clock = clock
        self._first_open = 0
        """Leading trials that are all counted: a count reads what is new, so that n of them cost O(n)."""
        self._counted: set[int] = set()
        self._num_evaluated = 0
        self._in_flight: list[FrozenTrial] = []
        self._undecided: list[FrozenTrial] = []
        """Trials of other drivers that may still turn out to be duplicates."""
        self._seen: dict[str, tuple[int, float]] = {}
        self.num_repeats = 0
        """Number of duplicates at the end of the study, one after another."""

    def num_started(self) -> int:
        """Count the trials in the database that were trained, are being trained, or wait to be told."""
        trials = self._study.get_trials(deepcopy=False)[self._first_open :]
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        self._in_flight = [trial for trial in running if is_in_flight(trial)]
        self._undecided = [t for t in running if not is_in_flight(t) and owner_of(t) != self._owner]
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._counted:
                self._counted.add(trial.number)
                self._num_evaluated += is_evaluated(trial)
                self.num_repeats = 0 if read_record(trial).reused_from is None else self.num_repeats + 1
        while self._first_open in self._counted:
            self._counted.remove(self._first_open)
            self._first_open += 1
        return self._num_evaluated + len(self._in_flight)

    def puts_back(self, number: int, num_trials: int) -> bool:
        """Put a trial back into the queue if other drivers spent the rest of the budget while it was asked for.

        Numbers decide, which the database gives once: of trials asked for at one moment the later ones are put back.

        Args:
            number: number of the trial, whose job is recorded.
            num_trials: the budget.

        Returns:
            Whether it was put back.
        """
        self.num_started()
        earlier = sum(trial.number < number for trial in (*self._in_flight, *self._undecided))
        if self._num_evaluated + earlier < num_trials:
            return False
        put_back(self._study, number)
        return True

    def others(self) -> set[str]:
        """Return the marks of other runs that have trials in flight, as of the last count."""
        return {owner_of(trial) for trial in self._in_flight} - {self._owner}

    def take_over(self) -> tuple[TrialRecord, ...]:
        """Put the trials of drivers that have died back into the queue; return those that lack the telling alone."""
        silent = self._silent(self.others())
        return reclaim_running(self._study, silent).to_tell if silent else ()

    def _silent(self, owners: set[str]) -> set[str]:
        beats, now_s = StudyFacts(self._study).heartbeats(owners), self._clock()
        for owner in owners:
            if owner not in self._seen or self._seen[owner][0] != beats[owner]:
                self._seen[owner] = beats[owner], now_s
        return {owner for owner in owners if now_s - self._seen[owner][1] > SILENT_AFTER_S}
