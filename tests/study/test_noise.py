"""Noise of rewards and their shrinkage, against computations on other routes and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from autokd.study.noise import Noise, expected_rewards, residual_noise

REWARDS = {
    "a": {0: 3.1, 1: 2.2, 2: 2.9},
    "b": {0: 2.9, 1: 1.5, 2: 1.4},
    "c": {0: 2.8, 1: 1.1},
}
TRIALS = {"a": 3.1, "b": 2.9, "c": 2.8, "d": 1.0, "e": -0.4, "f": 0.7}


def as_nested(rewards: np.ndarray) -> dict[str, dict[int, float]]:
    return {str(i): {s: float(v) for s, v in enumerate(row)} for i, row in enumerate(rewards)}


def test_noise_of_a_full_table_is_the_residual_mean_square_of_a_two_way_layout():
    rewards_DS = np.random.default_rng(0).normal(size=(4, 3)) + np.arange(3)
    table_DS = np.vstack([rewards_DS, np.zeros(3)])  # "none"
    centered_DS = table_DS - table_DS.mean(0) - table_DS.mean(1, keepdims=True) + table_DS.mean()
    found = residual_noise(as_nested(rewards_DS))
    assert found.freedom == 4 * 2
    assert found.variance == pytest.approx(np.sum(centered_DS**2) / 8)


def test_noise_of_a_table_with_gaps_is_what_filling_them_in_leaves():
    """Yates' way: a cell that is absent takes the value that the others predict, until nothing changes."""
    table_DS = np.array([[3.1, 2.2, 2.9], [2.9, 1.5, 1.4], [2.8, 1.1, 0.0], [0.0, 0.0, 0.0]])
    for _ in range(500):
        fitted_DS = table_DS.mean(0) + table_DS.mean(1, keepdims=True) - table_DS.mean()
        table_DS[2, 2] = fitted_DS[2, 2]
    found = residual_noise(REWARDS)
    assert found.freedom == 5  # 11 cells less 4 rows and 3 columns, one constant shared
    assert found.variance == pytest.approx(np.sum((table_DS - fitted_DS) ** 2) / 5)


def test_seeds_that_are_good_to_all_are_no_noise():
    rewards_DS = np.array([[3.0], [2.0]]) + np.zeros(3)
    shifted = {d: {s: r + 10 * s for s, r in rewards.items()} for d, rewards in as_nested(rewards_DS).items()}
    assert residual_noise(as_nested(rewards_DS)).variance == pytest.approx(0, abs=1e-20)
    # Against "none" a shift that spares it is: the pair of rows differs by it.
    assert residual_noise(shifted).variance > 1


def test_one_seed_tells_nothing_of_noise():
    assert residual_noise({"a": {0: 1.0}, "b": {0: 2.0}}) == Noise(0.0, 0)
    assert expected_rewards(TRIALS, {"a": {0: 3.1}}, Noise(0.0, 0), 0) is None


def test_with_one_seed_the_expectation_is_james_and_steins():
    values = np.array(list(TRIALS.values()))
    sigma2 = 0.5
    factor = 1 - sigma2 / values.var(ddof=1)
    found = expected_rewards(TRIALS, {"a": {0: 3.1}, "c": {0: 2.8}}, Noise(sigma2, 9), 0)
    assert found.prior_mean == pytest.approx(values.mean())
    assert found.between**2 == pytest.approx(values.var(ddof=1) - sigma2)
    assert found.expected["a"].mean == pytest.approx(values.mean() + factor * (3.1 - values.mean()))
    assert found.expected["c"].mean == pytest.approx(values.mean() + factor * (2.8 - values.mean()))


