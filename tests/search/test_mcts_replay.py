"""The same seed and history give the same suggestions: golden files, resumed searches, recreated studies.

``python tests/search/test_mcts_replay.py`` writes the golden files anew, after a change that is meant.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from autokd.search import MCTSSampler
from autokd.testing.samplers import conditional_objective as objective

optuna.logging.set_verbosity(optuna.logging.ERROR)
GOLDEN = Path(__file__).parent / "golden"
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {},
    "uct": {"policy": "uct"},
    "model_with_nested_tpe": {"continuous": "tpe"},
}


def suggestions(name: str) -> list[dict[str, Any]]:
    study = optuna.create_study(direction="maximize", sampler=MCTSSampler(7, **SETTINGS[name]))
    study.enqueue_trial({"source": "foreground", "distance": "l2", "gradient_ratio": 40.0})
    study.optimize(objective, n_trials=24)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", SETTINGS)
def test_suggestions_replay_the_golden_file(name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    assert len(expected) == 24
    for number, (found, wanted) in enumerate(zip(suggestions(name), expected)):
        assert list(found) == list(wanted), f"trial {number}"
        for parameter, value in wanted.items():
            exact = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert found[parameter] == exact, f"trial {number}"


def test_a_search_resumed_from_a_relational_database_continues_as_the_first_would(tmp_path: Path) -> None:
    """The conformance suite resumes from a journal; a relational storage must keep the order of parameters too."""

    def search(url: str, parts: tuple[int, ...]) -> list[dict[str, Any]]:
        optuna.create_study(storage=url, study_name="s", direction="maximize")
        for num_trials in parts:
            storage = optuna.storages.RDBStorage(url)
            study = optuna.load_study(storage=storage, study_name="s", sampler=MCTSSampler(3))
            study.optimize(objective, n_trials=num_trials)
        return [trial.params for trial in study.trials]

    whole = search(f"sqlite:///{tmp_path}/whole.db", (14,))
    assert search(f"sqlite:///{tmp_path}/resumed.db", (7, 1, 6)) == whole


@pytest.mark.parametrize("policy", ["model", "uct"])
def test_suggestions_do_not_depend_on_the_order_in_which_trials_finished(policy: Any) -> None:
    """A sampler that read the trials one by one, as they ended in a shuffled order, agrees with a new one."""
    sampler = MCTSSampler(5, policy=policy)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    shuffle = random.Random(1)
    waiting: list[tuple[optuna.Trial, float]] = []
    for _ in range(30):
        trial = study.ask()
        waiting.append((trial, objective(trial)))
        if len(waiting) > 4:
            trial, value = waiting.pop(shuffle.randrange(len(waiting)))
            study.tell(trial, value)
    trial = study.ask()
    first = objective(trial)
    again = MCTSSampler(5, policy=policy)
    frozen = study.trials[trial.number]
    seen = {name: frozen.distributions[name] for name in frozen.params}
    wanted = dict(frozen.params)
    frozen.params, frozen.distributions = {}, {}
    again.before_trial(study, frozen)
    for name, distribution in seen.items():
        found = again.sample_independent(study, frozen, name, distribution)
        assert found == wanted[name], name
        frozen.params[name], frozen.distributions[name] = found, distribution
    assert isinstance(first, (int, float))


def test_a_recreated_study_of_the_same_name_is_not_mistaken_for_the_first() -> None:
    sampler = MCTSSampler(0)
    for offset in (0, 100):
        study = optuna.create_study(study_name="same", direction="maximize", sampler=sampler)
        study.optimize(lambda trial, offset=offset: offset + objective(trial), n_trials=12)
        fresh = optuna.create_study(study_name="same", direction="maximize", sampler=MCTSSampler(0))
        fresh.add_trials(study.trials)
        for each in (study, fresh):
            each.optimize(objective, n_trials=3)
        assert [trial.params for trial in study.trials] == [trial.params for trial in fresh.trials]


def test_threads_may_share_a_sampler() -> None:
    study = optuna.create_study(direction="maximize", sampler=MCTSSampler(0))
    study.optimize(objective, n_trials=24, n_jobs=3)
    assert len(study.trials) == 24
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)


if __name__ == "__main__":
    for golden_name in SETTINGS:
        (GOLDEN / f"{golden_name}.json").write_text(json.dumps(suggestions(golden_name), indent=1) + "\n")
