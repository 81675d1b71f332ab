"""The prior of options: counts over published distillers, and the weight that it has in a search."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.samplers import BaseSampler

from autokd.config import SearchConfig, load_space
from autokd.presets import load_preset, preset_names
from autokd.search import MCTSSampler, decision_role, make_sampler, published_prior, suggest
from autokd.search.mcts.history import read_trajectory
from autokd.search.mcts.policy import progressive_bias
from autokd.search.mcts.tree import Action, Rollout, Tree
from autokd.spec import DistillerSpec

SPACE = load_space("""
space:
  terms: 1
  sources: [feature_map, foreground, background]
  transforms:
    normalize: [none, standardize, {softmax_channels: {temperature: 1}}, {softmax_channels: {temperature: 2}}]
  distances: [l1, l2, kl]
  gradient_ratio: [10, 40]
""")


def test_options_are_counted_once_a_term_and_centered_over_their_slot():
    specs = [load_preset(name) for name in ("fitnet", "pkd", "kd")]  # whole|l2, whole|standardize|l2, softmax..|kl
    found = published_prior(SPACE, specs)

    def centered(*counts: int) -> list[float]:
        logs = [math.log(count + 1) for count in counts]
        return [log - sum(logs) / len(logs) for log in logs]

    names = [f"source={name!r}" for name in ("feature_map", "foreground", "background")]
    assert [found[name] for name in names] == pytest.approx(centered(2, 0, 0)), "kd's logits are no option here"
    names = [f"normalize={slot.label!r}" for slot in SPACE.slots[1].options]
    assert [found[name] for name in names] == pytest.approx(centered(1, 1, 1, 1))
    assert [found[f"distance={name!r}"] for name in ("l1", "l2", "kl")] == pytest.approx(centered(0, 2, 1))


def test_the_prior_names_options_as_the_tree_does():
    prior = published_prior(SPACE, [load_preset("fitnet")])
    study = optuna.create_study(sampler=make_sampler(SearchConfig(), SPACE))
    seen = set()
    for _ in range(12):
        trial = study.ask()
        suggest(trial, SPACE)
        actions, _ = read_trajectory(trial.params, trial.distributions, decision_role)
        seen |= {action.option for action in actions}
        study.tell(trial, 0.0)
    assert {option for option in seen if not option.startswith("gradient_ratio")} <= set(prior)


@pytest.mark.parametrize("policy", ["model", "uct"])
def test_the_first_trial_takes_the_best_option_of_the_prior_and_results_overrule_it(policy):
    study = optuna.create_study(
        direction="maximize", sampler=MCTSSampler(0, policy=policy, prior={"a='right'": 2.0, "a='wrong'": 9.0})
    )
    taken = []
    for _ in range(20):
        trial = study.ask()
        taken.append(trial.suggest_categorical("a", ("other", "right", "wrong")))
        trial.suggest_categorical("b", tuple(range(12)))
        study.tell(trial, {"other": 0.0, "right": 1.0, "wrong": -1.0}[taken[-1]])
    assert taken[0] == "wrong"
    assert taken.count("right") > taken.count("wrong")


def test_the_bias_falls_with_trials_that_take_the_option_anywhere_running_ones_included():
    action, other = Action("t1.a", 0, 2, "a=1"), Action("t2.a", 1, 2, "a=1")
    tree = Tree()
    tree.backpropagate(Rollout(0, (action,), (), 1.0, "finished"))
    tree.backpropagate(Rollout(1, (other,), (), None, "failed"))
    tree.set_pending([Rollout(2, (other,), (), None, "running")])
    fresh = Action("t1.a", 1, 2, "a=2")
    assert progressive_bias({"a=1": 8.0, "a=2": -3.0}, tree, [action, fresh]).tolist() == [8.0 / 4, -3.0]
    assert progressive_bias({}, tree, [action, fresh]).tolist() == [0.0, 0.0]


def suggested(sampler: BaseSampler) -> list[dict[str, object]]:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for number in range(8):
        trial = study.ask()
        suggest(trial, SPACE)
        study.tell(trial, float(number % 3))
    return [trial.params for trial in study.trials]


def test_the_configuration_chooses_between_the_published_prior_and_none():
    published = published_prior(SPACE, [load_preset(name) for name in preset_names()])
    with_prior = suggested(MCTSSampler(0, role=decision_role, prior=published))
    without = suggested(MCTSSampler(0, role=decision_role))
    assert with_prior != without
    assert suggested(make_sampler(SearchConfig(seed=0), SPACE)) == with_prior
    assert suggested(make_sampler(SearchConfig(seed=0, prior="none"), SPACE)) == without
    assert suggested(make_sampler(SearchConfig(seed=0))) == without, "without a space nothing can be counted"


def test_the_prior_of_no_specs_is_zero():
    assert set(published_prior(SPACE, list[DistillerSpec]()).values()) == {0.0}
