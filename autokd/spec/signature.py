"""The order in which operators may follow each other: a state machine over layouts, pending effects and sides.

``flow`` advances the state by one operator or raises. The space looks ahead with it, ``terms.check_term`` refuses a
term. See ``operator`` for the meaning of layouts, effects and sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autokd.errors import SpecError
from autokd.spec.operator import (
    CONTRAST,
    DISTRIBUTIONS,
    FEATURES,
    LOGITS,
    MAP,
    REGIONS,
    SCALAR_MAP,
    Countable,
    Effect,
    Layout,
    Number,
    Operator,
)


@dataclass(frozen=True, slots=True)
class Axes:
    """What the axes of a value count, where that follows from the data set and the batch; None elsewhere."""

    channels: Countable | None = None
    """What the channels are; "classes" of class logits."""
    samples: Countable | None = None
    """What the samples are."""
    cells: Countable | None = None
    """What the cells of a row are, in a matrix of relations."""
    idle_cells: int = 0
    """As of the operator that made the matrix: n things fill (n - idle_cells choose combines) different cells."""
    combines: int = 1


@dataclass(frozen=True, slots=True)
class FlowState:
    """The signature of a value between two steps."""

    layout: Layout = MAP
    """Kind of the value; a source does not read it."""
    pending: frozenset[Effect] = frozenset()
    """Effects that no step has used up yet."""
    side: int | None = None
    """Cells of a sample per side; None if that depends on the pair of detectors."""
    axes: Axes = Axes()
    """What channels, samples and cells are."""


def flow(state: FlowState, operator: Operator, settings: Mapping[str, Number] | None = None) -> FlowState:
    """Return the state after ``operator``.

    Args:
        state: the state before it.
        operator: a row of any kind.
        settings: every parameter's value; None if its numbers are not chosen yet.

    Returns:
        The state of the value that the operator gives.

    Raises:
        SpecError: with the reason and a remedy, if the operator cannot follow.
    """
    if operator.kind != "source" and state.layout not in operator.takes:
        raise SpecError(
            f"{operator.kind} '{operator.name}' takes {' or '.join(operator.takes)}, but gets {state.layout}. "
            + _remedy(operator, state)
        )
    lost = state.pending & operator.blind_to
    if operator.kind == "distance":
        lost |= state.pending & operator.keeps
    if lost:
        effect = min(lost)
        raise SpecError(
            f"{operator.kind} '{operator.name}' would leave the step before it without effect: {_REASONS[effect]}. "
            "Remove one of the two, or put a step between them that uses it."
        )
    if operator.compares_cells and state.side == 1:
        raise SpecError(
            f"{operator.kind} '{operator.name}' compares cells, but a single cell a sample is left of the source's. "
            "Pool or cut less, or give the source more cells."
        )
    layout = state.layout if operator.gives_same or operator.kind == "distance" else operator.gives
    pending = (state.pending & operator.keeps) | operator.adds
    return FlowState(layout, pending, _side_after(state, operator, settings), _axes_after(state.axes, operator))


def _side_after(state: FlowState, operator: Operator, settings: Mapping[str, Number] | None) -> int | None:
    if operator.kind == "source":
        return int(settings[operator.side]) if operator.side and settings else None
    if operator.divides_side and state.side is not None:
        # Rounded up: the last window or patch of a side may be smaller than the others.
        return -(-state.side // int(settings[operator.divides_side])) if settings else None
    return state.side if operator.gives_same or operator.gives in FEATURES else None


def _axes_after(axes: Axes, operator: Operator) -> Axes:
    if operator.kind == "source":
        # Proposals of the student are regions too, and their number follows from no data set.
        regions: Countable | None = None if operator.uses_of_student else "regions"
        samples: dict[Layout, Countable | None] = {MAP: "images", REGIONS: regions}
        return Axes(operator.channels_are, samples.get(operator.gives))
    if operator.gives_same or operator.kind == "distance":
        return axes
    is_collapsed = operator.gives == SCALAR_MAP  # one channel, and cells of its own
    channels = None if is_collapsed else axes.channels
    samples_after = None if operator.own_samples else axes.samples
    if operator.cells_are is not None:
        cells = axes.samples if operator.cells_are == "samples" else operator.cells_are
        return Axes(channels, samples_after, cells, operator.idle_cells, operator.combines)
    if is_collapsed:
        return Axes(channels, samples_after)
    return Axes(channels, samples_after, axes.cells, axes.idle_cells, axes.combines)


_REASONS: dict[Effect, str] = {
    "cell_scale": "it ignores the scale of a cell, which is all that the earlier step changed",
    "channel_affine": "it ignores the scale and shift of a channel, which is all that the earlier step changed",
    "sample_channel_scale": "it ignores the scale of a channel, which is all that the earlier step changed",
    "sample_channel_affine": (
        "it ignores the scale and shift of a sample's channel, which is all that the earlier step changed"
    ),
    "position_scale": "it ignores the scale of a position, which is all that the earlier step changed",
    "class_affine": (
        "it ignores the scale and shift of a candidate's logits, which is all that the earlier step changed"
    ),
    "grouping": "patches matter only where cells are compared with each other, and it treats each cell alone",
}


def _remedy(operator: Operator, state: FlowState) -> str:
    if state.layout == CONTRAST:
        return "Similarities go straight to a contrastive distance (info_nce, smooth_contrastive)."
    wants_distribution = set(operator.takes) <= set(DISTRIBUTIONS)
    if operator.kind == "distance" and wants_distribution and state.layout in (*FEATURES, LOGITS):
        return "Put a softmax (softmax_cells or softmax_channels) before it."
    if operator.kind == "transform" and state.layout in DISTRIBUTIONS:
        return "A softmax ends a term's transformations: move it to the end."
    givers = "Choose another source" if state.layout not in DISTRIBUTIONS else "Remove the softmax"
    return f"{givers}, or another {operator.kind}."
