"""A value model of trajectories: the value of an action in the context of the actions above it.

A Gaussian process over trajectories (complete or not), conditioned on all rollouts, plays the part of AlphaZero's value
network. With few trials and many leaves a node's own visits say little; the model lets a node learn from every trial
that shares some of its actions. Its kernel between two trajectories a, b is

    k(a, b) = w_option m + w_pair m^2 + w_prefix p + w_number * mean over numbers of exp(-(u_a - u_b)^2 / 2 l^2)

    m = sum over options that a and b both take, anywhere (all moves as first), of decay^depth, / total
    p = sum over the actions down to the first that differs (the tree's own view) of decay^depth, / total

The weights, the decay and the noise are those of a short list (``KERNELS``) with the greatest marginal likelihood. A
trajectory that is not complete has no part in the decisions still to come: its value is that of an average completion.

A pending trajectory has the value that the model expects of it: it leaves every mean alone and removes the deviation
that its reward will remove (hallucinated observations: Desautels, Krause, Burdick, JMLR 15, 2014, section 3).

Legend: N trajectories with a value (in shapes of what the model has seen: and pending ones), K candidates, M actions in
all of them, F known options, D depth, U numeric parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .linear_algebra import cholesky, product, solve_lower
from .tree import Trajectory


@dataclass(frozen=True, slots=True)
class Kernel:
    """Parameters of the kernel in the module's formula.

    Attributes:
        option, pair, prefix, number: weights of its parts; the first three sum to 1, so that the prior variance of a
            trajectory of average depth is about that of the targets.
        decay: weight of an action relative to the one above it.
        noise: variance of a reward about its trajectory's value.
        length: length scale l of numbers, whose range is 1.
    """

    option: float
    pair: float
    prefix: float
    decay: float
    noise: float
    number: float = 0.3
    length: float = 0.25


KERNELS = tuple(
    Kernel(option, pair, prefix, decay, noise)
    for (option, pair, prefix), decay, noise in itertools.product(
        ((0.8, 0.1, 0.1), (0.4, 0.5, 0.1), (0.3, 0.2, 0.5)), (1.0, 0.75), (0.1, 0.4)
    )
)
DEFAULT_KERNEL = Kernel(0.5, 0.3, 0.2, 0.85, 0.3)
MIN_TO_CHOOSE = 8
"""Finished trials below which ``DEFAULT_KERNEL`` is taken: a likelihood of fewer chooses by chance."""
MAX_TO_CHOOSE = 48
"""Latest trials in the likelihood, so that the factorization of all kernels stays cheap."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Trajectories as arrays.

    Attributes:
        taken_M3: (trajectory, option, depth) of each action.
        nodes_ND: a number for each prefix, -1 below a trajectory's end.
        numbers_NU: numeric parameters in [0, 1], NaN if absent.
    """

    taken_M3: np.ndarray
    nodes_ND: np.ndarray
    numbers_NU: np.ndarray


class ValueModel:
    """A Gaussian process fitted to trajectories.

    Args:
        trajectories: N finished trajectories.
        targets_N: their values, mean 0 and standard deviation about 1.
        kernel: the kernel; None: that of ``KERNELS`` with the greatest marginal likelihood.
        pending: trajectories whose values are still to come. There must be one trajectory at least, finished or
            pending.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        targets_N: np.ndarray,
        kernel: Kernel | None = None,
        *,
        pending: Sequence[Trajectory] = (),
    ) -> None:
        self._options: dict[str, int] = {}
        self._nodes: dict[tuple[int, str, int], int] = {}
        self._names: dict[str, int] = {}
        every = [*trajectories, *pending]
        for _, numbers in every:
            for name, _ in numbers:
                self._names.setdefault(name, len(self._names))
        self._depth = max(2.0, float(np.mean([len(actions) for actions, _ in every])))
        self._seen = self._encode(every)
        self.kernel = kernel or self._select_kernel(targets_N)
        covariance = self._covariance(self.kernel, self._seen, self._seen)
        covariance[np.diag_indices_from(covariance)] += self.kernel.noise
        self._lower = cholesky(covariance)
        # The whitened target of a pending trajectory is its surprise: 0 for one that turns out as expected. Finished
        # ones come first, so their block of the factor is the factor of their own covariance.
        self._whitened = np.zeros(len(every))
        num_finished = len(trajectories)
        whitened = solve_lower(self._lower[:num_finished, :num_finished], targets_N[:, None])[:, 0]
        self._whitened[:num_finished] = whitened

    def posterior(self, trajectories: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior of K trajectories' values.

        Args:
            trajectories: complete or not. Options and numbers that the model has not seen correlate with nothing.

        Returns:
            Mean of shape (K,) and covariance of shape (K, K), without the noise of rewards.
        """
        asked = self._encode(trajectories)
        explained = solve_lower(self._lower, self._covariance(self.kernel, self._seen, asked))
        own_KK = self._covariance(self.kernel, asked, asked)
        return explained.T @ self._whitened, own_KK - explained.T @ explained

    def _encode(self, trajectories: Sequence[Trajectory]) -> Encoded:
        taken: list[tuple[int, int, int]] = []
        nodes_ND = np.full((len(trajectories), max((len(actions) for actions, _ in trajectories), default=0)), -1)
        numbers_NU = np.full((len(trajectories), len(self._names)), np.nan)
        for i, (actions, _) in enumerate(trajectories):
            node = -1
            for depth, action in enumerate(actions):
                taken.append((i, self._options.setdefault(action.option, len(self._options)), depth))
                node = self._nodes.setdefault((node, action.name, action.choice), len(self._nodes))
                nodes_ND[i, depth] = node
        # ``_names`` is fixed by what the model was fitted to: a candidate's unknown number has no column to compare.
        for i, (_, numbers) in enumerate(trajectories):
            for name, unit in numbers:
                if name in self._names:
                    numbers_NU[i, self._names[name]] = unit
        return Encoded(np.array(taken, dtype=int).reshape(-1, 3), nodes_ND, numbers_NU)

    def _covariance(self, kernel: Kernel, a: Encoded, b: Encoded) -> np.ndarray:
        alike, prefix = self._agreement(kernel.decay, a, b)
        return kernel.option * alike + kernel.pair * alike**2 + kernel.prefix * prefix + self._numeric(kernel, a, b)

    def _agreement(self, decay: float, a: Encoded, b: Encoded) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrices m and p of the module's formula, each (N, K)."""
        total = sum(decay**depth for depth in range(round(self._depth)))
        alike = product(self._discounted(a, decay), self._discounted(b, decay))
        prefix = np.zeros_like(alike)
        # A prefix has a number of its own, so equal numbers at a depth mean equal actions at all depths above.
        for depth in range(min(a.nodes_ND.shape[1], b.nodes_ND.shape[1])):
            column_a, column_b = a.nodes_ND[:, depth, None], b.nodes_ND[None, :, depth]
            prefix += decay**depth * ((column_a == column_b) & (column_a >= 0))
        return alike / total, prefix / total

    def _discounted(self, trajectories: Encoded, decay: float) -> np.ndarray:
        """Return (N, F): decay^(depth / 2) for each option taken; the product of two rows then has decay^depth."""
        rows, columns, depths = trajectories.taken_M3.T
        discounted_NF = np.zeros((len(trajectories.nodes_ND), len(self._options)))
        np.add.at(discounted_NF, (rows, columns), decay ** (depths / 2))
        return discounted_NF

    def _numeric(self, kernel: Kernel, a: Encoded, b: Encoded) -> np.ndarray:
        covariance = np.zeros((len(a.numbers_NU), len(b.numbers_NU)))
        for column in range(len(self._names)):
            gap = a.numbers_NU[:, column, None] - b.numbers_NU[None, :, column]
            # NaN where either lacks the number: no similarity, instead of one to a value that it does not have.
            covariance += np.nan_to_num(np.exp(-(gap**2) / (2 * kernel.length**2)))
        return kernel.number * covariance / max(1, len(self._names))

    def _select_kernel(self, targets_N: np.ndarray) -> Kernel:
        """Return the kernel of ``KERNELS`` with the greatest marginal likelihood.

        The scale of the targets is profiled out: its best value for each kernel has a closed form, which leaves
        -N/2 log(y' K^-1 y) - 1/2 log det K. So only the ratios of the weights are compared.
        """
        if len(targets_N) < MIN_TO_CHOOSE:
            return DEFAULT_KERNEL
        first, targets = max(0, len(targets_N) - MAX_TO_CHOOSE), targets_N[-MAX_TO_CHOOSE:]
        seen = _part(self._seen, first, len(targets_N))
        numeric = self._numeric(DEFAULT_KERNEL, seen, seen)
        # Agreement depends on the decay alone: two computations serve all kernels.
        agreements = {decay: self._agreement(decay, seen, seen) for decay in sorted({k.decay for k in KERNELS})}
        scores = []
        for kernel in KERNELS:
            alike, prefix = agreements[kernel.decay]
            covariance = kernel.option * alike + kernel.pair * alike**2 + kernel.prefix * prefix + numeric
            covariance[np.diag_indices_from(covariance)] += kernel.noise
            lower = cholesky(covariance)
            whitened = solve_lower(lower, targets[:, None])[:, 0]
            # Equal rewards whiten to 0, whose logarithm would be infinite for every kernel.
            fit = 0.5 * len(targets) * np.log(max(float(whitened @ whitened), 1e-12))
            scores.append(-fit - float(np.log(np.diag(lower)).sum()))
        return KERNELS[int(np.argmax(scores))]


def _part(encoded: Encoded, start: int, stop: int) -> Encoded:
    """Return the trajectories from ``start`` up to ``stop``."""
    trajectory = encoded.taken_M3[:, 0]
    taken = encoded.taken_M3[(trajectory >= start) & (trajectory < stop)] - np.array([start, 0, 0])
    return Encoded(taken, encoded.nodes_ND[start:stop], encoded.numbers_NU[start:stop])
