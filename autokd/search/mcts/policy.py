"""How a tree's choices are scored; the sampler takes the greatest score among those still open.

A policy is asked in two steps: ``make_scorer(tree)`` once a trial, ``scorer.score_actions(...)`` once a decision. Two policies:

``UCT``           the formula of Auto-KD (ICCV 2023): Q(n, a) + c P(n, a) sqrt(ln N(n) / N(n, a)), where Q is the
                  mean reward below the choice and P comes from all-actions-as-first statistics.
``ModelPolicy``   the same formula, where Q is drawn from the posterior of a value model that shares what was
                  learned between branches (Bayesian UCT; compare Tesauro et al., UAI 2010).

Both add ``bias`` h / (1 + n) where something is thought of an option before any trial: see ``progressive_bias``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtri

from .history import Normalisation, compute_rewards
from .tree import Action, Rollout, Tree
from .value_model import Trajectory, ValueModel

BIAS = 0.25
"""Of the prior, in deviations of all rewards: it decides the first trials, and a handful of trials overrule it."""
NUMBER_DRAW = 0.5
"""Scale of the posterior draw by which a number is chosen; no visits are counted there."""


class Scorer(Protocol):
    """Scores choices and numbers for one trial that is being asked; the greater the better."""

    def score_actions(self, trajectory: Trajectory, actions: Sequence[Action], rng: np.random.Generator) -> np.ndarray:
        """One score for each of ``actions``, all the choices of one decision after ``trajectory``, (num_choices,)."""
        ...

    def score_numbers(
        self, trajectory: Trajectory, name: str, units_K: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """One score for each candidate of the numeric parameter ``name``, (K,)."""
        ...


Prior = Mapping[str, float]
"""Option -> what is thought of it before any trial, in arbitrary units about 0; 0 where nothing is."""


class Policy(Protocol):
    def make_scorer(self, tree: Tree, prior: Prior) -> Scorer: ...


@dataclass(frozen=True)
class UCT:
    """Upper confidence bounds whose exploration is weighted by all-actions-as-first statistics.

    P(n, a): softmax over the choices, times their number, of the mean reward of the option anywhere in the tree;
    so the presets that are tried first set it, and it is 1 before any trial. It is not the ``Prior`` that ``make_scorer``
    is given, which is added as a progressive bias. ``prior_visits`` imaginary visits of that mean stand for a choice
    that was not tried yet (first play) and fade as real ones come. A running trial is a visit where
    visits are counted, and no reward where rewards are averaged (Liu et al., ICLR 2020, WU-UCT, eq. 4).
    """

    exploration: float = 0.6
    normalisation: Normalisation = "rank"
    prior_visits: float = 0.5
    temperature: float = 1.0
    bias: float = BIAS

    def make_scorer(self, tree: Tree, prior: Prior) -> UCTScorer:
        return UCTScorer(self, tree, prior)


class UCTScorer:
    def __init__(self, settings: UCT, tree: Tree, prior: Prior) -> None:
        self.settings = settings
        self.tree = tree
        self.prior = prior
        given = compute_rewards([tree.rollouts[number] for number in tree.trial_numbers], settings.normalisation)
        self.reward_by_number = np.zeros(max(tree.trial_numbers, default=-1) + 1)
        self.reward_by_number[tree.trial_numbers] = given
        self.mean = float(given.mean()) if len(given) else 0.5

    def score_actions(self, trajectory: Trajectory, actions: Sequence[Action], rng: np.random.Generator) -> np.ndarray:
        settings, count = self.settings, len(actions)
        node = self.tree.node_at(trajectory[0])
        elsewhere = np.array([self._option_mean(action.option) for action in actions])
        weights = np.exp((elsewhere - elsewhere.max()) / settings.temperature)
        prior = count * weights / weights.sum()
        visits, told, totals = count_visits(self.tree, trajectory[0], actions), np.zeros(count), np.zeros(count)
        for i, action in enumerate(actions):
            child = None if node is None else node.child(action)
            if child is not None:
                told[i], totals[i] = len(child.trial_numbers), self.reward_by_number[child.trial_numbers].sum()
        value = (totals + settings.prior_visits * elsewhere) / (told + settings.prior_visits)
        bonus = settings.exploration * prior * np.sqrt(np.log(1 + visits.sum()) / (visits + settings.prior_visits))
        return (
            value + bonus + settings.bias * progressive_bias(self.prior, self.tree, actions) + 1e-9 * rng.random(count)
        )

    def score_numbers(
        self, trajectory: Trajectory, name: str, units_K: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        return rng.random(len(units_K))

    def _option_mean(self, option: str, pseudo_count: float = 3.0) -> float:
        numbers = self.tree.numbers_by_option.get(option, [])
        total = float(self.reward_by_number[numbers].sum())
        return (total + pseudo_count * self.mean) / (len(numbers) + pseudo_count)


@dataclass(frozen=True)
class ModelPolicy:
    """Upper confidence bounds over a value model: Q(n, a) + c sqrt(ln N(n) / N(n, a)).

    Q is the posterior mean, in deviations of all rewards, plus ``draw`` times one draw of the posterior's deviation
    (1: Thompson sampling, 0: greedy); c is ``exploration``, and ``prior_visits`` are added to N(n, a). The visits
    make sure that the choices high in the tree are all tried; below a node that was never met all of them are
    equal, and the model alone decides. A running trial counts as a visit (compare Liu et al., ICLR 2020, WU-UCT),
    and stands in the model as one that will turn out as expected: it actions no choice's value, but what it will
    tell need not be asked again. The model sees at most ``max_records`` finished trials: the best quarter of that
    number and the latest.
    """

    exploration: float = 0.45
    draw: float = 0.25
    prior_visits: float = 0.5
    normalisation: Normalisation = "rank"
    max_records: int = 160
    bias: float = BIAS

    def make_scorer(self, tree: Tree, prior: Prior) -> ModelScorer:
        return ModelScorer(self, tree, prior)


class ModelScorer:
    def __init__(self, settings: ModelPolicy, tree: Tree, prior: Prior) -> None:
        self.settings = settings
        self.tree = tree
        self.prior = prior
        rollouts = [tree.rollouts[number] for number in tree.trial_numbers]
        targets = _compute_targets(rollouts, settings.normalisation)
        rollouts, targets = _select_window(rollouts, targets, settings.max_records)
        running = tree.pending[-settings.max_records :]
        self.model: ValueModel | None = None
        if rollouts or running:
            self.model = ValueModel(_trajectories(rollouts), targets, pending=_trajectories(running))

    def score_actions(self, trajectory: Trajectory, actions: Sequence[Action], rng: np.random.Generator) -> np.ndarray:
        above, numbers = trajectory
        drawn = self._sample_posterior([((*above, action), numbers) for action in actions], self.settings.draw, rng)
        visits = count_visits(self.tree, above, actions)
        bonus = np.sqrt(np.log1p(visits.sum()) / (visits + self.settings.prior_visits))
        return (
            drawn
            + self.settings.exploration * bonus
            + self.settings.bias * progressive_bias(self.prior, self.tree, actions)
        )

    def score_numbers(
        self, trajectory: Trajectory, name: str, units_K: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        actions, numbers = trajectory
        trajectories = [(actions, (*numbers, (name, float(unit)))) for unit in units_K]
        return self._sample_posterior(trajectories, NUMBER_DRAW, rng)

    def _sample_posterior(
        self, trajectories: Sequence[Trajectory], scale: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Posterior mean plus ``scale`` times a joint draw of the deviations, (K,)."""
        if self.model is None:
            return rng.random(len(trajectories))
        mean_K, covariance_KK = self.model.posterior(trajectories)
        covariance_KK[np.diag_indices_from(covariance_KK)] += 1e-6
        return mean_K + scale * (np.linalg.cholesky(covariance_KK) @ rng.standard_normal(len(trajectories)))


