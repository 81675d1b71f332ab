"""Find the best leaf of a small conditional space."""

import optuna
import optunahub

module = optunahub.load_module("samplers/mcts_trajectories")


def objective(trial: optuna.Trial) -> float:
    """A space whose best branch has a number in it: 1.5 at depth 5."""
    kind = trial.suggest_categorical("kind", ["tree", "linear", "constant"])
    if kind == "tree":
        return 1.0 + 0.1 * trial.suggest_int("depth", 1, 5)
    return trial.suggest_float("slope", 0.0, 1.0) if kind == "linear" else 0.5


if __name__ == "__main__":
    study = optuna.create_study(direction="maximize", sampler=module.MCTSSampler(seed=0))
    study.optimize(objective, n_trials=30)
    print(study.best_value, study.best_params)
