"""How a tree's choices are scored; the sampler takes the greatest score among those still open.

A policy is asked in two steps: ``prepare(tree)`` once a trial, ``judge.score(...)`` once a decision. Two policies:

``UCT``           the formula of Auto-KD (ICCV 2023): Q(n, a) + c P(n, a) sqrt(ln N(n) / N(n, a)), where Q is the
                  mean reward below the choice and P comes from all-moves-as-first statistics.
``ModelPolicy``   the same formula, where Q is drawn from the posterior of a value model that shares what was
                  learned between branches (Bayesian UCT; compare Tesauro et al., UAI 2010).

Both add ``bias`` h / (1 + n) where something is thought of an option before any trial: see ``fading``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtri

from .history import Normalisation, rewards
from .tree import Move, Record, Tree
from .value_model import ValueModel, Walk

BIAS = 0.25
"""Of the prior, in deviations of all rewards: it decides the first trials, and a handful of trials overrule it."""
NUMBER_DRAW = 0.5
"""Scale of the posterior draw by which a number is chosen; no visits are counted there."""


class Judge(Protocol):
    """Scores choices and numbers for one trial that is being asked; the greater the better."""

    def score(self, walk: Walk, moves: Sequence[Move], rng: np.random.Generator) -> np.ndarray:
        """One score for each of ``moves``, all the choices of one decision after ``walk``, (num_choices,)."""
        ...

    def score_numbers(self, walk: Walk, name: str, units_K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One score for each candidate of the numeric parameter ``name``, (K,)."""
        ...


Prior = Mapping[str, float]
"""Option -> what is thought of it before any trial, in arbitrary units about 0; 0 where nothing is."""


class Policy(Protocol):
    def prepare(self, tree: Tree, prior: Prior) -> Judge: ...


@dataclass(frozen=True)
class UCT:
    """Upper confidence bounds whose exploration is weighted by all-moves-as-first statistics.

    P(n, a): softmax over the choices, times their number, of the mean reward of the option anywhere in the tree;
    so the presets that are tried first set it, and it is 1 before any trial. It is not the ``Prior`` that ``prepare``
    is given, which is added as a progressive bias. ``prior_visits`` imaginary visits of that mean stand for a choice
    that was not tried yet (first play) and fade as real ones come. A running trial is a visit where
    visits are counted, and no reward where rewards are averaged (Liu et al., ICLR 2020, WU-UCT, eq. 4).
    """

    exploration: float = 0.6
    normalisation: Normalisation = "rank"
    prior_visits: float = 0.5
    temperature: float = 1.0
    bias: float = BIAS

    def prepare(self, tree: Tree, prior: Prior) -> UCTJudge:
        return UCTJudge(self, tree, prior)


