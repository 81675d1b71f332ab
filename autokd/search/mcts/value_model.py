"""A value model of trajectories: what a choice is worth in the context of the choices above it.

A Gaussian process over trajectories (complete or not), conditioned on all trials, plays the part that a value network
plays in AlphaZero. With few trials and many leaves a node's own visits say little; the model lets a node learn
from every trial that shares some of its decisions. Its kernel between two trajectories a, b is

    k(a, b) = (w_option m + w_pair m^2 + w_prefix p) / 1  +  w_number * mean over numbers of exp(-(u_a - u_b)^2 / 2 l^2)

    m = sum over decisions taken alike in a and b, anywhere ("all actions as first")  of decay^depth / total
    p = sum over the decisions down to the first that differs (the tree's own view)  of decay^depth / total

The weights, the decay and the noise are those of a short list with the greatest marginal likelihood. A trajectory that
is not yet complete has no part in the decisions still to come: its value is that of an average completion.

A pending trajectory, whose value is still to come, is believed to turn out as expected: it leaves the mean alone and
takes away the deviation that its value will (Desautels, Krause, Burdick, JMLR 15, 2014, section 3: hallucinated
observations).

Legend: N trajectories with a value, P pending ones, K trajectories to be judged, M decisions in all of them, F options
known, D depth, U numeric parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .linear_algebra import cholesky, product, solve_lower
from .tree import Action

Trajectory = tuple[tuple[Action, ...], tuple[tuple[str, float], ...]]
"""Decisions in order, and numbers in [0, 1] by name."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Weights of the kernel's parts, decay with depth, and the variance of the noise."""

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
"""Finished trials before the kernel is chosen by marginal likelihood."""
MAX_TO_CHOOSE = 48
"""Latest trials by which it is chosen, so that the choice stays cheap."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Walks as arrays. ``taken_M3``: (trajectory, option, depth) of each decision. ``nodes_ND``: a number for each
    prefix, -1 below the end. ``numbers_NU``: NaN where absent."""

    taken_M3: np.ndarray
    nodes_ND: np.ndarray
    numbers_NU: np.ndarray


class ValueModel:
    """Fitted to trajectories and their targets (mean 0, deviation about 1) and to pending trajectories; ``posterior`` judges others.

    There must be at least one trajectory, of either sort.
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
        # The whitened target of a pending trajectory is its surprise, which is 0 for one that turns out as expected.
        self._whitened = np.zeros(len(every))
        num_told = len(trajectories)
        told = solve_lower(self._lower[:num_told, :num_told], targets_N[:, None])[:, 0]
        self._whitened[:num_told] = told

    def posterior(self, trajectories: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
        """Mean (K,) and covariance (K, K) of the values of ``trajectories``."""
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
        for i, (_, numbers) in enumerate(trajectories):
            for name, unit in numbers:
                if name in self._names:
                    numbers_NU[i, self._names[name]] = unit
        return Encoded(np.array(taken, dtype=int).reshape(-1, 3), nodes_ND, numbers_NU)

    def _covariance(self, kernel: Kernel, a: Encoded, b: Encoded) -> np.ndarray:
        alike, prefix = self._agreement(kernel.decay, a, b)
        return kernel.option * alike + kernel.pair * alike**2 + kernel.prefix * prefix + self._numeric(kernel, a, b)

    def _agreement(self, decay: float, a: Encoded, b: Encoded) -> tuple[np.ndarray, np.ndarray]:
        """The matrices m and p of the module's formula."""
        total = sum(decay**depth for depth in range(round(self._depth)))
        alike = product(self._discounted(a, decay), self._discounted(b, decay))
        prefix = np.zeros_like(alike)
        for depth in range(min(a.nodes_ND.shape[1], b.nodes_ND.shape[1])):
            column_a, column_b = a.nodes_ND[:, depth, None], b.nodes_ND[None, :, depth]
            prefix += decay**depth * ((column_a == column_b) & (column_a >= 0))
        return alike / total, prefix / total

    def _discounted(self, trajectories: Encoded, decay: float) -> np.ndarray:
        """(N, F): decay^(depth / 2) for each option taken, so that a product of two trajectories gives decay^depth."""
        rows, columns, depths = trajectories.taken_M3.T
        faded_NF = np.zeros((len(trajectories.nodes_ND), len(self._options)))
        np.add.at(faded_NF, (rows, columns), decay ** (depths / 2))
        return faded_NF

    def _numeric(self, kernel: Kernel, a: Encoded, b: Encoded) -> np.ndarray:
        covariance = np.zeros((len(a.numbers_NU), len(b.numbers_NU)))
        for column in range(len(self._names)):
            gap = a.numbers_NU[:, column, None] - b.numbers_NU[None, :, column]
            covariance += np.nan_to_num(np.exp(-(gap**2) / (2 * kernel.length**2)))
        return kernel.number * covariance / max(1, len(self._names))

    def _select_kernel(self, targets_N: np.ndarray) -> Kernel:
        """The kernel of KERNELS with the greatest marginal likelihood, the scale of the targets profiled out."""
        if len(targets_N) < MIN_TO_CHOOSE:
            return DEFAULT_KERNEL
        first, targets = max(0, len(targets_N) - MAX_TO_CHOOSE), targets_N[-MAX_TO_CHOOSE:]
        seen = _part(self._seen, first, len(targets_N))
        numeric = self._numeric(DEFAULT_KERNEL, seen, seen)
        agreements = {decay: self._agreement(decay, seen, seen) for decay in sorted({k.decay for k in KERNELS})}
        scores = []
        for kernel in KERNELS:
            alike, prefix = agreements[kernel.decay]
            covariance = kernel.option * alike + kernel.pair * alike**2 + kernel.prefix * prefix + numeric
            covariance[np.diag_indices_from(covariance)] += kernel.noise
            lower = cholesky(covariance)
            whitened = solve_lower(lower, targets[:, None])[:, 0]
            fit = 0.5 * len(targets) * np.log(max(float(whitened @ whitened), 1e-12))
            scores.append(-fit - float(np.log(np.diag(lower)).sum()))
        return KERNELS[int(np.argmax(scores))]


def _part(encoded: Encoded, start: int, stop: int) -> Encoded:
    """The trajectories from ``start`` up to ``stop``."""
    trajectory = encoded.taken_M3[:, 0]
    taken = encoded.taken_M3[(trajectory >= start) & (trajectory < stop)] - np.array([start, 0, 0])
    return Encoded(taken, encoded.nodes_ND[start:stop], encoded.numbers_NU[start:stop])
