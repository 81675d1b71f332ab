"""Who makes the decisions of a walk through a space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy


class Chooser(Protocol):
    """Makes the decisions of a walk: an Optuna trial, a random generator or a list of known decisions."""

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        """Return the choice of a decision.

        Args:
            name: the decision; decisions of one name always have the same options.
            options: the alternatives, two or more.
        """
        ...

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return the number of a decision.

        Args:
            name: the decision; decisions of one name always have the same range.
            low: least number allowed.
            high: greatest number allowed.
            log: whether the range is meant to be sampled uniformly in the logarithm.
        """
        ...


class RandomChooser:
    """A chooser whose every decision is uniform over what it offers.

    Args:
        rng: source of random numbers.
    """

    def __init__(self, rng: numpy.random.Generator) -> None:
        self._rng = rng

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        """Return one of ``options``."""
        return options[int(self._rng.integers(len(options)))]

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a number in [low, high], drawn on the logarithm if ``log``."""
        if log:
            return math.exp(self._rng.uniform(math.log(low), math.log(high)))
        return float(self._rng.uniform(low, high))
