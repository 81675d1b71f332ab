"""What a run has settled so far, kept in the study's database: the memory of ``--resume``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.errors import StorageError
from autokd.outcomes import Outcome
from autokd.search import FORGET_ATTR
from autokd.storage import (
    Race,
    TrialRecord,
    get_fact,
    load_job_outcomes,
    read_record,
    reclaim_running,
    save_job_outcome,
    set_fact,
)
from autokd.study.contents import check_same_contents

if TYPE_CHECKING:
    import optuna


class Ledger:
    """Reads and writes the run's facts. ``owner`` tells this run's trials from those of others in the study."""

    def __init__(self, study: optuna.Study, owner: str) -> None:
        self.study = study
        self.owner = owner
        self._began: float | None = None

    def claim(self, digest: str) -> None:
        """Bind the study to a configuration; StorageError if it belongs to another."""
        found = get_fact(self.study, "config_digest")
        if found not in (None, digest):
            raise StorageError(
                f"the study {self.study.study_name!r} in this database belongs to another configuration "
                f"({found}, this one is {digest}). Change the file's 'name', or give another --storage."
            )
        set_fact(self.study, "config_digest", digest)

    def claim_contents(self, contents: Mapping[str, str]) -> None:
        """Bind the study to what its files hold; StorageError where one has changed."""
        found = get_fact(self.study, "contents", {})
        check_same_contents(found, contents)
        set_fact(self.study, "contents", found | dict(contents))

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Add the time spent inside to the run's seconds, whatever happens."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            seconds = self.seconds_used()
            self._began = None
            set_fact(self.study, "seconds_used", seconds)

    def seconds_used(self) -> float:
        """Of all sittings, the present one included."""
        present = 0.0 if self._began is None else time.monotonic() - self._began
        return float(get_fact(self.study, "seconds_used", 0.0)) + present

    # ------------------------------------------------------------------------------------------ jobs

    def outcomes(self) -> dict[str, Outcome]:
        """Finished jobs that are no trials (references, finalists, full trainings), by job id.

        Those that failed are tried again by a resumed run: what ailed them may be mended.
        """
        outcomes = load_job_outcomes(self.study)
        return {job_id: outcome for job_id, outcome in outcomes.items() if outcome.status == "finished"}

    def save_outcome(self, outcome: Outcome) -> None:
        save_job_outcome(self.study, outcome)

    def save_race(self, race: Race) -> None:
        set_fact(self.study, "race", race.model_dump(mode="json"))

    def race(self) -> Race | None:
        """How the finalists raced; None before that, or where there was no search."""
        found = get_fact(self.study, "race")
        return None if found is None else Race.model_validate(found)

    # ---------------------------------------------------------------------------------------- trials

    def scales(self) -> dict[str, float] | None:
        """Scales of the reward's parts, once the panel has fixed them."""
        found = get_fact(self.study, "reward_scales")
        return dict(found) if found else None

    def reclaim(self) -> tuple[TrialRecord, ...]:
        """End what a dead driver left running, to be tried again; return the trials that only lack their value."""
        reclaimed = reclaim_running(self.study, self.owner, {FORGET_ATTR: True})
        self._enqueue_again(reclaimed.interrupted)
        return tuple(record for record in reclaimed.to_tell if record.outcome is not None)

    def interrupt(self) -> None:
        """Before leaving early: end the trials in flight, so that a resumed run tries them again."""
        self._enqueue_again(reclaim_running(self.study, self.owner, {FORGET_ATTR: True}).interrupted)

    def _enqueue_again(self, numbers: Sequence[int]) -> None:
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        for trial in trials:
            if trial.number in numbers and trial.params and read_record(trial).digest:
                preset = {key: value for key, value in trial.user_attrs.items() if key == "preset"}
                self.study.enqueue_trial(trial.params, user_attrs=preset)
