"""The value model against a plain computation of its formulas, loop by loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autokd.search.mcts.history import compute_rewards
from autokd.search.mcts.tree import Action, Rollout, Trajectory
from autokd.search.mcts.value_model import KERNELS, Kernel, ValueModel

RNG = np.random.default_rng(0)


def random_trajectory() -> Trajectory:
    actions = []
    for depth in range(int(RNG.integers(1, 5))):
        name = f"d{depth}" if RNG.random() < 0.8 else f"e{depth}"
        choice = int(RNG.integers(3))
        actions.append(Action(name, choice, 3, f"{name[0]}={choice}" if depth > 2 else f"{name}={choice}"))
    numbers = tuple((name, float(RNG.random())) for name in ("u", "v") if RNG.random() < 0.6)
    return Trajectory(tuple(actions), numbers)


def plain_kernel(k: Kernel, a: Trajectory, b: Trajectory, mean_depth: float) -> float:
    total = sum(k.decay**depth for depth in range(round(mean_depth)))
    alike = sum(
        k.decay ** ((i + j) / 2) for i, x in enumerate(a[0]) for j, y in enumerate(b[0]) if x.option == y.option
    )
    prefix = 0.0
    for depth, (x, y) in enumerate(zip(a[0], b[0])):
        if (x.name, x.choice) != (y.name, y.choice):
            break
        prefix += k.decay**depth
    near = [math.exp(-((u - v) ** 2) / (2 * k.length**2)) for n, u in a[1] for other, v in b[1] if n == other]
    m, p = alike / total, prefix / total
    return k.option * m + k.pair * m**2 + k.prefix * p + k.number * sum(near) / 2


@pytest.mark.parametrize("kernel", KERNELS[:5])
def test_posterior_equals_the_textbook_formula(kernel: Kernel) -> None:
    seen, asked = [random_trajectory() for _ in range(15)], [random_trajectory() for _ in range(4)]
    seen[0] = Trajectory(seen[0].actions, (("u", 0.1), ("v", 0.9)))
    targets = RNG.normal(size=15)
    mean_depth = max(2.0, float(np.mean([len(actions) for actions, _ in seen])))
    gram = np.array([[plain_kernel(kernel, a, b, mean_depth) for b in seen] for a in seen])
    cross = np.array([[plain_kernel(kernel, a, b, mean_depth) for b in seen] for a in asked])
    own = np.array([[plain_kernel(kernel, a, b, mean_depth) for b in asked] for a in asked])
    inverse = np.linalg.inv(gram + kernel.noise * np.eye(15))

    mean, covariance = ValueModel(seen, targets, kernel).posterior(asked)
    np.testing.assert_allclose(mean, cross @ inverse @ targets, atol=1e-9)
    np.testing.assert_allclose(covariance, own - cross @ inverse @ cross.T, atol=1e-9)


@pytest.mark.parametrize("num_finished", [0, 1, 9])
def test_pending_trajectories_remove_deviation_and_leave_the_mean_alone(num_finished: int) -> None:
    """The mean depends on the finished trajectories alone, the covariance on all of them and on no value."""
    kernel = KERNELS[3]
    finished, pending = [random_trajectory() for _ in range(num_finished)], [random_trajectory() for _ in range(6)]
    asked = [random_trajectory() for _ in range(4)]
    every = [*finished, *pending]
    every[0] = Trajectory(every[0].actions, (("u", 0.1), ("v", 0.9)))
    finished, pending = every[:num_finished], every[num_finished:]
    targets = RNG.normal(size=num_finished)
    depth = max(2.0, float(np.mean([len(actions) for actions, _ in every])))

    def between(a: list[Trajectory], b: list[Trajectory]) -> np.ndarray:
        return np.array([plain_kernel(kernel, x, y, depth) for x in a for y in b]).reshape(len(a), len(b))

    of_finished = np.linalg.inv(between(finished, finished) + kernel.noise * np.eye(num_finished))
    of_every = np.linalg.inv(between(every, every) + kernel.noise * np.eye(len(every)))
    cross = between(asked, every)

    mean, covariance = ValueModel(finished, targets, kernel, pending=pending).posterior(asked)
    np.testing.assert_allclose(mean, between(asked, finished) @ of_finished @ targets, atol=1e-9)
    np.testing.assert_allclose(covariance, between(asked, asked) - cross @ of_every @ cross.T, atol=1e-9)


def test_pending_trajectories_do_not_change_the_choice_of_the_kernel() -> None:
    """Pending trajectories as long as the finished ones on average, since the mean depth scales all agreement."""
    chosen = set()
    for _ in range(8):
        seen, targets = [random_trajectory() for _ in range(20)], RNG.normal(size=20)
        alone = ValueModel(seen, targets).kernel
        assert ValueModel(seen, targets, pending=seen[::-1]).kernel == alone
        chosen.add(alone)
    assert len(chosen) > 1


def test_the_chosen_kernel_has_the_greatest_marginal_likelihood() -> None:
    seen = [random_trajectory() for _ in range(20)]
    targets = RNG.normal(size=20)
    mean_depth = max(2.0, float(np.mean([len(actions) for actions, _ in seen])))
    likelihoods = []
    for kernel in KERNELS:
        gram = np.array([[plain_kernel(kernel, a, b, mean_depth) for b in seen] for a in seen])
        gram += kernel.noise * np.eye(20)
        fit = targets @ np.linalg.solve(gram, targets)
        likelihoods.append(-10 * math.log(fit) - 0.5 * np.linalg.slogdet(gram)[1])
    assert ValueModel(seen, targets).kernel == KERNELS[int(np.argmax(likelihoods))]


def rollout(number: int, value: float | None) -> Rollout:
    return Rollout(number, (), (), value, "failed" if value is None else "finished")


def test_rewards_by_rank_share_ties_and_put_failures_with_the_worst() -> None:
    found = compute_rewards([rollout(0, 1.0), rollout(1, 5.0), rollout(2, 5.0), rollout(3, None)], "rank")
    np.testing.assert_allclose(found, np.array([1.0, 3.0, 3.0, 1.0]) / 4)


def test_rewards_do_not_break_on_infinite_or_missing_values() -> None:
    rollouts = [rollout(0, 1.0), rollout(1, math.inf), rollout(2, -math.inf), rollout(3, 3.0)]
    np.testing.assert_allclose(compute_rewards(rollouts, "min_max"), [0.0, 1.0, 0.0, 1.0])
    assert np.isfinite(compute_rewards(rollouts, "standardize")).all()
    assert np.isfinite(compute_rewards([rollout(0, None), rollout(1, None)], "rank")).all()
    assert compute_rewards([], "rank").shape == (0,)


def test_standardized_rewards_are_those_of_numpy() -> None:
    values = np.array([1.0, 4.0, 2.0, 8.0])
    found = compute_rewards([rollout(i, float(v)) for i, v in enumerate(values)], "standardize")
    np.testing.assert_allclose(found, (values - values.mean()) / values.std())
