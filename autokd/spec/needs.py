"""The least numbers of classes, regions and images with which a term can teach, and whether data and batches have them.

A step that compares things with each other is constant if there are too few of them, whatever the student does, so its
term has no gradient. Which things a step compares depends on the steps before it: a softmax over the channels compares
classes behind ``class_logits``, and features behind ``feature_map``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import comb

from autokd.spec.operator import FEATURES, Countable, Kind, Operator
from autokd.spec.signature import Axes, FlowState, flow
from autokd.spec.terms import Step, TermSpec
from autokd.spec.vocabulary import operator_of


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is to compare in a training; None: not known, so that nothing is refused for it.

    Args:
        classes: classes of the data set.
        regions: objects of the batch that has most.
        images: images of a batch.
    """

    classes: int | None = None
    regions: int | None = None
    images: int | None = None

    def of(self, countable: Countable) -> int | None:
        """Return the number of one of them; None if it is not known.

        Args:
            countable: what is counted.
        """
        return {"classes": self.classes, "regions": self.regions, "images": self.images}[countable]


UNKNOWN = Counts()
"""Nothing is known of the data: no step is refused."""

_WORDS: Mapping[Countable, str] = {
    "classes": "classes needs {need} of them, and the data set has {found}",
    "regions": "objects needs {need} of them in a batch, and no batch has more than {found}",
    "images": "images needs {need} of them in a batch, and a batch has {found}",
}


def needs_of(state: FlowState, operator: Operator) -> dict[Countable, int]:
    """Return the least numbers with which an operator's result depends on the student.

    Args:
        state: the state before the operator.
        operator: a row of any kind, which may follow ``state``.

    Returns:
        What is counted -> the least number; what the operator compares none of is left out.
    """
    axes = state.axes
    found: dict[Countable, int] = {"classes": operator.min_classes}
    is_single_cell = state.side == 1 and state.layout in FEATURES
    # In a matrix without diagonal, a cell's column lacks the rows of the things that the cell itself combines.
    idle_rows = axes.idle_cells * axes.combines if axes.cells is not None else 0
    for countable, least in (
        (axes.channels, operator.min_channels),
        (axes.samples, operator.min_samples and operator.min_samples + idle_rows),
        (axes.cells, _things_for(operator.min_cells, axes)),
        (axes.samples if is_single_cell else None, operator.min_positions),
        # A matrix of n rows has n * n positions: two rows are enough.
        (axes.cells, operator.min_positions and 2 + axes.idle_cells),
    ):
        if countable is not None:
            found[countable] = max(least, found.get(countable, 0))
    return {countable: least for countable, least in found.items() if least > 1}


def _things_for(num_cells: int, axes: Axes) -> int:
    """Return the least number of things whose matrix has rows of that many different cells; 0 for none."""
    if not num_cells:
        return 0
    n = axes.idle_cells + axes.combines
    while comb(n - axes.idle_cells, axes.combines) < num_cells:
        n += 1
    return n


def why_unmet(state: FlowState, operator: Operator, counts: Counts) -> str:
    """Return why an operator could not teach, as the end of a sentence that begins with its name; empty if it can.

    Args:
        state: the state before the operator.
        operator: a row of any kind, which may follow ``state``.
        counts: what there is in a training.
    """
    for countable, need in needs_of(state, operator).items():
        found = counts.of(countable)
        if found is not None and found < need:
            return f"over {_WORDS[countable].format(need=need, found=found)}: with fewer it is constant"
    return ""


def unmet_needs(term: TermSpec, counts: Counts) -> tuple[str, ...]:
    """Return a sentence for each step of a term that could not teach.

    Args:
        term: a well-typed term.
        counts: what there is in a training.
    """
    return tuple(
        f"{kind} '{step.name}' {why}"
        for kind, step, state in _walk(term)
        if (why := why_unmet(state, operator_of(kind, step.name), counts))
    )


def needs_text(operator: Operator) -> str:
    """Return what an operator needs beside taps, for the reference of operators; empty if it needs nothing."""
    parts = [
        f"{least} {noun}"
        for least, noun in (
            (operator.min_classes, "classes"),
            (operator.min_channels, "channels"),
            (operator.min_cells, "cells"),
            (operator.min_samples, "samples"),
            (operator.min_positions, "cells in all samples together"),
        )
        if least
    ]
    return ", ".join(parts)


def _walk(term: TermSpec) -> Iterator[tuple[Kind, Step, FlowState]]:
    """Yield each step of a term with the state before it."""
    steps: list[tuple[Kind, Step]] = [("source", term.source), ("distance", term.distance)]
    steps[1:1] = [("transform", step) for step in term.transforms]
    state = FlowState()
    for kind, step in steps:
        yield kind, step, state
        state = flow(state, operator_of(kind, step.name), step.settings(kind))


__all__ = ["UNKNOWN", "Counts", "needs_of", "needs_text", "unmet_needs", "why_unmet"]
