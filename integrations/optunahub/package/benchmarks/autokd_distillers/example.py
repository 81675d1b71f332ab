"""Search the recorded losses by Optuna's random sampler."""

import optuna
import optunahub

if __name__ == "__main__":
    problem = optunahub.load_module("benchmarks/autokd_distillers").Problem()
    study = optuna.create_study(directions=problem.directions, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(problem, n_trials=50)
    print(study.best_value, problem.best, problem.none)