class UCTJudge:
    def __init__(self, settings: UCT, tree: Tree, prior: Prior) -> None:
        self.settings = settings
        self.tree = tree
        self.prior = prior
        given = rewards([tree.records[number] for number in tree.numbers], settings.normalisation)
        self.reward_by_number = np.zeros(max(tree.numbers, default=-1) + 1)
        self.reward_by_number[tree.numbers] = given
        self.mean = float(given.mean()) if len(given) else 0.5

    def score(self, walk: Walk, moves: Sequence[Move], rng: np.random.Generator) -> np.ndarray:
        settings, count = self.settings, len(moves)
        node = self.tree.descend(walk[0])
        elsewhere = np.array([self._option_mean(move.option) for move in moves])
        weights = np.exp((elsewhere - elsewhere.max()) / settings.temperature)
        prior = count * weights / weights.sum()
        visits, told, totals = visits_of(self.tree, walk[0], moves), np.zeros(count), np.zeros(count)
        for i, move in enumerate(moves):
            child = None if node is None else node.child(move)
            if child is not None:
                told[i], totals[i] = len(child.visits), self.reward_by_number[child.visits].sum()
        value = (totals + settings.prior_visits * elsewhere) / (told + settings.prior_visits)
        bonus = settings.exploration * prior * np.sqrt(np.log(1 + visits.sum()) / (visits + settings.prior_visits))
        return value + bonus + settings.bias * fading(self.prior, self.tree, moves) + 1e-9 * rng.random(count)

    def score_numbers(self, walk: Walk, name: str, units_K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.random(len(units_K))

    def _option_mean(self, option: str, pseudo_count: float = 3.0) -> float:
        takers = self.tree.takers.get(option, [])
        total = float(self.reward_by_number[takers].sum())
        return (total + pseudo_count * self.mean) / (len(takers) + pseudo_count)


@dataclass(frozen=True)
class ModelPolicy:
    """Upper confidence bounds over a value model: Q(n, a) + c sqrt(ln N(n) / N(n, a)).

    Q is the posterior mean, in deviations of all rewards, plus ``draw`` times one draw of the posterior's deviation
    (1: Thompson sampling, 0: greedy); c is ``exploration``, and ``prior_visits`` are added to N(n, a). The visits
    make sure that the choices high in the tree are all tried; below a node that was never met all of them are
    equal, and the model alone decides. A running trial counts as a visit (compare Liu et al., ICLR 2020, WU-UCT),
    and stands in the model as one that will turn out as expected: it moves no choice's value, but what it will
    tell need not be asked again. The model sees at most ``max_records`` finished trials: the best quarter of that
    number and the latest.
    """

    exploration: float = 0.45
    draw: float = 0.25
    prior_visits: float = 0.5
    normalisation: Normalisation = "rank"
    max_records: int = 160
    bias: float = BIAS

    def prepare(self, tree: Tree, prior: Prior) -> ModelJudge:
        return ModelJudge(self, tree, prior)


class ModelJudge:
    def __init__(self, settings: ModelPolicy, tree: Tree, prior: Prior) -> None:
        self.settings = settings
        self.tree = tree
        self.prior = prior
        records = [tree.records[number] for number in tree.numbers]
        targets = _targets(records, settings.normalisation)
        records, targets = _window(records, targets, settings.max_records)
        running = tree.running[-settings.max_records :]
        self.model: ValueModel | None = None
        if records or running:
            self.model = ValueModel(_walks(records), targets, pending=_walks(running))

    def score(self, walk: Walk, moves: Sequence[Move], rng: np.random.Generator) -> np.ndarray:
        above, numbers = walk
        drawn = self._draw([((*above, move), numbers) for move in moves], self.settings.draw, rng)
        visits = visits_of(self.tree, above, moves)
        bonus = np.sqrt(np.log1p(visits.sum()) / (visits + self.settings.prior_visits))
        return drawn + self.settings.exploration * bonus + self.settings.bias * fading(self.prior, self.tree, moves)

    def score_numbers(self, walk: Walk, name: str, units_K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        moves, numbers = walk
        walks = [(moves, (*numbers, (name, float(unit)))) for unit in units_K]
        return self._draw(walks, NUMBER_DRAW, rng)

    def _draw(self, walks: Sequence[Walk], scale: float, rng: np.random.Generator) -> np.ndarray:
        """Posterior mean plus ``scale`` times a joint draw of the deviations, (K,)."""
        if self.model is None:
            return rng.random(len(walks))
        mean_K, covariance_KK = self.model.posterior(walks)
        covariance_KK[np.diag_indices_from(covariance_KK)] += 1e-6
        return mean_K + scale * (np.linalg.cholesky(covariance_KK) @ rng.standard_normal(len(walks)))


def fading(prior: Prior, tree: Tree, moves: Sequence[Move]) -> np.ndarray:
    """h / (1 + n) of each of ``moves``: the prior, which fades as the option is taken anywhere in the tree, by
    finished and running trials (progressive bias: Chaslot et al., New Math. Nat. Comput. 4, 2008)."""
    if not prior:
        return np.zeros(len(moves))
    known = np.array([prior.get(move.option, 0.0) for move in moves])
    running = Counter(move.option for record in tree.running for move in record.moves)
    taken = np.array([len(tree.takers.get(move.option, ())) + running[move.option] for move in moves])
    return known / (1 + taken)


def visits_of(tree: Tree, above: tuple[Move, ...], moves: Sequence[Move]) -> np.ndarray:
    """N(n, a): finished and running trials through each of ``moves``, (num_choices,)."""
    node = tree.descend(above)
    children = [None if node is None else node.child(move) for move in moves]
    return np.array([0.0 if child is None else len(child.visits) + child.num_running for child in children])


def _walks(records: Sequence[Record]) -> list[Walk]:
    return [(record.moves, record.numbers) for record in records]


def _targets(records: Sequence[Record], normalisation: Normalisation) -> np.ndarray:
    """Rewards as the model wants them: mean 0, deviation 1; ranks become normal scores."""
    given = rewards(records, normalisation)
    if not len(given):
        return given
    if normalisation == "rank":
        given = ndtri(given)
    spread = float(given.std())
    return (given - given.mean()) / spread if spread > 1e-12 else np.zeros(len(given))


def _window(records: list[Record], targets: np.ndarray, size: int) -> tuple[list[Record], np.ndarray]:
    if len(records) <= size:
        return records, targets
    latest = set(range(len(records) - (size - size // 4), len(records)))
    best = [i for i in np.argsort(-targets, kind="stable").tolist() if i not in latest]
    kept = sorted(latest | set(best[: size // 4]))
    return [records[i] for i in kept], targets[kept]
