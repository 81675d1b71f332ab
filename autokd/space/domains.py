"""Domains of numbers: a range (a continuous decision) or choices (a categorical one)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from autokd.documents import Document, Location
from autokd.errors import SpaceError
from autokd.spec.operator import Number


@dataclass(frozen=True, slots=True)
class Range:
    """A closed interval from which a number is drawn.

    Args:
        low: least number.
        high: greatest number.
        log: whether the draw is uniform in the logarithm.
    """

    low: float
    high: float
    log: bool = False

    def contains(self, value: float) -> bool:
        """Return whether a number lies in the interval.

        Args:
            value: the number.
        """
        # Specs are written to six digits, so that an end of the interval may come back slightly outside.
        return self.low * (1 - 1e-6) <= value <= self.high * (1 + 1e-6)

    def clip(self, value: float) -> float:
        """Return the number of the interval that is nearest to another.

        Args:
            value: the other number.
        """
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"{'log-uniform' if self.log else 'uniform'} in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True, slots=True)
class Choices:
    """A few numbers to choose from.

    Args:
        values: the numbers, above 0.
    """

    values: tuple[Number, ...]

    def contains(self, value: float) -> bool:
        """Return whether a number is one of the choices.

        Args:
            value: the number.
        """
        return any(math.isclose(value, choice, rel_tol=1e-6) for choice in self.values)

    def clip(self, value: float) -> float:
        """Return the choice whose ratio to a number is nearest to 1, since gradient ratios act as factors.

        Args:
            value: the number, above 0.
        """
        return min(self.values, key=lambda choice: abs(math.log(choice / value)))

    def __str__(self) -> str:
        return "one of " + ", ".join(f"{value:g}" for value in self.values)


Domain = Range | Choices


def parse_domain(value: Any, document: Document, location: Location, *, positive: bool = True) -> Domain:
    """Read ``3``, ``[1, 2, 4]``, ``{uniform: [a, b]}`` or ``{log_uniform: [a, b]}``.

    Args:
        value: the plain data.
        document: the file, for errors.
        location: the place of ``value`` in it.
        positive: whether numbers must be above 0.

    Raises:
        SpaceError: for anything else, an empty range or a repeated number.
    """
    allowed = "a number, a list of numbers, {uniform: [low, high]} or {log_uniform: [low, high]}"
    if _is_number(value):
        values: list[Any] = [value]
    elif isinstance(value, list):
        values = value
    elif isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("uniform", "log_uniform"):
        [(kind, bounds)] = value.items()
        return _range(kind, bounds, document, (*location, kind))
    else:
        raise document.error(location, f"found {value!r}; write {allowed}.", SpaceError)
    if not values or not all(_is_number(v) and (v > 0 or not positive) for v in values):
        raise document.error(location, f"found {value!r}; write {allowed}{', above 0' * positive}.", SpaceError)
    if len(set(values)) < len(values):
        raise document.error(location, f"found {value!r}, in which a number appears twice. Keep one.", SpaceError)
    return Choices(tuple(values))


def _range(kind: str, bounds: Any, document: Document, location: Location) -> Range:
    if not (isinstance(bounds, list) and len(bounds) == 2 and all(_is_number(bound) for bound in bounds)):
        raise document.error(location, f"found {bounds!r}; write two numbers, [low, high].", SpaceError)
    low, high = map(float, bounds)
    if low >= high:
        raise document.error(
            location, f"found [{low:g}, {high:g}], an empty range: low must lie below high.", SpaceError
        )
    if low <= 0:
        raise document.error(location, f"found [{low:g}, {high:g}]; both ends must lie above 0.", SpaceError)
    return Range(low, high, log=kind == "log_uniform")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
