"""Noise of a proxy reward, and the reward that a distiller is therefore expected to have.

The model. With the metrics of one training weighted and added as the reward does, distiller d and seed s give

    m(d, s) = quality(d) + seed(s) + residual(d, s),     residuals independent with standard deviation sigma,

where "none" is one of the d. A reward is the difference to "none" of the same seed, so the seed's own effect cancels
and the residual of "none" comes in: r(d, s) = theta(d) + residual(d, s) - residual(none, s), theta(d) = quality(d) -
quality(none). Rewards of one seed share the last part: comparing two distillers takes equal seeds (it cancels again),
and no number of distillers averages it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NONE_ROW = ""
"""Digest of "none" in the table of rewards: its reward is 0 with every seed."""

Rewards = Mapping[str, Mapping[int, float]]
"""Digest -> seed -> reward."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Estimate of the residual's variance.

    Args:
        variance: variance of a residual, in squared units of the reward.
        freedom: degrees of freedom of the estimate; 0: nothing is known.
    """

    variance: float
    freedom: int

    @property
    def deviation(self) -> float:
        """Standard deviation of a residual, in units of the reward."""
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Expectation:
    """Posterior mean and standard deviation of one distiller's theta, in units of the reward."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """Expectations by digest, the mean to which they are shrunk, and the standard deviation between distillers."""

    expected: Mapping[str, Expectation]
    prior_mean: float
    between: float


def residual_noise(finalists: Rewards) -> Noise:
    """Pool the variance of residuals over the finalists and "none".

    The residual mean square of the additive two-way layout distiller x seed (randomized blocks; Fisher, The Design of
    Experiments, 1935), by least squares, since finalists that were eliminated lack the later seeds. "none" is a row of
    zeros: a shift of a column changes no residual, so that this is the layout of the m(d, s) themselves.

    The finalists were chosen by the first column, which is biased upwards for them and not for "none": the estimate is
    too large rather than too small.

    Args:
        finalists: digest -> seed -> reward.
    """
    seeds = sorted({seed for rewards in finalists.values() for seed in rewards})
    table = {**finalists, NONE_ROW: dict.fromkeys(seeds, 0.0)}
    cells = [(i, seeds.index(s), r) for i, rewards in enumerate(table.values()) for s, r in rewards.items()]
    # Indicators of row and column. Both kinds sum to 1, so the rank is below their number; lstsq allows for that.
    design = np.zeros((len(cells), len(table) + len(seeds)))
    for n, (row, column, _) in enumerate(cells):
        design[n, [row, len(table) + column]] = 1.0
    values = np.array([reward for _, _, reward in cells])
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(cells) - int(rank)
    if freedom <= 0:
        return Noise(0.0, 0)
    return Noise(float(np.sum((values - design @ solution) ** 2)) / freedom, freedom)


def expected_rewards(trials: Mapping[str, float], finalists: Rewards, noise: Noise, own_seed: int) -> Shrinkage | None:
    """Shrink the finalists' rewards towards the mean of all trials.

    Normal-normal empirical Bayes (Efron and Morris, JASA 70, 1975; with unequal, correlated noise it is the best
    linear unbiased prediction of Henderson, Biometrics 31, 1975): theta(d) ~ N(mu, tau^2). tau^2 is the variance of
    all trials less sigma^2 (they share a seed, hence its "none"), at least 0. Over all rewards y, those of trials and
    the finalists' further ones,

        V = tau^2 [same distiller] + sigma^2 [same reward] + sigma^2 [same seed],      mu = 1'V^-1 y / 1'V^-1 1,
        E theta(d) = mu + tau^2 z_d'V^-1 (y - mu),     z_d: 1 at the rewards of d,
        Var theta(d) = tau^2 - tau^4 z_d'V^-1 z_d + (1 - tau^2 1'V^-1 z_d)^2 / 1'V^-1 1.

    With one seed it is the estimator of James and Stein in its plain form, mean + tau^2 / (tau^2 + sigma^2) (y -
    mean). Choosing the best of many trials biases their rewards upwards, not these: the choice rests on y alone, and
    all of y is in the condition (Dawid, Selection paradoxes of Bayesian inference, 1994). What is not counted is that
    sigma and tau are estimates, and that distillers need not be normal.

    Args:
        trials: rewards of all trials of the search by digest, the finalists' too.
        finalists: digest -> seed -> reward, the trials' own seed included.
        noise: estimate of sigma^2.
        own_seed: seed of the trials.

    Returns:
        The expectations; None if the noise is not known, or there are fewer than two trials.
    """
    if noise.freedom == 0 or len(trials) < 2:
        return None
    further = [(d, s, r) for d, rewards in finalists.items() for s, r in rewards.items() if s != own_seed]
    seen = [(digest, own_seed, reward) for digest, reward in trials.items()] + further
    digests = np.array([digest for digest, _, _ in seen])
    seeds = np.array([seed for _, seed, _ in seen])
    rewards = np.array([reward for _, _, reward in seen])
    sigma2 = noise.variance
    tau2 = max(0.0, float(np.var(list(trials.values()), ddof=1)) - sigma2)
    if tau2 + sigma2 == 0:
        return Shrinkage({digest: Expectation(float(rewards[0]), 0.0) for digest in finalists}, float(rewards[0]), 0.0)
    candidates_NF = np.stack([digests == digest for digest in finalists], axis=1).astype(float)
    covariance_NN = tau2 * (digests[:, None] == digests) + sigma2 * (seeds[:, None] == seeds)
    covariance_NN[np.diag_indices(len(seen))] += sigma2
    right = np.column_stack([np.ones(len(seen)), rewards, candidates_NF])
    # Without noise, repeated rewards are one observation and V is singular: the pseudo-inverse drops the repetitions.
    is_regular = sigma2 > 1e-12 * (tau2 + sigma2)
    solved = np.linalg.solve(covariance_NN, right) if is_regular else np.linalg.pinv(covariance_NN) @ right
    ones_V_ones = float(solved[:, 0].sum())
    mu = float(solved[:, 1].sum()) / ones_V_ones
    means = mu + tau2 * candidates_NF.T @ (solved[:, 1] - mu * solved[:, 0])
    explained = tau2**2 * np.sum(candidates_NF * solved[:, 2:], axis=0)
    of_mu = (1 - tau2 * solved[:, 2:].sum(axis=0)) ** 2 / ones_V_ones
    # Rounding may leave a variance a little below 0.
    deviations = np.sqrt(np.maximum(0.0, tau2 - explained + of_mu))
    expected = {
        digest: Expectation(float(mean), float(deviation))
        for digest, mean, deviation in zip(finalists, means, deviations, strict=True)
    }
    return Shrinkage(expected, mu, math.sqrt(tau2))


def mean_over(rewards: Mapping[int, float], seeds: Sequence[int]) -> float:
    """Return the mean reward over some seeds.

    Args:
        rewards: seed -> reward.
        seeds: seeds to average over, all of them in ``rewards``.
    """
    return math.fsum(rewards[seed] for seed in seeds) / len(seeds)


__all__ = [
    "NONE_ROW",
    "Expectation",
    "Noise",
    "Rewards",
    "Shrinkage",
    "expected_rewards",
    "mean_over",
    "residual_noise",
]
