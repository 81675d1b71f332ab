"""``suggest`` walks the space by a trial; samplers and pruners come by name."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest

from autokd.config import SearchConfig
from autokd.documents import Document
from autokd.search import MCTSSampler, TrialSeededSampler, decision_role, make_pruner, make_sampler, suggest
from autokd.search.suggest import TrialChooser
from autokd.space import space_from_document

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = space_from_document(Document({}))


def test_suggest_records_every_decision_of_the_spec() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    spec = suggest(trial, SPACE)
    study.enqueue_trial(trial.params)
    again = study.ask()
    assert suggest(again, SPACE).digest == spec.digest
    assert again.params == trial.params


def test_an_integer_is_suggested_as_an_integer() -> None:
    trial = optuna.create_study().ask()
    chosen = TrialChooser(trial).number("window", 1, 4, log=False, integer=True)
    assert isinstance(chosen, int)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("t1.distance", "distance"),
        ("t12.distance(kl|l2)", "distance"),
        ("t2.scale(none|max_pool[window=4])", "scale"),
        ("terms", "terms"),
        ("t1.gradient_ratio", "gradient_ratio"),
    ],
)
def test_the_role_of_a_decision_is_its_slot(name: str, role: str) -> None:
    assert decision_role(name) == role


def test_names_of_the_configuration_give_the_samplers() -> None:
    assert isinstance(make_sampler(SearchConfig()), MCTSSampler)
    found = {name: str(make_sampler(SearchConfig(sampler=name))) for name in ("tpe", "nsga2", "gp", "random")}  # type: ignore[arg-type]
    assert found == {
        "tpe": "TrialSeededSampler(TPESampler)",
        "nsga2": "TrialSeededSampler(NSGAIISampler)",
        "gp": "TrialSeededSampler(GPSampler)",
        "random": "TrialSeededSampler(RandomSampler)",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", optuna.pruners.NopPruner),
        ("median", optuna.pruners.MedianPruner),
        ("percentile", optuna.pruners.PercentilePruner),
        ("halving", optuna.pruners.SuccessiveHalvingPruner),
        ("hyperband", optuna.pruners.HyperbandPruner),
    ],
)
def test_names_of_the_configuration_give_the_pruners(name: str, expected: type) -> None:
    assert type(make_pruner(SearchConfig(pruner=name))) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize("pruner", ["median", "percentile", "halving", "hyperband"])
def test_mcts_searches_under_every_pruner(pruner: str) -> None:
    config = SearchConfig(pruner=pruner)  # type: ignore[arg-type]
    study = optuna.create_study(direction="maximize", sampler=make_sampler(config), pruner=make_pruner(config))

    def objective(trial: optuna.Trial) -> float:
        worth = float(sum(trial.suggest_categorical(name, [0, 1, 2]) for name in "abcd"))
        for epoch in range(1, 5):
            trial.report(worth * epoch, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return worth * 4

    study.optimize(objective, n_trials=40)
    assert len(study.trials) == 40
    assert study.best_value >= 24


def test_trials_of_a_seeded_sampler_differ_and_repeat_with_the_seed() -> None:
    def floats(seed: int) -> list[float]:
        sampler = TrialSeededSampler(lambda s: optuna.samplers.RandomSampler(seed=s), seed)
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda t: t.suggest_float("u", 0, 1) + t.suggest_float("v", 0, 1), n_trials=6)
        return [value for trial in study.trials for value in trial.params.values()]

    assert len(set(floats(0))) == 12
    assert floats(0) == floats(0)
    assert floats(0) != floats(1)


def test_the_search_floor_loads_neither_torch_nor_ray() -> None:
    code = "import sys, autokd.search; print(sorted({'torch', 'ray', 'mmdet'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