def test_expectations_solve_hendersons_mixed_model_equations():
    """The same posterior as a penalized regression on (mu, distillers, each seed's "none"), without any V."""
    sigma2, names, seeds = 0.3, list(TRIALS), [0, 1, 2]
    tau2 = np.var(list(TRIALS.values()), ddof=1) - sigma2
    rows = [(d, 0, r) for d, r in TRIALS.items()] + [(d, s, r) for d, by in REWARDS.items() for s, r in by.items() if s]
    design = np.zeros((len(rows), 1 + len(names) + len(seeds)))
    for i, (d, s, _) in enumerate(rows):
        design[i, [0, 1 + names.index(d), 1 + len(names) + s]] = 1
    penalty = np.diag([0.0] + [sigma2 / tau2] * len(names) + [1.0] * len(seeds))
    left = design.T @ design + penalty
    solution = np.linalg.solve(left, design.T @ [r for _, _, r in rows])
    covariance = sigma2 * np.linalg.inv(left)
    found = expected_rewards(TRIALS, REWARDS, Noise(sigma2, 5), 0)
    assert found.prior_mean == pytest.approx(solution[0])
    for d in REWARDS:
        theta = np.zeros(len(solution))
        theta[[0, 1 + names.index(d)]] = 1
        assert found.expected[d].mean == pytest.approx(theta @ solution)
        assert found.expected[d].deviation == pytest.approx(np.sqrt(theta @ covariance @ theta))


def test_without_noise_nothing_is_shrunken_and_with_nothing_else_all_is():
    rewards = {d: {0: TRIALS[d], 1: TRIALS[d]} for d in ("a", "b")}
    exact = expected_rewards(TRIALS, rewards, Noise(0.0, 4), 0)
    assert exact.expected["a"].mean == pytest.approx(3.1)
    assert exact.expected["a"].deviation == pytest.approx(0, abs=1e-6)
    noisy = expected_rewards(TRIALS, rewards, Noise(99.0, 4), 0)
    assert noisy.between == 0
    assert {each.mean for each in noisy.expected.values()} == {noisy.prior_mean}
    level = expected_rewards(dict.fromkeys("ab", 1.0), {"a": {0: 1.0, 1: 1.0}}, Noise(0.0, 1), 0)
    assert level.expected["a"].mean == 1.0


def search_once(rng: np.random.Generator, tau: float, sigma: float) -> tuple[float, ...]:
    """Errors about the winner of 30 trials and three finalists: its first reward, its mean, its expectation."""
    theta_N = rng.normal(0, tau, 30)
    none_S = rng.normal(0, sigma, 3)
    first_N = theta_N + rng.normal(0, sigma, 30) - none_S[0]
    finalists = np.argsort(-first_N)[:3]
    rewards = {
        str(i): {0: float(first_N[i])} | {s: float(theta_N[i] + rng.normal(0, sigma) - none_S[s]) for s in (1, 2)}
        for i in finalists
    }
    trials = {str(i): float(value) for i, value in enumerate(first_N)}
    found = expected_rewards(trials, rewards, residual_noise(rewards), 0)
    winner = max(rewards, key=lambda d: (found.expected[d].mean, np.mean(list(rewards[d].values()))))
    truth = theta_N[int(winner)]
    expected = found.expected[winner]
    mean = np.mean(list(rewards[winner].values()))
    return rewards[winner][0] - truth, mean - truth, expected.mean - truth, expected.deviation


@pytest.mark.parametrize(("tau", "sigma"), [(1.0, 0.7), (0.5, 1.0)])
def test_the_expectation_of_a_winner_errs_less_than_its_first_reward(tau, sigma):
    """Lower by more than three standard errors of the difference over 400 searches: chance gives that in one of 700."""
    rng = np.random.default_rng(1)
    first, mean, expected, deviation = np.array([search_once(rng, tau, sigma) for _ in range(400)]).T
    saved = first**2 - expected**2
    assert saved.mean() > 3 * saved.std(ddof=1) / 20
    assert np.mean(first) > 0.5 * sigma, "choosing the best of thirty flatters it"
    assert abs(np.mean(expected)) < 0.5 * np.mean(first)
    if sigma > tau:  # where there is more noise than difference, it beats the mean over seeds as well
        saved = mean**2 - expected**2
        assert saved.mean() > 3 * saved.std(ddof=1) / 20
    # Sigma and tau are estimates, so that the stated deviation is a little short: 95% become 86 to 89, give or take 2.
    assert np.mean(np.abs(expected) < 1.96 * deviation) > 0.8
