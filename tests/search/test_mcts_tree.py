"""The tree: exhausted leaves; running, failed, pruned and enqueued trials; directions; the snapshot of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from autokd.search import FORGET_ATTR, UCT, MCTSSampler, ModelPolicy, TreeNode, read_tree
from autokd.search.mcts.history import History
from autokd.search.mcts.tree import Action, Rollout, State, Trajectory, Tree

optuna.logging.set_verbosity(optuna.logging.ERROR)
Objective = Callable[[optuna.Trial], float]
POLICIES = ("model", "uct")


def conditional(trial: optuna.Trial) -> float:
    """2 x 3 + 4 + 1 = 11 leaves at different depths; the best is (a, 1, 2)."""
    branch = trial.suggest_categorical("branch", ["a", "b", "c"])
    if branch == "a":
        return 10.0 * trial.suggest_categorical("x", [0, 1]) + trial.suggest_categorical("y", [0, 1, 2])
    if branch == "b":
        return float(trial.suggest_categorical("z", [0, 1, 2, 3]))
    return -1.0


def leaf(trial: optuna.trial.FrozenTrial | optuna.Trial) -> tuple[tuple[str, object], ...]:
    return tuple(trial.params.items())


def new_study(seed: int = 0, direction: str = "maximize", **settings: object) -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=MCTSSampler(seed, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(5))
def test_every_leaf_is_visited_once_before_any_is_repeated(policy: str, seed: int) -> None:
    study = new_study(seed, policy=policy)
    study.optimize(conditional, n_trials=11)
    assert len({leaf(trial) for trial in study.trials}) == 11
    assert read_tree(study).is_exhausted
    study.optimize(conditional, n_trials=4)
    assert len(study.trials) == 15


@pytest.mark.parametrize("policy", POLICIES)
def test_a_leaf_with_a_number_is_never_exhausted(policy: str) -> None:
    study = new_study(policy=policy)
    study.optimize(lambda t: t.suggest_categorical("a", [0, 1]) + t.suggest_float("u", 0, 1), n_trials=12)
    assert not read_tree(study).is_exhausted
    assert len({trial.params["u"] for trial in study.trials}) == 12


def test_a_number_with_one_value_does_not_keep_a_leaf_from_being_exhausted() -> None:
    study = new_study()
    study.optimize(lambda t: t.suggest_categorical("a", [0, 1]) + t.suggest_float("u", 1, 1), n_trials=2)
    assert read_tree(study).is_exhausted


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("num_finished", [0, 10])
def test_trials_asked_at_once_go_to_distinct_leaves(policy: str, num_finished: int) -> None:
    def walk(trial: optuna.Trial) -> float:
        return float(sum(trial.suggest_categorical(name, [0, 1, 2, 3]) for name in "abc"))

    study = new_study(policy=policy)
    study.optimize(walk, n_trials=num_finished)
    asked = [study.ask() for _ in range(16)]
    for trial in asked:
        walk(trial)
    assert len({leaf(trial) for trial in study.trials}) == num_finished + 16


def scores_of_three(policy: ModelPolicy | UCT, num_pending: int) -> np.ndarray:
    """Return the scores of one decision's three actions after nine trials, in which choice 2 was the best.

    All pending trials have choice 2. Every trial has a number, so that no leaf is exhausted.
    """

    def action(choice: int) -> Action:
        return Action("a", choice, 3, f"a={choice}")

    def rollout(number: int, choice: int, value: float | None, state: State) -> Rollout:
        return Rollout(number, (action(choice),), (("u", 0.5),), value, state)

    found = Tree()
    for number in range(9):
        found.backpropagate(rollout(number, number % 3, float(number % 3), "finished"))
    found.set_pending(rollout(9 + i, 2, None, "running") for i in range(num_pending))
    trajectory = Trajectory(numbers=(("u", 0.5),))
    rng = np.random.default_rng(0)
    return policy.make_scorer(found, {}).score_actions(trajectory, [action(choice) for choice in range(3)], rng)


@pytest.mark.parametrize("policy", [ModelPolicy(draw=0.0), UCT()])
def test_a_running_trial_lowers_the_score_of_its_choices(policy: ModelPolicy | UCT) -> None:
    alone, with_running = scores_of_three(policy, 0), scores_of_three(policy, 3)
    assert np.argmax(alone) == 2
    assert with_running[2] - with_running[0] < alone[2] - alone[0] - 1e-3


@pytest.mark.parametrize("greedy", [ModelPolicy(draw=0.0, exploration=0.0), UCT(exploration=0.0)])
def test_a_running_trial_changes_no_value(greedy: ModelPolicy | UCT) -> None:
    np.testing.assert_allclose(scores_of_three(greedy, 3), scores_of_three(greedy, 0), atol=1e-9)


def test_two_drivers_of_one_database_do_not_visit_the_same_leaf(tmp_path: object) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="s", direction="maximize")
    drivers = [optuna.load_study(storage=url, study_name="s", sampler=MCTSSampler(seed)) for seed in (0, 0)]
    turns = itertools.cycle(drivers)
    for _ in range(11 // 2):
        open_trials = [(driver, driver.ask()) for driver in (next(turns), next(turns))]
        values = [conditional(trial) for _, trial in open_trials]
        for (driver, trial), value in zip(open_trials, values, strict=True):
            driver.tell(trial, value)
    last = drivers[0].ask()
    conditional(last)
    assert len({leaf(trial) for trial in drivers[1].trials}) == 11


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_both_directions_are_followed(policy: str, direction: str) -> None:
    sign = 1.0 if direction == "maximize" else -1.0

    def objective(trial: optuna.Trial) -> float:
        return sign * sum(trial.suggest_categorical(name, [0, 1, 2]) for name in "abcdef")

    study = new_study(direction=direction, policy=policy)
    study.optimize(objective, n_trials=60)
    best = sign * study.best_value
    late = [sign * trial.value for trial in study.trials[30:]]  # type: ignore[operator]
    assert best >= 10
    assert sum(late) / len(late) > 7.5, "a uniform choice gives 6 on average"


@pytest.mark.parametrize("policy", POLICIES)
def test_choices_that_fail_are_avoided(policy: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        bad = trial.suggest_categorical("a", ["good", "bad"]) == "bad"
        total = sum(trial.suggest_categorical(name, [0, 1, 2]) for name in "bcde")
        return float("nan") if bad else float(total)

    study = new_study(policy=policy)
    study.optimize(objective, n_trials=40)
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert 1 <= len(failed) <= 12
    assert all(trial.params["a"] == "bad" for trial in failed)


def test_failed_trials_count_as_visits_unless_left_out() -> None:
    study = new_study()
    for forget in (False, True):
        trial = study.ask()
        conditional(trial)
        trial.set_user_attr(FORGET_ATTR, forget)
        study.tell(trial, state=TrialState.FAIL)
    assert read_tree(study).visits == 1

    assert len(History().update(study, None).rollouts) == 1
    assert len(History(failed_counts=False).update(study, None).rollouts) == 0


def test_a_sampler_that_leaves_failed_trials_out_may_repeat_them() -> None:
    repeated = new_study(failed_counts=False, prior={"branch='c'": 9.0})
    for _ in range(3):
        trial = repeated.ask()
        conditional(trial)
        repeated.tell(trial, state=TrialState.FAIL)
    assert [leaf(trial) for trial in repeated.trials] == [(("branch", "c"),)] * 3


def test_a_pruned_trial_has_its_last_intermediate_value() -> None:
    study = new_study()
    trial = study.ask()
    conditional(trial)
    trial.report(1.5, 1)
    trial.report(2.5, 2)
    study.tell(trial, state=TrialState.PRUNED)
    assert read_tree(study).mean_value == 2.5


def test_a_pruned_trial_without_reports_counts_as_the_worst() -> None:
    study = new_study()
    for value in (3.0, None):
        trial = study.ask()
        trial.suggest_categorical("a", [0, 1])
        study.tell(trial, value, state=None if value else TrialState.PRUNED)
    root = read_tree(study)
    assert (root.visits, root.mean_value, root.is_exhausted) == (2, 3.0, True)


def test_fixed_parameters_of_an_enqueued_trial_are_the_context_of_the_others() -> None:
    """Where "a" is fixed to the branch whose best follow-up is known, that follow-up is suggested."""

    def objective(trial: optuna.Trial) -> float:
        a = trial.suggest_categorical("a", [0, 1])
        b = trial.suggest_categorical("b", [0, 1, 2])
        return float(b if a else -b)

    study = new_study(1)
    for a, b in itertools.product((0, 1), (0, 1, 2)):
        study.enqueue_trial({"a": a, "b": b})
    study.optimize(objective, n_trials=6)
    assert [leaf(trial) for trial in study.trials] == [
        (("a", a), ("b", b)) for a, b in itertools.product((0, 1), (0, 1, 2))
    ]
    wanted = []
    for _ in range(10):
        study.enqueue_trial({"a": 1})
        study.optimize(objective, n_trials=1)
        wanted.append(study.trials[-1].params["b"])
    assert all(trial.params["a"] == 1 for trial in study.trials[6:])
    assert wanted.count(2) >= 5, "a uniform choice gives 3.3 on average"


def test_a_decision_fixed_below_an_open_one_keeps_its_place_in_the_path() -> None:
    study = new_study()
    study.enqueue_trial({"b": 2})
    study.optimize(
        lambda t: float(t.suggest_categorical("a", [0, 1]) + t.suggest_categorical("b", [0, 1, 2])), n_trials=1
    )
    [below] = read_tree(study).children
    assert (below.decision, below.children[0].decision, below.children[0].choice) == ("a", "b", 2)


def test_mixed_parameters_of_any_objective_are_searched() -> None:
    def objective(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["tree", "linear"])
        if kind == "tree":
            depth = trial.suggest_int("depth", 1, 12)
            return (depth - 7) ** 2 / 10 + abs(trial.suggest_float("rate", 1e-4, 1.0, log=True) - 0.03)
        return 5 + trial.suggest_float("ridge", 0, 1, step=0.25)

    study = new_study(direction="minimize")
    study.optimize(objective, n_trials=60)
    kinds = [trial.params["kind"] for trial in study.trials]
    assert study.best_value < 0.2
    assert kinds[30:].count("tree") > 20


def test_the_snapshot_counts_and_averages_in_the_units_of_the_study() -> None:
    study = new_study(direction="minimize")
    for a, b, value in ((0, 0, 4.0), (0, 1, 2.0), (1, 0, 7.0)):
        study.enqueue_trial({"a": a, "b": b})
        trial = study.ask()
        trial.suggest_categorical("a", [0, 1])
        trial.suggest_categorical("b", [0, 1])
        study.tell(trial, value)
    running = study.ask()
    running.suggest_categorical("a", [0, 1])

    root = read_tree(study)
    zero, one = root.children
    assert (root.visits, root.running, root.best_value, root.best_trial) == (3, 1, 2.0, 1)
    assert root.mean_value == pytest.approx(13 / 3)
    assert (zero.decision, zero.choice, zero.visits, zero.mean_value, zero.is_exhausted) == ("a", 0, 2, 3.0, True)
    assert (one.choice, one.visits, one.running, one.is_exhausted) == (1, 1, 1, False)
    assert [(child.decision, child.choice) for child in zero.children] == [("b", 0), ("b", 1)]


def test_a_study_in_which_nothing_happened_is_one_open_node() -> None:
    assert read_tree(new_study()) == TreeNode(None, None, 0, 0, None, None, None, False, ())


def test_an_unknown_policy_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match=r"'uctt' is not one of model, uct\. Did you mean 'uct'"):
        MCTSSampler(policy="uctt")  # type: ignore[arg-type]
