"""Finds a spec in a space: the decisions that lead to it, or the reason why none do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from autokd.errors import SpaceError, SpecError
from autokd.space.domains import Choices
from autokd.space.slots import Option, Path, Slot
from autokd.space.space import Space, advance, levels_label
from autokd.spec import DistillerSpec, FlowState, Step, TermSpec
from autokd.spec.vocabulary import IDENTITY


def validate(space: Space, spec: DistillerSpec) -> None:
    """Check that a spec lies in a space.

    Args:
        space: the space that offers the options.
        spec: a distiller; its canonical form is looked for.

    Raises:
        SpaceError: if it does not; the message names the first thing that the space does not offer.
    """
    _paths_of(space, spec)


def with_offered_ratios(space: Space, spec: DistillerSpec) -> DistillerSpec:
    """Return the same distiller with each gradient ratio replaced by the nearest that the space offers.

    Args:
        space: the space that offers gradient ratios.
        spec: a distiller with relative weights.
    """
    terms = (
        replace(term, weight=replace(term.weight, value=float(space.gradient_ratio.clip(term.weight.value))))
        for term in spec.terms
    )
    return replace(spec, terms=tuple(terms))


def decisions_of(space: Space, spec: DistillerSpec) -> dict[str, Any]:
    """Return the decisions that lead to a spec: a trial's parameters, with which Optuna can enqueue it.

    Args:
        space: the space that offers the decisions.
        spec: a distiller; its canonical form is looked for.

    Returns:
        Parameter name -> value, in the order in which ``Space.walk`` asks for them.

    Raises:
        SpaceError: if the spec lies outside the space; the message names the first thing that is not offered.
    """
    exact = spec.canonical()
    script = _Script(space, list(zip(exact.terms, _paths_of(space, exact), strict=True)))
    walked = space.walk(script)
    assert walked == exact, f"the walk led to {walked}, not to {exact}"
    return script.decisions


def _paths_of(space: Space, spec: DistillerSpec) -> list[Path]:
    """Return the path of each term of the canonical form; SpaceError if a term has none."""
    exact = spec.canonical()
    if not space.min_terms <= len(exact.terms) <= space.max_terms:
        raise SpaceError(
            f"the spec has {len(exact.terms)} terms; the space takes {space.min_terms} to {space.max_terms}."
        )
    paths = [path_of(space, term, i) for i, term in enumerate(exact.terms)]
    for i, path in enumerate(paths):
        if path in paths[:i] and not _has_free_numbers(space, path):
            raise SpaceError(
                f"terms[{i}]: has source, transformations and distance of terms[{paths.index(path)}]. The space draws "
                "each combination once a spec, with one weight and one choice of levels."
            )
    return paths


def _has_free_numbers(space: Space, path: Path) -> bool:
    return any(slot.option(label).free for slot, label in zip(space.slots, path, strict=True))


def path_of(space: Space, term: TermSpec, index: int) -> Path:
    """Return the path of a term through the slots.

    Args:
        space: the space that offers the options.
        term: a canonical term.
        index: its number in its distiller, for errors.

    Raises:
        SpaceError: if it has none; the message names the first thing that is not offered.
    """
    where = f"terms[{index}]"
    if term.weight.kind != "relative":
        raise SpaceError(
            f"{where}.weight: the space holds relative weights, the spec's weight is of kind '{term.weight.kind}'. "
            "Use spec.with_gradient_ratio(ratio) to place its form in the space."
        )
    if not space.gradient_ratio.contains(term.weight.value):
        raise SpaceError(f"{where}.weight: {term.weight.value:g} is not {space.gradient_ratio}.")
    for key, found, offered in (
        ("schedule", term.weight.schedule_label, space.schedules),
        ("level_weighting", term.weight.level_weighting, space.level_weightings_of(term.source)),
    ):
        if found not in offered:
            raise SpaceError(f"{where}.weight.{key}: {found!r} is not offered; the space has {', '.join(offered)}.")
    if term.levels not in (offered_levels := space.levels_of(term.source)):
        raise SpaceError(
            f"{where}.levels: {levels_label(term.levels)!r} is not offered; for source '{term.source.name}' the space "
            f"has {', '.join(map(levels_label, offered_levels))}."
        )
    if term.adapter not in space.adapters_of(term.source):
        adapters = ", ".join(space.adapters_of(term.source))
        raise SpaceError(f"{where}.adapter: {term.adapter!r} is not offered; the space has {adapters}.")
    for labels in _candidates(space, term):
        if not _refusal(space, labels):
            return labels
    raise SpaceError(f"{where}: {_reason(space, term)}")


def _candidates(space: Space, term: TermSpec) -> Iterator[Path]:
    """Yield the paths whose steps, apart from those that do nothing, are the term's."""
    source_slot, *transform_slots, distance_slot = space.slots
    for source in _matching(source_slot, term.source):
        for middle in _place(tuple(transform_slots), term.transforms):
            for distance in _matching(distance_slot, term.distance):
                yield (source, *middle, distance)


