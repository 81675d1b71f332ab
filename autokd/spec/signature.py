"""What may follow what: a small state machine over layouts and pending effects.

``flow`` advances the state by one operator or raises; the space uses it to look ahead, ``check_term`` to
refuse a spec. See ``vocabulary`` for the meaning of layouts and effects.
"""

from __future__ import annotations

from dataclasses import dataclass

from autokd.errors import SpecError
from autokd.spec.model import TermSpec
from autokd.spec.vocabulary import MAP, Effect, Layout, Operator, operator_of


@dataclass(frozen=True, slots=True)
class FlowState:
    """The layout of the value so far, and the effects that nothing has used yet."""

    layout: Layout = MAP
    pending: frozenset[Effect] = frozenset()


def flow(state: FlowState, operator: Operator) -> FlowState:
    """Return the state after ``operator``; SpecError says why it cannot stand here."""
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
    layout = state.layout if operator.gives_same else operator.gives
    if operator.kind == "distance":
        layout = state.layout
    return FlowState(layout, (state.pending & operator.keeps) | operator.adds)


def check_term(term: TermSpec) -> None:
    """Raise SpecError naming the step ("transforms[1]") if ``term`` combines what cannot be combined."""
    state = flow(FlowState(), operator_of("source", term.source.name))
    for i, step in enumerate(term.transforms):
        try:
            state = flow(state, operator_of("transform", step.name))
        except SpecError as error:
            raise SpecError(f"transforms[{i}]: {error}") from None
    try:
        flow(state, operator_of("distance", term.distance.name))
    except SpecError as error:
        raise SpecError(f"distance: {error}") from None


_REASONS: dict[Effect, str] = {
    "cell_scale": "it ignores the scale of a cell, which is all that the earlier step changed",
    "channel_affine": "it ignores the scale and shift of a channel, which is all that the earlier step changed",
    "sample_channel_scale": "it ignores the scale of a channel, which is all that the earlier step changed",
    "grouping": "patches matter only where cells are compared with each other, and it treats each cell alone",
}


def _remedy(operator: Operator, state: FlowState) -> str:
    if operator.kind == "distance" and state.layout == MAP:
        return "Put a softmax (softmax_cells or softmax_channels) before it."
    if operator.kind == "transform" and state.layout != MAP:
        return "A softmax ends a term's transformations: move it to the end."
    return "Choose another distance, or remove the softmax."
