"""Tree policies: the scores by which the sampler selects actions.

A policy makes a ``Scorer`` once a trial; the scorer is asked once a decision. ``UCT`` is Auto-KD's formula,
``ModelPolicy`` the same with a value model in place of mean rewards; the package's docstring has both.

Legend: A actions of one decision, K candidates of a numeric parameter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtri

from .history import Normalization, compute_rewards
from .tree import Action, Rollout, Trajectory, Tree
from .value_model import ValueModel

BIAS = 0.25
"""Weight of the progressive bias, in standard deviations of all rewards: the prior decides the first trials, and a
handful of trials overrule it."""
NUMBER_DRAW = 0.5
"""Scale of the posterior draw by which a number is chosen. It is greater than that of actions, since numbers have no
visit counts that would make the search explore."""


class Scorer(Protocol):
    """Scores of one trial's actions and numbers; the greater the better."""

    def score_actions(self, trajectory: Trajectory, actions: Sequence[Action], rng: np.random.Generator) -> np.ndarray:
        """Score all choices of one decision.

        Args:
            trajectory: what the trial has decided so far.
            actions: the decision's A actions.
            rng: the only source of randomness.

        Returns:
            Scores of shape (A,).
        """
        ...

    def score_numbers(
        self, trajectory: Trajectory, name: str, units_K: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Score candidates of a numeric parameter.

        Args:
            trajectory: what the trial has decided so far.
            name: the parameter.
            units_K: candidates, scaled to [0, 1].
            rng: the only source of randomness.

        Returns:
            Scores of shape (K,).
        """
        ...


Prior = Mapping[str, float]
"""Option -> opinion of it before any trial, in arbitrary units about 0; an option that is missing has 0."""


class Policy(Protocol):
    """Settings of a tree policy."""

    def make_scorer(self, tree: Tree, prior: Prior) -> Scorer:
        """Return the scorer of one trial.

        Args:
            tree: the tree as it is when the trial begins.
            prior: opinion of options, which enters as a progressive bias.

        Returns:
            A scorer for all decisions of that trial.
        """
        ...


@dataclass(frozen=True)
class UCT:
    """Upper confidence bounds on mean rewards, as in Auto-KD (ICCV 2023).

    P(n, a) is a softmax over the decision's actions of the mean reward of their options anywhere in the tree
    (all moves as first), times the number of actions: 1 before any trial, and shaped by the presets that are tried
    first. It is not the ``Prior`` of ``make_scorer``, which enters as a progressive bias.

    An action that was not visited below this node has ``prior_visits`` imaginary visits with its option's mean reward
    (first-play urgency), which lose weight as real visits come. A pending trial counts in N and not in Q (Liu et al.,
    WU-UCT, ICLR 2020, equation 4).

    Attributes:
        exploration: c of the formula.
        normalization: scale of rewards (``compute_rewards``).
        prior_visits: imaginary visits, also added to N(n, a), so that an action without visits has a finite bonus.
        temperature: of the softmax.
        bias: weight of the progressive bias.
    """

    exploration: float = 0.6
    normalization: Normalization = "rank"
    prior_visits: float = 0.5
    temperature: float = 1.0
    bias: float = BIAS

    def make_scorer(self, tree: Tree, prior: Prior) -> UCTScorer:
        """Return the scorer of one trial.

        Args:
            tree: the tree as it is when the trial begins.
            prior: opinion of options, which enters as a progressive bias.
        """
        return UCTScorer(self, tree, prior)


class UCTScorer:
    """UCT's scores in one state of the tree."""

    def __init__(self, settings: UCT, tree: Tree, prior: Prior) -> None:
        self.settings = settings
        self.tree = tree
        self.prior = prior
        rewards = compute_rewards([tree.rollouts[number] for number in tree.trial_numbers], settings.normalization)
        self.reward_by_number = np.zeros(max(tree.trial_numbers, default=-1) + 1)
        self.reward_by_number[tree.trial_numbers] = rewards
        self.mean = float(rewards.mean()) if len(rewards) else 0.5

    def score_actions(self, trajectory: Trajectory, actions: Sequence[Action], rng: np.random.Generator) -> np.ndarray:
        settings, count = self.settings, len(actions)
        node = self.tree.node_at(trajectory.actions)
        anywhere = np.array([self._option_mean(action.option) for action in actions])
        weights = np.exp((anywhere - anywhere.max()) / settings.temperature)  # the maximum keeps exp from overflowing
        weights = count * weights / weights.sum()
        visits = count_visits(self.tree, trajectory.actions, actions)
        # N of the mean counts finished trials alone; ``visits`` counts the pending ones too.
        finished, totals = np.zeros(count), np.zeros(count)
        for i, action in enumerate(actions):
            child = None if node is None else node.child(action)
            if child is not None:
                finished[i], totals[i] = len(child.trial_numbers), self.reward_by_number[child.trial_numbers].sum()
        value = (totals + settings.prior_visits * anywhere) / (finished + settings.prior_visits)
        bonus = settings.exploration * weights * np.sqrt(np.log(1 + visits.sum()) / (visits + settings.prior_visits))
        bias = settings.bias * progressive_bias(self.prior, self.tree, actions)
        return value + bonus + bias + 1e-9 * rng.random(count)  # far below any difference that means something: ties

    def score_numbers(
        self, trajectory: Trajectory, name: str, units_K: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        return rng.random(len(units_K))

    def _option_mean(self, option: str, pseudo_count: float = 3.0) -> float:
        """Mean reward of an option anywhere, shrunk towards the mean of all by ``pseudo_count`` imaginary trials."""
        numbers = self.tree.numbers_by_option.get(option, [])
        total = float(self.reward_by_number[numbers].sum())
        return (total + pseudo_count * self.mean) / (len(numbers) + pseudo_count)


@dataclass(frozen=True)
class ModelPolicy:
    """Upper confidence bounds over a value model (Bayesian UCT); the default, best on planted trees.

    Q(n, a) is the posterior mean, in standard deviations of all rewards, plus ``draw`` times a joint draw of the
    posterior's deviations. Visit counts make sure that all choices high in the tree are tried. Below a node that no
    trial has visited all counts are equal, and the model alone decides. A pending trial counts as a visit; in the model
    it has its expected value, which leaves every mean alone and removes the deviation that its reward will remove.

    Attributes:
        exploration: c of the formula.
        draw: scale of the draw; 1 is Thompson sampling, 0 is greedy.
        prior_visits: added to N(n, a).
        normalization: scale of rewards (``compute_rewards``); ranks become normal scores.
        max_records: finished trials that the model sees, which bounds its cost: the best quarter of that number, and
            the latest.
        bias: weight of the progressive bias.
    """

    exploration: float = 0.45
    draw: float = 0.25
    prior_visits: float = 0.5
    normalization: Normalization = "rank"
    max_records: int = 160
    bias: float = BIAS

    def make_scorer(self, tree: Tree, prior: Prior) -> ModelScorer:
        """Return the scorer of one trial, with the model fitted to the tree's rollouts.

        Args:
            tree: the tree as it is when the trial begins.
            prior: opinion of options, which enters as a progressive bias.
        """
        return ModelScorer(self, tree, prior)


class ModelScorer:
    """The model policy's scores in one state of the tree."""

    def __init__(self, settings: ModelPolicy, tree: Tree, prior: Prior) -> None:
        self.settings = settings
        self.tree = tree
        self.prior = prior
        rollouts = [tree.rollouts[number] for number in tree.trial_numbers]
        targets = _compute_targets(rollouts, settings.normalization)
        rollouts, targets = _select_window(rollouts, targets, settings.max_records)
        pending = tree.pending[-settings.max_records :]
        self.model: ValueModel | None = None
        if rollouts or pending:
            seen = [rollout.trajectory for rollout in rollouts]
            self.model = ValueModel(seen, targets, pending=[rollout.trajectory for rollout in pending])

    def score_actions(self, trajectory: Trajectory, actions: Sequence[Action], rng: np.random.Generator) -> np.ndarray:
        settings = self.settings
        drawn = self._sample_posterior([trajectory.with_action(action) for action in actions], settings.draw, rng)
        visits = count_visits(self.tree, trajectory.actions, actions)
        bonus = np.sqrt(np.log1p(visits.sum()) / (visits + settings.prior_visits))
        bias = settings.bias * progressive_bias(self.prior, self.tree, actions)
        return drawn + settings.exploration * bonus + bias

    def score_numbers(
        self, trajectory: Trajectory, name: str, units_K: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        return self._sample_posterior([trajectory.with_number(name, float(u)) for u in units_K], NUMBER_DRAW, rng)

    def _sample_posterior(
        self, trajectories: Sequence[Trajectory], scale: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Return the posterior mean plus ``scale`` times one joint draw of the deviations, shape (K,).

        The draw is joint, since candidates that share decisions have errors in common: independent draws would
        exaggerate their differences.
        """
        if self.model is None:
            return rng.random(len(trajectories))
        mean_K, covariance_KK = self.model.posterior(trajectories)
        # Rounding makes the covariance of alike candidates slightly indefinite, which Cholesky refuses.
        covariance_KK[np.diag_indices_from(covariance_KK)] += 1e-6
        return mean_K + scale * (np.linalg.cholesky(covariance_KK) @ rng.standard_normal(len(trajectories)))


def progressive_bias(prior: Prior, tree: Tree, actions: Sequence[Action]) -> np.ndarray:
    """Return h(a) / (1 + N(a)) of each action.

    Progressive bias (Chaslot et al., New Mathematics and Natural Computation 4, 2008). N(a) counts the finished and
    pending trials that took the action's option anywhere in the tree, not at this node alone: the prior is an opinion
    of the option, so each trial that takes it is evidence about that opinion.

    Args:
        prior: h, by option.
        tree: the tree.
        actions: A actions.

    Returns:
        Shape (A,).
    """
    if not prior:
        return np.zeros(len(actions))
    opinions = np.array([prior.get(action.option, 0.0) for action in actions])
    pending = Counter(action.option for rollout in tree.pending for action in rollout.actions)
    taken = [len(tree.numbers_by_option.get(action.option, ())) + pending[action.option] for action in actions]
    return opinions / (1 + np.array(taken))


def count_visits(tree: Tree, above: tuple[Action, ...], actions: Sequence[Action]) -> np.ndarray:
    """Return N(n, a), the finished and pending trials through each action below ``above``, shape (A,)."""
    node = tree.node_at(above)
    children = [None if node is None else node.child(action) for action in actions]
    return np.array([0.0 if child is None else len(child.trial_numbers) + child.num_pending for child in children])


def _compute_targets(rollouts: Sequence[Rollout], normalization: Normalization) -> np.ndarray:
    """Return rewards with mean 0 and standard deviation 1; ranks become normal scores, as a Gaussian model expects."""
    rewards = compute_rewards(rollouts, normalization)
    if not len(rewards):
        return rewards
    if normalization == "rank":
        rewards = ndtri(rewards)  # finite, since a rank lies strictly between 0 and 1
    spread = float(rewards.std())
    return (rewards - rewards.mean()) / spread if spread > 1e-12 else np.zeros(len(rewards))


def _select_window(rollouts: list[Rollout], targets: np.ndarray, size: int) -> tuple[list[Rollout], np.ndarray]:
    """Keep the ``size // 4`` best and the latest of the others, in their order."""
    if len(rollouts) <= size:
        return rollouts, targets
    latest = set(range(len(rollouts) - (size - size // 4), len(rollouts)))
    # A stable sort decides ties by trial number: the window must be a function of the history.
    best = [i for i in np.argsort(-targets, kind="stable").tolist() if i not in latest]
    kept = sorted(latest | set(best[: size // 4]))
    return [rollouts[i] for i in kept], targets[kept]