def _place(slots: tuple[Slot, ...], steps: tuple[Step, ...]) -> Iterator[Path]:
    """Yield the ways to distribute steps over slots in order, with nothing in the others; the latest place first."""
    if not slots:
        if not steps:
            yield ()
        return
    slot, *rest = slots
    if any(option.step.name == IDENTITY for option in slot.options):
        for tail in _place(tuple(rest), steps):
            yield (IDENTITY, *tail)
    if steps:
        for label in _matching(slot, steps[0]):
            for tail in _place(tuple(rest), steps[1:]):
                yield (label, *tail)


def _matching(slot: Slot, step: Step) -> list[str]:
    return [option.label for option in slot.options if _matches(slot, option, step)]


def _matches(slot: Slot, option: Option, step: Step) -> bool:
    if option.step.name != step.name:
        return False
    free = dict(option.free)
    fixed = option.step.settings(slot.kind)
    wanted = step.settings(slot.kind)
    return all(
        free[name].contains(value) if name in free else abs(fixed[name] - value) <= 1e-6 * abs(value)
        for name, value in wanted.items()
    )


def _refusal(space: Space, labels: Path) -> str:
    """Return why an option of the path cannot follow those before it; empty if each can."""
    state = FlowState()
    try:
        for slot, label in zip(space.slots, labels, strict=True):
            state = advance(state, slot, slot.option(label), space.counts)
    except SpecError as error:
        return str(error)
    return ""


def _reason(space: Space, term: TermSpec) -> str:
    """Return why no path leads to a term, the most specific reason first."""
    source_slot, *transform_slots, distance_slot = space.slots
    try:
        term.canonical()
    except SpecError as error:
        return str(error)
    for slot, step in ((source_slot, term.source), (distance_slot, term.distance)):
        if not _matching(slot, step):
            return f"{slot.kind} {_written(step)} is not offered; the space has {_labels(slot)}."
    for step in term.transforms:
        if not any(_matching(slot, step) for slot in transform_slots):
            offered = "; ".join(f"{slot.name}: {_labels(slot)}" for slot in transform_slots)
            return f"transform {_written(step)} is not offered; the space has {offered}."
    # The term is well-typed and has a path, so that an option of the path is restricted to other layouts by ``only``,
    # or needs more classes, objects or images than there are.
    for labels in _candidates(space, term):
        return _refusal(space, labels)
    order = " -> ".join(slot.name for slot in transform_slots)
    return f"its transformations do not fit the order of the slots ({order})."


def _written(step: Step) -> str:
    return f"'{Option(step).label}'"


def _labels(slot: Slot) -> str:
    return ", ".join(str(option) for option in slot.options)


class _Script:
    """A chooser that makes the decisions of a known spec, and records them by name.

    Replaying the walk, and not composing names here, keeps the names of decisions in one place.
    """

    def __init__(self, space: Space, terms: list[tuple[TermSpec, Path]]) -> None:
        self._space = space
        self._terms = terms
        self.decisions: dict[str, Any] = {}

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        self.decisions[name] = self._answer(name)
        return str(self.decisions[name])

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        self.decisions[name] = min(max(float(self._answer(name)), low), high)
        return float(self.decisions[name])

    def _answer(self, name: str) -> Any:
        if name == "terms":
            return str(len(self._terms))
        prefix, _, rest = name.partition(".")
        term, path = self._terms[int(prefix[1:]) - 1]
        if rest == "gradient_ratio":
            if isinstance(self._space.gradient_ratio, Choices):
                return f"{self._space.gradient_ratio.clip(term.weight.value):g}"
            return term.weight.value
        if rest == "schedule":
            return term.weight.schedule_label
        if rest == "level_weighting":
            return term.weight.level_weighting
        if rest == "levels":
            return levels_label(term.levels)
        if rest == "adapter":
            return term.adapter
        for slot, label in zip(self._space.slots, path, strict=True):
            if rest == slot.name or rest.startswith(f"{slot.name}("):
                return label
            if rest.startswith(f"{slot.name}."):
                return self._parameter(slot, label, term, rest.rsplit(".", 1)[1])
        raise AssertionError(f"no decision {name!r}")

    def _parameter(self, slot: Slot, label: str, term: TermSpec, parameter: str) -> Any:
        operator = slot.option(label).step.name
        for step in (term.source, *term.transforms, term.distance):
            if step.name == operator:
                return step.settings(slot.kind)[parameter]
        raise AssertionError(f"no parameter {parameter!r}")
