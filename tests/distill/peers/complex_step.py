"""Exact derivatives of NumPy code by complex steps, and the functions that stay exact under them.

f(x + i h) = f(x) + i h f'(x) + O(h^2) for a function that is analytic where it is evaluated, so the imaginary part over
h is the derivative; nothing cancels, and with h = 1e-40 the second order is below rounding (Squire and Trapp, SIAM
Review 40, 1998). A function must not take the modulus, the conjugate or the order of complex numbers: those below go by
the real part, as the derivative of a piecewise function does. ``detached`` drops the imaginary part, which is what
"no gradient" means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Leaves = Mapping[str, Array]
"""Name of a map or of predictions -> the student's numbers."""
STEP = 1e-40


class _Detachment:
    """The constants that ``detached`` gives: those at hand, or the recorded ones of an earlier evaluation."""

    def __init__(self) -> None:
        self.recorded: list[Array] = []
        self.replayed: Iterator[Array] | None = None

    def __call__(self, x: Array) -> Array:
        if self.replayed is not None:
            return next(self.replayed)
        self.recorded.append(x.real.copy())
        return self.recorded[-1]


_detachment = _Detachment()


def detached(x: Array) -> Array:
    """Return the real part, as a constant: no derivative passes."""
    return _detachment(x)


def absolute(x: Array) -> Array:
    return np.where(x.real < 0, -x, x)


def relu(x: Array) -> Array:
    return np.where(x.real > 0, x, 0.0)


def greater(x: Array, y: Array) -> Array:
    return np.where(x.real >= y.real, x, y)


def lesser(x: Array, y: Array) -> Array:
    return np.where(x.real <= y.real, x, y)


def greatest(x: Array, axis: int) -> Array:
    place = np.expand_dims(x.real.argmax(axis), axis)
    return np.take_along_axis(x, place, axis).squeeze(axis)


def length(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Euclidean length; the axes stay as 1."""
    return np.sqrt((x * x).sum(axis, keepdims=True))


def normalized(x: Array, axis: int | tuple[int, ...]) -> Array:
    """x / max(length, 1e-12), as torch's ``normalize``."""
    size = length(x, axis)
    return x / np.where(size.real > 1e-12, size, 1e-12)


def softmax(x: Array, axis: int | tuple[int, ...]) -> Array:
    powers = np.exp(x - x.real.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.real.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def log_sigmoid(x: Array) -> Array:
    return -np.log(1.0 + np.exp(-x))


def huber(x: Array) -> Array:
    """Quadratic below 1, linear above: torch's ``smooth_l1_loss`` with beta 1."""
    size = absolute(x)
    return np.where(size.real < 1.0, 0.5 * x * x, size - 0.5)


def derivative(function: Callable[[Leaves], Array], leaves: Leaves, direction: Leaves) -> float:
    """Return the derivative of ``function`` at ``leaves`` along ``direction``."""
    moved = {name: x + 1j * STEP * direction[name] if name in direction else x for name, x in leaves.items()}
    return float(np.imag(function(moved)) / STEP)


def central_difference(function: Callable[[Leaves], Array], leaves: Leaves, direction: Leaves, step: float) -> float:
    """Return (f(x + step d) - f(x - step d)) / (2 step), with what is detached held at x."""
    _detachment.recorded = []
    function(leaves)
    constants = _detachment.recorded
    ends = []
    for sign in (1, -1):
        _detachment.replayed = iter(constants)
        moved = {name: leaves[name] + sign * step * direction[name] for name in direction}
        ends.append(float(np.real(function({**leaves, **moved}))))
    _detachment.replayed = None
    return (ends[0] - ends[1]) / (2 * step)


def partial_derivatives(function: Callable[[Leaves], Array], leaves: Leaves, name: str, places: Array) -> Array:
    """Return the partial derivatives by some numbers of one leaf.

    Args:
        function: of the leaves.
        leaves: where it is differentiated.
        name: the leaf.
        places: indices into the flattened leaf.
    """
    found = np.empty(len(places))
    for row, place in enumerate(places):
        direction = np.zeros(leaves[name].size)
        direction[place] = 1.0
        found[row] = derivative(function, leaves, {name: direction.reshape(leaves[name].shape)})
    return found
