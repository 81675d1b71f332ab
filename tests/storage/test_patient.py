"""A database that stays away: waited for, and then left with a word."""

from __future__ import annotations

import logging

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError, ProgrammingError

from autokd.errors import StorageError
from autokd.storage import patient
from autokd.storage.patient import PatientStorage


class Away(InMemoryStorage):
    """Fails a number of times at each write of an attribute, before or after it has happened."""

    def __init__(self, failures: int, error: Exception, is_after: bool = False) -> None:
        super().__init__()
        self.failures, self.error, self.is_after, self.calls = failures, error, is_after, 0

    def set_study_user_attr(self, study_id, key, value):
        self.calls += 1
        if self.calls <= self.failures and not self.is_after:
            raise self.error
        super().set_study_user_attr(study_id, key, value)

    def set_trial_state_values(self, trial_id, state, values=None):
        result = super().set_trial_state_values(trial_id, state, values)
        self.calls += state.is_finished()
        if state.is_finished() and self.calls <= self.failures and self.is_after:
            raise self.error
        return result


def gone(words: str = "server closed the connection unexpectedly") -> Exception:
    return OperationalError("COMMIT", {}, Exception(words))


def commit_failed(words: str) -> Exception:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = gone(words)
    return error


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(patient, "_FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize("error", [gone(), commit_failed("database is locked")])
def test_a_hiccup_is_waited_for(error, caplog):
    inner = Away(3, error)
    study = optuna.create_study(storage=PatientStorage(inner, "the database"))
    with caplog.at_level(logging.WARNING):
        study.set_user_attr("a", 1)
    assert (study.user_attrs, inner.calls) == ({"a": 1}, 4)
    assert "tried again" in caplog.text


def test_a_database_that_stays_away_ends_the_run_with_a_word_and_is_not_waited_for_again():
    inner = Away(10**9, gone())
    study = optuna.create_study(storage=PatientStorage(inner, "the database", patience_s=0.02))
    with pytest.raises(StorageError, match=r"the database: .*server closed.*--resume"):
        study.set_user_attr("a", 1)
    calls = inner.calls
    with pytest.raises(StorageError):
        study.set_user_attr("a", 1)
    assert inner.calls == calls + 1


@pytest.mark.parametrize("words", ["database or disk is full", "attempt to write a readonly database"])
def test_what_no_waiting_repairs_ends_the_run_at_once(words):
    inner = Away(10**9, commit_failed(words))
    study = optuna.create_study(storage=PatientStorage(inner, "study.db"))
    with pytest.raises(StorageError, match=r"study\.db: .*--resume"):
        study.set_user_attr("a", 1)
    assert inner.calls == 1


def test_a_trial_that_was_told_without_a_confirmation_stays_as_it_was_told():
    study = optuna.create_study(storage=PatientStorage(Away(1, gone(), is_after=True), "the database"))
    study.tell(study.ask(), 3.5)
    assert [(trial.state, trial.value) for trial in study.trials] == [(TrialState.COMPLETE, 3.5)]


def test_an_error_that_is_not_the_databases_is_raised_at_once():
    inner = Away(10**9, ProgrammingError("SELECT", {}, Exception("no such column")))
    study = optuna.create_study(storage=PatientStorage(inner, "the database"))
    with pytest.raises(ProgrammingError):
        study.set_user_attr("a", 1)
    assert inner.calls == 1
    finished = study.ask()
    study.tell(finished, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        study._storage.set_trial_state_values(finished._trial_id, TrialState.COMPLETE, [2.0])
