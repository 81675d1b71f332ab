"""The values that describe a distiller: Step, Weight, TermSpec, DistillerSpec."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from autokd.errors import SpecError, one_of
from autokd.files import text_digest
from autokd.spec.operator import Kind, Number
from autokd.spec.vocabulary import IDENTITY, operator_of

WeightKind = Literal["absolute", "relative"]
Schedule = Literal["constant", "linear_decay", "warm_up"]
Layers = Literal["equal", "gap", "gradient"]
WEIGHT_KINDS: tuple[WeightKind, ...] = ("absolute", "relative")
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear_decay", "warm_up")
LAYERS: tuple[Layers, ...] = ("equal", "gap", "gradient")

SCHEMA = 1
"""Of a distiller's YAML file; raised when old files need a translation."""


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """An operator's name with its parameters, sorted by name; those left out have their defaults."""

    name: str
    params: tuple[tuple[str, Number], ...] = ()

    @classmethod
    def of(cls, name: str, **params: Number) -> Step:
        return cls(name, tuple(sorted(params.items())))

    def settings(self, kind: Kind) -> dict[str, Number]:
        """Every parameter of the operator, defaults filled in."""
        operator = operator_of(kind, self.name)
        settings = {parameter.name: parameter.default for parameter in operator.parameters}
        return settings | dict(self.params)

    def checked(self, kind: Kind) -> Step:
        """Return this step with every parameter written out; SpecError if a name or a value is wrong."""
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
        exact = {p.name: int(settings[p.name]) if p.is_integer else _rounded(settings[p.name])
                 for p in operator.parameters}  # fmt: skip
        return Step.of(self.name, **exact)


@dataclass(frozen=True, slots=True, order=True)
class Weight:
    """How strong a term is, at which time of the training, and how its levels share that.

    kind: relative, the ratio of the term's gradient norm to the task loss's, on the student's taps, kept during
    training; or absolute, a plain factor, as published distillers use.
    schedule: constant; linear_decay, from the full weight at the start down to 0 at the end of the training;
    warm_up, from 0 up to the full weight over the first tenth.
    layers: how the pieces of a term (its pyramid levels) are weighed against each other: equal; gap, in proportion
    to the representation gap (1 - CKA) between student and teacher; gradient, so that each has the same gradient
    norm on the student's taps. Both are measured, never trained (Auto-KD's training-free factors), with mean 1.
    """

    kind: WeightKind
    value: float
    schedule: Schedule = "constant"
    layers: Layers = "equal"

    def __post_init__(self) -> None:
        choices = (("", self.kind, WEIGHT_KINDS), ("schedule: ", self.schedule, SCHEDULES))
        for place, found, allowed in (*choices, ("layers: ", self.layers, LAYERS)):
            if found not in allowed:
                raise SpecError(f"weight: {place}" + one_of(found, allowed, noun="choice"))
        is_number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if not is_number or not math.isfinite(self.value) or self.value <= 0:
            raise SpecError(f"weight: {self.value!r} is not a finite number above 0. Drop the term to switch it off.")


@dataclass(frozen=True, slots=True, order=True)
class TermSpec:
    """Knowledge source -> transformations -> distance -> weight."""

    source: Step
    transforms: tuple[Step, ...]
    distance: Step
    weight: Weight

    def canonical(self) -> TermSpec:
        """Identity steps gone, parameters written out, numbers to 6 digits; SpecError if ill-typed."""
        from autokd.spec.signature import check_term

        written = tuple(step for step in self.transforms if step.name != IDENTITY)
        term = TermSpec(
            self.source.checked("source"),
            tuple(_at(f"transforms[{i}]", step, "transform") for i, step in enumerate(written)),
            self.distance.checked("distance"),
            replace(self.weight, value=_rounded(self.weight.value)),
        )
        check_term(term)
        return term

    @property
    def form(self) -> TermSpec:
        """The term with unit constant relative weight: what it computes, apart from how strongly."""
        return replace(self, weight=Weight("relative", 1.0, layers=self.weight.layers))


@dataclass(frozen=True)
class DistillerSpec:
    """A sum of terms. ``name`` and ``paper`` label it and are no part of its identity."""

    terms: tuple[TermSpec, ...]
    name: str = ""
    paper: str = ""

    def __post_init__(self) -> None:
        if not self.terms:
            raise SpecError("a distiller has at least one term; without distillation there is no distiller.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DistillerSpec) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def canonical(self) -> DistillerSpec:
        """The one representative of all specs with this loss: terms canonical, merged and sorted.

        Terms equal but for the value of their weights merge, the values added. SpecError, naming the term, if any
        cannot be.
        """
        merged: dict[TermSpec, float] = {}
        for i, term in enumerate(self.terms):
            try:
                exact = term.canonical()
            except SpecError as error:
                raise SpecError(f"terms[{i}].{error}") from None
            unweighted = replace(exact, weight=replace(exact.weight, value=1.0))
            merged[unweighted] = merged.get(unweighted, 0.0) + exact.weight.value
        terms = [replace(term, weight=replace(term.weight, value=_rounded(v))) for term, v in merged.items()]
        return DistillerSpec(tuple(sorted(terms)), self.name, self.paper)

    def with_strength(self, ratio: float) -> DistillerSpec:
        """The same form with relative weights: the terms share ``ratio`` equally. Schedules and layers stay."""
        share = ratio / len(self.terms)
        terms = tuple(replace(term, weight=replace(term.weight, kind="relative", value=share)) for term in self.terms)
        return DistillerSpec(terms, self.name, self.paper)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal losses, stable between machines and versions of Python."""
        terms = self.canonical().to_data()["terms"]
        text = json.dumps(terms, sort_keys=True, separators=(",", ":"))
        return text_digest(text)

    def to_data(self) -> dict[str, Any]:
        from autokd.spec.text import spec_to_data

        return spec_to_data(self)

    def to_yaml(self) -> str:
        from autokd.spec.text import spec_to_yaml

        return spec_to_yaml(self)

    @classmethod
    def from_yaml(cls, path_or_text: str | Path) -> DistillerSpec:
        """Read a distiller; SpecError or ConfigError with file and line if it is not one."""
        from autokd.documents import load_document
        from autokd.spec.text import spec_from_document

        return spec_from_document(load_document(path_or_text))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> DistillerSpec:
        from autokd.documents import Document
        from autokd.spec.text import spec_from_document

        return spec_from_document(Document(dict(data)))


def _rounded(value: Number) -> float:
    return float(f"{float(value):.6g}")


def _at(place: str, step: Step, kind: Kind) -> Step:
    try:
        return step.checked(kind)
    except SpecError as error:
        raise SpecError(f"{place}: {error}") from None
