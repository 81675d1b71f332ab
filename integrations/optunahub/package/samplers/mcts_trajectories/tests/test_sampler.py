"""The package as the registry loads it."""

from pathlib import Path

import optuna
import optunahub

PACKAGE = Path(__file__).parents[3]


def objective(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("kind", ["tree", "linear", "constant"])
    if kind == "tree":
        return 1.0 + 0.1 * trial.suggest_int("depth", 1, 5)
    return trial.suggest_float("slope", 0.0, 1.0) if kind == "linear" else 0.5


def best(seed: int) -> optuna.Study:
    module = optunahub.load_local_module("samplers/mcts_trajectories", registry_root=str(PACKAGE))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=module.MCTSSampler(seed=seed))
    study.optimize(objective, n_trials=25)
    return study


def test_the_best_branch_is_found() -> None:
    assert best(0).best_params == {"kind": "tree", "depth": 5}


def test_equal_seeds_give_equal_studies() -> None:
    assert [trial.params for trial in best(1).trials] == [trial.params for trial in best(1).trials]
