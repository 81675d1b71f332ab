"""The conformance suite of samplers: Optuna's own, and what a search of AutoKD needs beyond it.

A third party runs it over a sampler of its own by overriding one fixture::

    from autokd.testing.samplers import SamplerTestCase

    class TestMySampler(SamplerTestCase):
        @pytest.fixture
        def sampler(self):
            return lambda: MySampler(seed=0)

Optuna's part comes from ``optuna.testing.pytest_samplers``. AutoKD's part asks for more: the same seed and the same
history of a study must give the same suggestion. A sampler of Optuna that keeps a random state does not; wrap it in
``autokd.search.TrialSeededSampler``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_samplers import BasicSamplerTestCase

from autokd.config import load_space
from autokd.search import suggest
from autokd.space import validate

NewSampler = Callable[[], BaseSampler]
"""Makes a sampler, always with the same seed."""


def conditional_objective(trial: optuna.Trial) -> float:
    """Return a value of decisions that depend on each other, a float and an integer; the greater the better.

    Values are rounded, so that ties are common and random numbers decide between choices of equal score.

    Args:
        trial: the trial that makes the decisions.
    """
    source = trial.suggest_categorical("source", ["feature_map", "foreground", "instance"])
    value = {"feature_map": 0, "foreground": 2, "instance": 1}[source]
    if source != "instance":
        value += trial.suggest_categorical("scale", [1, 2, 4])
        value += trial.suggest_int("window", 1, 4)
    value += {"l1": 1, "l2": 1, "kl": -2}[trial.suggest_categorical("distance", ["l1", "l2", "kl"])]
    return value - round(abs(trial.suggest_float("gradient_ratio", 3, 100, log=True) - 40) / 20)


def run_search(path: Path, new_sampler: NewSampler, parts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Run one study in parts, each with a new storage object and a new sampler, as a resumed search does.

    Args:
        path: file of the study's journal.
        new_sampler: makes a sampler, always with the same seed.
        parts: number of trials of each part.

    Returns:
        The parameters of all trials.
    """
    for num_trials in parts:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name="search",
            direction="maximize",
            sampler=new_sampler(),
            load_if_exists=True,
        )
        study.optimize(conditional_objective, n_trials=num_trials)
    return [trial.params for trial in study.trials]


class SamplerTestCase(BasicSamplerTestCase):
    """Tests of one sampler; override the fixture ``sampler``.

    Attributes:
        num_trials: trials of a study, more than 10; a sampler that takes long for each may lower it. It must exceed the
            sampler's random trials, else its model is not tested.
    """

    num_trials = 22

    @pytest.fixture
    def sampler(self) -> NewSampler:
        """A function that makes the sampler under test, always with the same seed."""
        raise NotImplementedError("override the fixture 'sampler' in your test class")

    def test_a_resumed_search_continues_as_the_first_would(self, sampler: NewSampler, tmp_path: Path) -> None:
        whole = run_search(tmp_path / "whole.log", sampler, (self.num_trials,))
        resumed = run_search(tmp_path / "resumed.log", sampler, (9, 1, self.num_trials - 10))
        assert resumed == whole

    def test_a_pickled_sampler_continues_as_the_original(self, sampler: NewSampler) -> None:
        study = optuna.create_study(direction="maximize", sampler=sampler())
        study.optimize(conditional_objective, n_trials=10)
        copies = [pickle.loads(pickle.dumps(study)) for _ in range(2)]
        for copy in copies:
            copy.optimize(conditional_objective, n_trials=5)
        assert [trial.params for trial in copies[0].trials] == [trial.params for trial in copies[1].trials]

    def test_suggestions_lie_in_the_default_space(self, sampler: NewSampler) -> None:
        space = load_space("space: {}")
        study = optuna.create_study(direction="maximize", sampler=sampler())
        for _ in range(self.num_trials):
            trial = study.ask()
            spec = suggest(trial, space)
            validate(space, spec)
            study.tell(trial, float(len(spec.terms)))

    def test_several_trials_may_run_at_once_and_end_in_any_order(self, sampler: NewSampler) -> None:
        study = optuna.create_study(direction="maximize", sampler=sampler())
        running: list[tuple[optuna.Trial, float]] = []
        for _ in range(12):
            trial = study.ask()
            running.append((trial, conditional_objective(trial)))
            if len(running) == 4:
                study.tell(*running.pop(1))
        for trial, value in reversed(running):
            study.tell(trial, value)
        assert all(trial.state.name == "COMPLETE" for trial in study.trials)
