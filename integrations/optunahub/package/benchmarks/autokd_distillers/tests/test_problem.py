"""The package as the registry loads it."""

from pathlib import Path

import optuna
import optunahub

PACKAGE = Path(__file__).parents[3]


def test_every_suggestion_ends_at_a_recorded_value() -> None:
    module = optunahub.load_local_module("benchmarks/autokd_distillers", registry_root=str(PACKAGE))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for recipe in ("full", "proxy"):
        problem = module.Problem(recipe)
        assert len(problem) == 432
        study = optuna.create_study(directions=problem.directions, sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(problem, n_trials=40)
        assert problem.none < study.best_value <= problem.best
        assert all(set(trial.params) <= set(problem.search_space) for trial in study.trials)
