"""The parts of a space: options, the slots that hold them, the path of a term through the slots."""

from __future__ import annotations

from dataclasses import dataclass

from autokd.space.domains import Range
from autokd.spec import Step
from autokd.spec.operator import Kind, Layout

Path = tuple[str, ...]
"""The labels of the options of one term: source, one for each slot of transformations, distance."""


@dataclass(frozen=True, slots=True)
class Option:
    """One alternative of a slot: an operator whose parameters are fixed or drawn from a range.

    Args:
        step: the operator with its fixed parameters.
        free: parameters to be drawn, each with its range.
        only: layouts for which the space offers the option; empty: all layouts that the operator takes.
    """

    step: Step
    free: tuple[tuple[str, Range], ...] = ()
    only: tuple[Layout, ...] = ()

    @property
    def label(self) -> str:
        """The value of the decision that takes this option, e.g. "max_pool[window=4]"."""
        settings = ",".join(f"{name}={value:g}" for name, value in self.step.params)
        return f"{self.step.name}[{settings}]" if settings else self.step.name

    def __str__(self) -> str:
        """Return the label with the ranges of free parameters and the layouts to which the option is restricted."""
        free = "".join(f" ({name} {domain})" for name, domain in self.free)
        return f"{self.label}{free}" + (f" (only {' or '.join(self.only)})" if self.only else "")


@dataclass(frozen=True, slots=True)
class Slot:
    """A categorical decision of a term.

    Args:
        name: the decision's name, e.g. "source" or "attention".
        kind: the kind of operator that the slot holds.
        options: the alternatives.
    """

    name: str
    kind: Kind
    options: tuple[Option, ...]

    def option(self, label: str) -> Option:
        """Return an option of the slot.

        Args:
            label: the option's label.
        """
        return next(option for option in self.options if option.label == label)
