"""Support of interrupted runs: the claim on the study, the clock, and the trials that a dead process left running."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from autokd.errors import StorageError
from autokd.storage import StudyFacts, TrialRecord, reclaim_running
from autokd.study.contents import check_same_contents

if TYPE_CHECKING:
    import optuna

_PRESET = "preset"
"""Attribute of a trial that was put into the queue: name of its preset."""


def claim_study(
    study: optuna.Study, config_digest: str, contents: Mapping[str, str], *, is_known: bool = False
) -> None:
    """Bind a study to a configuration and to the contents of the files that it names.

    Args:
        study: study to bind.
        config_digest: digest of the resolved configuration.
        contents: place in the configuration -> digest of the file's content.
        is_known: the run has bound its study before.

    Raises:
        StorageError: if the study belongs to another configuration, if a file has changed since the run began, or if
            nothing is left of what the run had stored.
    """
    facts = StudyFacts(study)
    if is_known and facts.config_digest is None:
        raise StorageError(
            f"the study {study.study_name!r} of this run is empty now: its database was emptied, replaced, or is "
            "another one. Give the same --storage as before, restore the database from a copy, or begin a new run with "
            "another --run-dir."
        )
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
            # If the database has gone, the error of the block says so, and must be the one that is raised.
            with suppress(StorageError):
                self._facts.set_seconds_used(self.seconds())
            self._began = None

    def seconds(self) -> float:
        """Return the seconds of all processes, the present one included."""
        present = 0.0 if self._began is None else time.monotonic() - self._began
        return self._facts.seconds_used + present


def recover_trials(study: optuna.Study, owner: str) -> tuple[TrialRecord, ...]:
    """Put the trials that a dead driver of this run left running back into the queue.

    Args:
        study: study of the run.
        owner: the run's own mark (``RunDirectory.owner``); trials of other runs are left alone.

    Returns:
        Trials that had been trained, but whose value Optuna was not told. They still run; the caller tells them.
    """
    return reclaim_running(study, {owner}).to_tell


def end_open_trials(study: optuna.Study, owner: str) -> None:
    """Put the trials in flight back into the queue before the process ends: a resumed run evaluates them first.

    Args:
        study: study of the run.
        owner: the run's own mark; trials of other runs are left alone.
    """
    reclaim_running(study, {owner})


def enqueue_once(study: optuna.Study, decisions: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the trials that a search begins with into the queue, those that an earlier process has put there apart.

    Args:
        study: study of the run.
        decisions: name of a preset -> value of each decision.
    """
    known = {trial.user_attrs.get(_PRESET) for trial in study.get_trials(deepcopy=False)}
    for name, values in decisions.items():
        if name not in known:
            study.enqueue_trial(dict(values), user_attrs={_PRESET: name})
