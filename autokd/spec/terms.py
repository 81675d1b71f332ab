"""The values that describe one term of a distiller: Step, Weight, TermSpec."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from autokd.errors import SpecError, one_of
from autokd.spec.operator import Kind, Number
from autokd.spec.signature import FlowState, flow
from autokd.spec.vocabulary import IDENTITY, operator_of

WeightKind = Literal["absolute", "relative", "share"]
Schedule = Literal["constant", "linear_decay", "warm_up", "cosine_decay", "off_after"]
LevelWeighting = Literal["equal", "gap", "gradient"]
Adapter = Literal["linear", "mlp"]
WEIGHT_KINDS: tuple[WeightKind, ...] = ("absolute", "relative", "share")
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear_decay", "warm_up", "cosine_decay", "off_after")
LEVEL_WEIGHTINGS: tuple[LevelWeighting, ...] = ("equal", "gap", "gradient")
ADAPTERS: tuple[Adapter, ...] = ("linear", "mlp")

Levels = tuple[str, ...]
"""The pyramid levels of a term: one of ``LEVEL_WORDS``, or names of the student's levels in alphabetical order."""
ALL_LEVELS: Levels = ("all",)
LEVEL_WORDS = ("all", "coarsest", "finest")
"""``coarsest`` and ``finest``: the level of the greatest and of the least stride among those of both detectors."""


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """An operator with its parameters.

    Args:
        name: the operator's name.
        params: (name, value) of each parameter, sorted by name; a parameter that is left out has its default.
    """

    name: str
    params: tuple[tuple[str, Number], ...] = ()

    @classmethod
    def of(cls, name: str, **params: Number) -> Step:
        """Return the step of an operator with parameters by keyword.

        Args:
            name: the operator's name.
            params: name of a parameter -> value, in any order; neither is checked here.
        """
        return cls(name, tuple(sorted(params.items())))

    def settings(self, kind: Kind) -> dict[str, Number]:
        """Return the value of every parameter of the operator, defaults filled in.

        Args:
            kind: kind of the operator; a name is unique in its kind alone.

        Returns:
            Name of a parameter -> value.

        Raises:
            SpecError: with the nearest name, if the kind has no such operator.
        """
        operator = operator_of(kind, self.name)
        settings = {parameter.name: parameter.default for parameter in operator.parameters}
        return settings | dict(self.params)

    def checked(self, kind: Kind) -> Step:
        """Return this step with every parameter written out, but for those that are omitted at their defaults.

        Args:
            kind: kind of the operator; a name is unique in its kind alone.

        Returns:
            A step with whole numbers as int, and others rounded to 6 significant digits.

        Raises:
            SpecError: if the operator or a parameter does not exist, or a value is out of its range.
        """
        operator = operator_of(kind, self.name)
        for name, value in self.params:
            parameter = operator.parameter(name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or not parameter.low <= value <= parameter.high:
                raise SpecError(
                    f"{kind} '{self.name}': {name} = {value!r} is not a number in "
                    f"[{parameter.low}, {parameter.high}] ({parameter.meaning}; default {parameter.default})."
                )
            if parameter.is_integer and int(value) != value:
                raise SpecError(f"{kind} '{self.name}': {name} = {value!r} must be a whole number.")
        settings = self.settings(kind)
        exact = {p.name: int(settings[p.name]) if p.is_integer else rounded(settings[p.name])
                 for p in operator.parameters}  # fmt: skip
        silent = {p.name for p in operator.parameters if p.omitted_at_default and exact[p.name] == p.default}
        return Step.of(self.name, **{name: value for name, value in exact.items() if name not in silent})


@dataclass(frozen=True, slots=True, order=True)
class Weight:
    """The weight of a term, its schedule over the training, and its distribution over the pyramid levels.

    Args:
        kind: ``relative``, the ratio of the term's gradient norm to the task loss's on the student's taps, kept during
            training; ``absolute``, a plain factor, as published distillers use; or ``share``, the term's part of the
            sum of both gradient norms, held within a band from epoch to epoch (RT-DETRv4).
        value: the ratio or the factor, above 0; or the share, above 0 and below 1.
        schedule: ``constant``; ``linear_decay``, from the full weight at the start to 0 at the end of the training;
            ``warm_up``, from 0 to the full weight over the first tenth; ``cosine_decay``, from the full weight to 0 by
            half a cosine; ``off_after``, the full weight up to a part of the training, then 0.
        level_weighting: weights of a term's levels against each other: ``equal``; ``gap``, in proportion to the
            representation gap (1 - CKA) between student and teacher; ``gradient``, so that each level has the same
            gradient norm on the student's taps. Both are measured, never trained (Auto-KD's training-free factors),
            with mean 1.
        off_after: part of the training after which the term is off, between 0 and 1; 1 for every schedule but
            ``off_after``.

    Raises:
        SpecError: if a choice does not exist, the value is not a finite number above 0, or ``off_after`` does not fit
            the schedule.
    """

    kind: WeightKind
    value: float
    schedule: Schedule = "constant"
    level_weighting: LevelWeighting = "equal"
    off_after: float = 1.0

    def __post_init__(self) -> None:
        choices = (("", self.kind, WEIGHT_KINDS), ("schedule: ", self.schedule, SCHEDULES))
        for place, found, allowed in (*choices, ("level_weighting: ", self.level_weighting, LEVEL_WEIGHTINGS)):
            if found not in allowed:
                raise SpecError(f"weight: {place}" + one_of(found, allowed, noun="choice"))
        is_number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if not is_number or not math.isfinite(self.value) or self.value <= 0:
            raise SpecError(f"weight: {self.value!r} is not a finite number above 0. Drop the term to switch it off.")
        if self.schedule == "off_after" and not _is_part(self.off_after):
            raise SpecError(
                f"weight: schedule: off_after is {self.off_after!r}, which is no part of the training between 0 and 1. "
                "Write schedule: {off_after: 0.93}, or leave the schedule out if the term stays on to the end."
            )
        if self.schedule != "off_after" and self.off_after != 1.0:
            raise SpecError(
                f"weight: off_after is {self.off_after!r}, but the schedule is {self.schedule}. Set the schedule to "
                "off_after."
            )
        if self.kind == "share" and self.value >= 1:
            raise SpecError(
                f"weight: share: {self.value!r} is not below 1; it is the term's part of the gradient, the task's is "
                "the rest. For a term that outweighs the task, write {relative: ratio}."
            )

    @property
    def schedule_label(self) -> str:
        """The schedule with its number: "constant", or "off_after[0.93]"; a space names its choices so."""
        return f"off_after[{rounded(self.off_after):g}]" if self.schedule == "off_after" else self.schedule

    @property
    def is_measured(self) -> bool:
        """Whether the factor follows the gradients of term and task, and is not a plain number."""
        return self.kind != "absolute"

    @property
    def ratio(self) -> float:
        """The term's gradient norm over the task's that a measured weight asks for."""
        return self.value / (1.0 - self.value) if self.kind == "share" else self.value


@dataclass(frozen=True, slots=True, order=True)
class TermSpec:
    """One term of a distiller: source -> transformations -> distance -> weight.

    Terms are ordered, by source, transformations, distance and weight; that order is part of the canonical form.

    Args:
        source: step that reads feature pairs from the outputs of both detectors.
        transforms: steps that change both sides of a pair together, in the order of their application; may be empty.
        distance: step that gives one number for a pair.
        weight: weight of the term in the distiller's sum.
        levels: pyramid levels that the source is read on.
        adapter: what the student's maps pass before they are compared: ``linear``, a 1x1 convolution where the channels
            of both sides differ; ``mlp``, two 1x1 convolutions with a ReLU between them on every level. Terms with
            equal adapters share them.

    Raises:
        SpecError: if there is no such adapter.
    """

    source: Step
    transforms: tuple[Step, ...]
    distance: Step
    weight: Weight
    levels: Levels = ALL_LEVELS
    adapter: Adapter = "linear"

    def __post_init__(self) -> None:
        if self.adapter not in ADAPTERS:
            raise SpecError("adapter: " + one_of(str(self.adapter), ADAPTERS, noun="adapter"))

    def canonical(self) -> TermSpec:
        """Return the one representative of all ways to write this term.

        Identity steps are gone, every parameter is written out, and numbers have 6 digits.

        Raises:
            SpecError: naming the step, if an operator, a parameter or the order of steps is wrong.
        """
        written = tuple(step for step in self.transforms if step.name != IDENTITY)
        term = TermSpec(
            self.source.checked("source"),
            tuple(_at(f"transforms[{i}]", step, "transform") for i, step in enumerate(written)),
            self.distance.checked("distance"),
            replace(self.weight, value=rounded(self.weight.value), off_after=rounded(self.weight.off_after)),
            tuple(sorted(self.levels)),
            self.adapter,
        )
        check_term(term)
        return term

    @property
    def form(self) -> TermSpec:
        """The term with a constant relative weight of 1: what it computes, without its gradient ratio."""
        return replace(self, weight=Weight("relative", 1.0, level_weighting=self.weight.level_weighting))


def check_term(term: TermSpec) -> None:
    """Check that each step of ``term`` can follow the one before.

    Args:
        term: a term whose operators and parameters exist.

    Raises:
        SpecError: naming the step ("transforms[1]") that cannot, with the reason and a remedy.
    """
    state = flow(FlowState(), operator_of("source", term.source.name), term.source.settings("source"))
    if term.weight.level_weighting != "equal" and not operator_of("source", term.source.name).by_level:
        raise SpecError(
            f"weight: level_weighting is {term.weight.level_weighting!r}, but source '{term.source.name}' gives a "
            "single feature pair, not one a level. Use level_weighting: equal."
        )
    _check_levels(term)
    if term.adapter != "linear" and not operator_of("source", term.source.name).by_level:
        raise SpecError(
            f"adapter: found {term.adapter!r}, but source '{term.source.name}' compares no maps of paired levels, "
            "which an adapter is for. Use adapter: linear, or leave it out."
        )
    steps: list[tuple[str, Kind, int]] = [(f"transforms[{i}]", "transform", i) for i in range(len(term.transforms))]
    for place, kind, i in [*steps, ("distance", "distance", -1)]:
        step = term.distance if kind == "distance" else term.transforms[i]
        try:
            state = flow(state, operator_of(kind, step.name), step.settings(kind))
        except SpecError as error:
            raise SpecError(f"{place}: {error}") from None


def _check_levels(term: TermSpec) -> None:
    if wrong := wrong_levels(term.levels):
        raise SpecError(wrong)
    if term.levels != ALL_LEVELS and not operator_of("source", term.source.name).by_level:
        raise SpecError(
            f"levels: {', '.join(term.levels)}, but source '{term.source.name}' gives a single feature pair, not one a "
            "level. Leave 'levels' out."
        )


def wrong_levels(levels: Levels) -> str:
    """Return what is wrong with the levels of a term, as an error's text; empty if nothing is."""
    words = [level for level in levels if level in LEVEL_WORDS]
    is_named = bool(levels) and all(isinstance(level, str) and level for level in levels)
    if is_named and len(set(levels)) == len(levels) and (not words or len(levels) == 1):
        return ""
    return (
        f"levels: found {list(levels)!r}; write one of {', '.join(LEVEL_WORDS)}, or names of the student's levels, "
        "each once, as in [p3, p4]."
    )


def _is_part(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1


def rounded(value: Number) -> float:
    """Return ``value`` to 6 significant digits.

    A digest is of the decimal text, so a number that differs only in its last bits (a parameter through YAML, a sum of
    weights in another order) must not be another distiller.
    """
    return float(f"{float(value):.6g}")


def _at(place: str, step: Step, kind: Kind) -> Step:
    try:
        return step.checked(kind)
    except SpecError as error:
        raise SpecError(f"{place}: {error}") from None
