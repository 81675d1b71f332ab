"""Smaller spaces: what a pair of detectors can supply, without options that no term can use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from autokd.errors import SpaceError
from autokd.space.slots import Option, Slot
from autokd.space.space import Space
from autokd.space.supply import why_lacking
from autokd.spec import Counts, FlowState, operator_of
from autokd.spec.needs import why_unmet
from autokd.spec.vocabulary import IDENTITY


def restrict_to_taps(
    space: Space, student: Iterable[str], *teachers: Iterable[str], unpaired: Mapping[str, str] | None = None
) -> tuple[Space, tuple[str, ...]]:
    """Return the part of ``space`` that these detectors can supply.

    Args:
        space: the whole space.
        student: names of the student's taps.
        teachers: names of each teacher's taps; an option is kept only if every teacher supplies it. No teacher: the
            same taps as the student's.
        unpaired: taps that student and teacher have but that cannot be compared -> the reason.

    Returns:
        The smaller space, and a sentence for each option that was dropped.

    Raises:
        SpaceError: if no term is left.
    """
    taps_s = set(student)
    taps_t = [set(taps) for taps in teachers] or [taps_s]
    lacking = {
        (slot, option): why
        for slot in space.slots
        for option in slot.options
        if (why := _why_lacking(slot, option, taps_s, taps_t, unpaired or {}))
    }
    reasons = [f"{slot.kind} '{option.label}' {why}" for (slot, option), why in lacking.items()]
    smaller = without_options(space, lacking)
    if any(not slot.options for slot in smaller.slots) or not smaller.num_completions(0, FlowState()):
        raise SpaceError("This pair supplies nothing that the space asks for: " + "; ".join(reasons) + ".")
    # An option that the pair supplies may have lost every step that could come before or after it.
    stranded = unreachable_options(smaller)
    reasons += [f"{slot.kind} '{option.label}' has no step left that it fits" for slot, option in stranded]
    return without_options(smaller, stranded), tuple(reasons)


def restrict_to_counts(space: Space, counts: Counts) -> tuple[Space, tuple[str, ...]]:
    """Return the part of ``space`` whose terms can teach with these numbers of classes, objects and images.

    An option may be left out behind some steps and kept behind others: its reason says over what it compares.

    Args:
        space: the whole space.
        counts: what trainings have.

    Returns:
        The smaller space, and a sentence for each option that was left out; the same space if there is none.

    Raises:
        SpaceError: if no term is left.
    """
    reasons = _unmet(space, counts)
    if not reasons:
        return space, ()
    limited = replace(space, counts=counts, document=None)
    if not limited.num_completions(0, FlowState()):
        raise SpaceError("No term of the space could teach on these data: " + "; ".join(reasons) + ".")
    stranded = unreachable_options(limited)
    named = [(slot, option) for slot, option in stranded if not _is_named(slot, option, reasons)]
    reasons += [f"{slot.kind} '{option.label}' has no step left that it fits" for slot, option in named]
    return without_options(limited, stranded), tuple(reasons)


def _unmet(space: Space, counts: Counts) -> list[str]:
    """Return a sentence for each option that could teach nothing behind some steps, without repetitions."""
    states, found = {FlowState(): None}, dict[str, None]()
    for index, slot in enumerate(space.slots):
        after: dict[FlowState, None] = {}
        for state in states:
            for label, reached, _ in space.successors(index, state):
                option = slot.option(label)
                operator = None if option.step.name == IDENTITY else operator_of(slot.kind, option.step.name)
                if operator is not None and (why := why_unmet(state, operator, counts)):
                    found[f"{slot.kind} '{label}' {why}"] = None
                else:
                    after[reached] = None
        states = after
    return list(found)


def _is_named(slot: Slot, option: Option, reasons: Iterable[str]) -> bool:
    return any(reason.startswith(f"{slot.kind} '{option.label}' ") for reason in reasons)


def without_options(space: Space, options: Iterable[tuple[Slot, Option]]) -> Space:
    """Return the space without the given options of its slots."""
    dropped = {(slot.name, option.label) for slot, option in options}
    slots = (
        replace(slot, options=tuple(o for o in slot.options if (slot.name, o.label) not in dropped))
        for slot in space.slots
    )
    return replace(space, slots=tuple(slots), document=None)


def unreachable_options(space: Space) -> list[tuple[Slot, Option]]:
    """Return the options that no well-typed term uses, each with its slot, in the order of the slots."""
    states = {FlowState()}
    stranded = []
    for index, slot in enumerate(space.slots):
        found = [successor for state in states for successor in space.successors(index, state)]
        used = {successor.label for successor in found}
        stranded += [(slot, option) for option in slot.options if option.label not in used]
        states = {successor.state for successor in found}
    return stranded


def _why_lacking(
    slot: Slot, option: Option, student: set[str], teachers: Sequence[set[str]], unpaired: Mapping[str, str]
) -> str:
    if option.step.name == IDENTITY:
        return ""
    return why_lacking(operator_of(slot.kind, option.step.name), student, teachers, unpaired)