def progressive_bias(prior: Prior, tree: Tree, actions: Sequence[Action]) -> np.ndarray:
    """h / (1 + n) of each of ``actions``: the prior, which fades as the option is taken anywhere in the tree, by
    finished and running trials (progressive bias: Chaslot et al., New Math. Nat. Comput. 4, 2008)."""
    if not prior:
        return np.zeros(len(actions))
    known = np.array([prior.get(action.option, 0.0) for action in actions])
    running = Counter(action.option for rollout in tree.pending for action in rollout.actions)
    taken = np.array(
        [len(tree.numbers_by_option.get(action.option, ())) + running[action.option] for action in actions]
    )
    return known / (1 + taken)


def count_visits(tree: Tree, above: tuple[Action, ...], actions: Sequence[Action]) -> np.ndarray:
    """N(n, a): finished and running trials through each of ``actions``, (num_choices,)."""
    node = tree.node_at(above)
    children = [None if node is None else node.child(action) for action in actions]
    return np.array([0.0 if child is None else len(child.trial_numbers) + child.num_pending for child in children])


def _trajectories(rollouts: Sequence[Rollout]) -> list[Trajectory]:
    return [(rollout.actions, rollout.numbers) for rollout in rollouts]


def _compute_targets(rollouts: Sequence[Rollout], normalisation: Normalisation) -> np.ndarray:
    """Rewards as the model wants them: mean 0, deviation 1; ranks become normal scores."""
    given = compute_rewards(rollouts, normalisation)
    if not len(given):
        return given
    if normalisation == "rank":
        given = ndtri(given)
    spread = float(given.std())
    return (given - given.mean()) / spread if spread > 1e-12 else np.zeros(len(given))


def _select_window(rollouts: list[Rollout], targets: np.ndarray, size: int) -> tuple[list[Rollout], np.ndarray]:
    if len(rollouts) <= size:
        return rollouts, targets
    latest = set(range(len(rollouts) - (size - size // 4), len(rollouts)))
    best = [i for i in np.argsort(-targets, kind="stable").tolist() if i not in latest]
    kept = sorted(latest | set(best[: size // 4]))
    return [rollouts[i] for i in kept], targets[kept]
