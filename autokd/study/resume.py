"""Support of interrupted runs: the claim on the study, the clock, and the trials that a dead process left running."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.errors import StorageError
from autokd.search import FORGET_ATTR
from autokd.storage import StudyFacts, TrialRecord, read_record, reclaim_running
from autokd.study.contents import check_same_contents

if TYPE_CHECKING:
    import optuna


def claim_study(study: optuna.Study, config_digest: str, contents: Mapping[str, str]) -> None:
    """Bind a study to a configuration and to the contents of the files that it names.

    Args:
        study: study to bind.
        config_digest: digest of the resolved configuration.
        contents: place in the configuration -> digest of the file's content.

    Raises:
        StorageError: if the study belongs to another configuration, or a file has changed since the run began.
    """
    facts = StudyFacts(study)
    if facts.config_digest not in (None, config_digest):
        raise StorageError(
            f"the study {study.study_name!r} in this database belongs to another configuration (digest "
            f"{facts.config_digest}; the present one has {config_digest}). Change the file's 'name', or give another "
            "--storage."
        )
    facts.set_config_digest(config_digest)
    check_same_contents(facts.contents, contents)
    facts.set_contents(facts.contents | dict(contents))


class RunClock:
    """Wall time of a run over all processes that have worked on it.

    Args:
        facts: facts of the run, which keep the time of earlier processes.
    """

    def __init__(self, facts: StudyFacts) -> None:
        self._facts = facts
        self._began: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside, and store the total at the end, however it ends."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            seconds = self.seconds()
            self._began = None
            self._facts.set_seconds_used(seconds)

    def seconds(self) -> float:
        """Return the seconds of all processes, the present one included."""
        present = 0.0 if self._began is None else time.monotonic() - self._began
        return self._facts.seconds_used + present


def recover_trials(study: optuna.Study, owner: str) -> tuple[TrialRecord, ...]:
    """End the trials that a dead driver of this run left running, and enqueue them again.

    Args:
        study: study of the run.
        owner: the run's own mark (``RunDirectory.owner``); trials of other runs are left alone.

    Returns:
        Trials that had been trained, but whose value Optuna was not told. They still run; the caller tells them.
    """
    reclaimed = reclaim_running(study, owner, {FORGET_ATTR: True})
    _enqueue_again(study, reclaimed.interrupted)
    return tuple(record for record in reclaimed.to_tell if record.outcome is not None)


def end_open_trials(study: optuna.Study, owner: str) -> None:
    """End the trials in flight before the process ends, so that a resumed run evaluates them again.

    Args:
        study: study of the run.
        owner: the run's own mark; trials of other runs are left alone.
    """
    _enqueue_again(study, reclaim_running(study, owner, {FORGET_ATTR: True}).interrupted)


def _enqueue_again(study: optuna.Study, numbers: Sequence[int]) -> None:
    trials = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    for trial in trials:
        # A trial without parameters or digest died inside the sampler; there is nothing to repeat.
        if trial.number in numbers and trial.params and read_record(trial).digest:
            preset = {key: value for key, value in trial.user_attrs.items() if key == "preset"}
            study.enqueue_trial(trial.params, user_attrs=preset)
